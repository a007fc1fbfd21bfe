//! How a group's partitions are shared: who holds how many.
//!
//! There is no coordinator. Each member computes everybody's quota from what all of them see alike (the members in a fixed
//! order, the topics in a fixed order): partitions are dealt out in turn, on from one topic to the next, so that each topic
//! and the whole are even to within one. Which partitions fill a quota is left to whoever gets the lock first; a member
//! lets go only of what it has over its quota, so a newcomer costs the others no more than its share.

/// How many of `partitions` the member at `rank` of `members` should hold, when the deal begins at rank `first`.
pub(super) fn quota(partitions: usize, members: usize, rank: usize, first: usize) -> usize {
    if members == 0 {
        return 0;
    }
    // The place of this member in this topic's deal.
    let place = (rank + members - first % members) % members;
    partitions / members + usize::from(place < partitions % members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_is_dealt_once_and_evenly_by_topic_and_in_all() {
        for members in 1..10 {
            let topics = [8, 8, 1, 3];
            let mut totals = vec![0; members];
            let mut first = 0;
            for partitions in topics {
                let quotas: Vec<usize> = (0..members)
                    .map(|rank| quota(partitions, members, rank, first))
                    .collect();
                assert_eq!(quotas.iter().sum::<usize>(), partitions);
                assert!(quotas.iter().max().unwrap() - quotas.iter().min().unwrap() <= 1);
                for (total, quota) in totals.iter_mut().zip(quotas) {
                    *total += quota;
                }
                first += partitions;
            }
            assert!(
                totals.iter().max().unwrap() - totals.iter().min().unwrap() <= 1,
                "{totals:?}"
            );
        }
    }

    #[test]
    fn nobody_holds_nothing_of_nothing() {
        assert_eq!(quota(8, 0, 0, 3), 0);
        assert_eq!(quota(0, 3, 1, 0), 0);
        assert_eq!(quota(1, 3, 2, 5), 1);
    }
}
