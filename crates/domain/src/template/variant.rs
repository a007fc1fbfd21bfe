//! Which contact gets which A/B variant.

use sha2::{Digest, Sha256};

/// The index of the variant that a contact gets of a template, in proportion to `weights`. It follows from the two names
/// alone: the same contact gets the same variant every time, and another template divides the contacts another way.
/// `None` where there is nothing to choose from.
pub fn pick(template: &str, contact_id: &str, weights: impl Iterator<Item = u32> + Clone) -> Option<usize> {
    let total: u64 = weights.clone().map(u64::from).sum();
    let mut hash = Sha256::new();
    hash.update((template.len() as u64).to_be_bytes());
    hash.update(template.as_bytes());
    hash.update(contact_id.as_bytes());
    let digest = hash.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    let mut point = u64::from_be_bytes(first).checked_rem(total)?;
    for (index, weight) in weights.enumerate() {
        let weight = u64::from(weight);
        if point < weight {
            return Some(index);
        }
        point -= weight;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_stable_and_in_proportion() {
        let mut counts = [0; 3];
        for contact in 0..10_000 {
            let id = contact.to_string();
            let index = pick("a", &id, [1, 0, 3].into_iter()).unwrap();
            assert_eq!(pick("a", &id, [1, 0, 3].into_iter()), Some(index));
            counts[index] += 1;
        }
        assert!((2_300..2_700).contains(&counts[0]) && counts[1] == 0, "{counts:?}");
        let differ = (0..1_000)
            .map(|contact| contact.to_string())
            .filter(|id| pick("a", id, [1, 1].into_iter()) != pick("b", id, [1, 1].into_iter()))
            .count();
        assert!((400..600).contains(&differ), "{differ}");
        assert_eq!(pick("a", "1", std::iter::empty()), None);
    }
}
