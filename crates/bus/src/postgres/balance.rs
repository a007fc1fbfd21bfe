//! Sharing a group's partitions without a coordinator: each member looks at the locks and does its own part.
//!
//! Who has more than its quota announces the surplus and unlocks it when its owner says so; who has less tries to lock what
//! is free. Two that want the same are told apart by the lock. What a dead member held is free as soon as its session is
//! gone.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::{Duration, Instant},
};

use events::Topic;
use sqlx::PgConnection;

use super::{
    session::{Connected, Owned, Session, lock},
    share,
};
use crate::{BusError, Delivery, Partition};

/// First keys of the advisory locks: `lg:m` and `lg:p`, members and partitions.
pub(super) const MEMBER: i32 = 0x6c67_3a6d;
const OWNER: i32 = 0x6c67_3a70;
/// How long the owner may take to let go of a revoked partition before it is taken from it.
const RELEASE_WAIT: Duration = Duration::from_secs(30);
/// How often to look for partitions that a topic was given.
const LAYOUT_FRESH: Duration = Duration::from_secs(15);

/// The rows of `log.groups` for a group, of all topics that it ever read.
#[derive(Debug)]
pub(super) struct Layout {
    read: Instant,
    pub topics: BTreeMap<i16, Vec<(i32, Option<Partition>)>>,
}

impl Session {
    /// Looks at who is there and who owns what; announces what we have too many of and takes what we have too few of.
    pub async fn balance(&mut self) -> Result<(), BusError> {
        self.connected().await?;
        self.try_balance().await.map_err(|error| self.lose(error))
    }

    async fn try_balance(&mut self) -> Result<(), sqlx::Error> {
        let Some(mut connected) = self.connected.take() else {
            return Ok(());
        };
        if connected.layout.read.elapsed() > LAYOUT_FRESH {
            let ids: Vec<i16> = self.topics_of(&connected.layout).map(|(id, _)| id).collect();
            connected.layout = layout(&mut connected.connection, &self.group, &ids).await?;
        }
        self.take_overdue(&mut connected).await?;
        let locks: Vec<(i32, i64, i64)> = sqlx::query_as(
            "select pid, classid::bigint, objid::bigint from pg_locks
             where locktype = 'advisory' and granted and objsubid = 2 and classid::bigint in ($1, $2)
                and database = (select oid from pg_database where datname = current_database())",
        )
        .bind(i64::from(MEMBER))
        .bind(i64::from(OWNER))
        .fetch_all(&mut connected.connection)
        .await?;
        let held: HashSet<i64> = locks
            .iter()
            .filter(|(_, class, _)| *class == i64::from(OWNER))
            .map(|(_, _, id)| *id)
            .collect();
        let mut wanted = Vec::new();
        let mut surplus = Vec::new();
        let mut first = 0;
        for (topic, rows) in &connected.layout.topics {
            let dealt = first;
            first += rows.len();
            if !self.topics_of(&connected.layout).any(|(id, _)| id == *topic) {
                continue;
            }
            let key = member_key(rows).map(i64::from);
            let members: BTreeSet<i32> = locks
                .iter()
                .filter(|(_, class, id)| *class == i64::from(MEMBER) && Some(*id) == key)
                .map(|(pid, _, _)| *pid)
                .collect();
            let Some(rank) = members.iter().position(|pid| *pid == connected.pid) else {
                continue;
            };
            let quota = share::quota(rows.len(), members.len(), rank, dealt);
            let state = lock(&self.state);
            let ours: Vec<Partition> = state
                .owned
                .iter()
                .filter(|(_, owned)| owned.topic == *topic && owned.revoked.is_none())
                .map(|(partition, _)| *partition)
                .collect();
            if ours.len() > quota {
                surplus.extend_from_slice(&ours[quota..]);
            }
            let free = rows.iter().filter(|(id, _)| !held.contains(&i64::from(*id)));
            wanted.extend(free.take(quota.saturating_sub(ours.len())).map(|(id, _)| *id));
        }
        if !surplus.is_empty() {
            let mut state = lock(&self.state);
            for partition in &surplus {
                if let Some(owned) = state.owned.get_mut(partition) {
                    owned.revoked = Some(Instant::now());
                }
            }
            state.pending.push_back(Delivery::Revoke(surplus));
        }
        if !wanted.is_empty() {
            self.take(&mut connected, &wanted).await?;
        }
        self.connected = Some(connected);
        Ok(())
    }

    /// Takes those of the partitions that nobody else takes first.
    async fn take(&self, connected: &mut Connected, wanted: &[i32]) -> Result<(), sqlx::Error> {
        let locked: Vec<(i32,)> =
            sqlx::query_as("select id from unnest($2::integer[]) as id where pg_try_advisory_lock($1, id)")
                .bind(OWNER)
                .bind(wanted)
                .fetch_all(&mut connected.connection)
                .await?;
        if locked.is_empty() {
            return Ok(());
        }
        // After the lock, so that it sees the last owner's last commit; it waits for one that is under way.
        let rows: Vec<(i32, i64, i64)> = sqlx::query_as(
            "update log.groups g set epoch = g.epoch + 1 from log.heads h
             where g.id = any($1) and h.topic = g.topic and h.partition = g.partition
             returning g.id, g.epoch, greatest(g.next_offset, h.first_offset)",
        )
        .bind(locked.into_iter().map(|(id,)| id).collect::<Vec<_>>())
        .fetch_all(&mut connected.connection)
        .await?;
        let mut state = lock(&self.state);
        let mut taken = Vec::with_capacity(rows.len());
        for (topic, layout) in &connected.layout.topics {
            for (id, partition) in layout {
                let (Some(partition), Some((_, epoch, position))) = (partition, rows.iter().find(|row| row.0 == *id))
                else {
                    continue;
                };
                let owned = Owned {
                    id: *id,
                    topic: *topic,
                    epoch: *epoch,
                    position: *position,
                    end: *position,
                    segment: None,
                    paused: false,
                    revoked: None,
                };
                state.owned.insert(*partition, owned);
                taken.push(*partition);
            }
        }
        state.stale = true;
        state.pending.push_back(Delivery::Assign(taken));
        Ok(())
    }

    /// Lets go of what was revoked too long ago.
    async fn take_overdue(&self, connected: &mut Connected) -> Result<(), sqlx::Error> {
        let overdue: Vec<Partition> = lock(&self.state)
            .owned
            .iter()
            .filter(|(_, owned)| owned.revoked.is_some_and(|since| since.elapsed() > RELEASE_WAIT))
            .map(|(partition, _)| *partition)
            .collect();
        if overdue.is_empty() {
            return Ok(());
        }
        tracing::warn!(
            group = self.group,
            partitions = overdue.len(),
            "revoked partitions were not released in time"
        );
        self.unlock(connected, &overdue).await?;
        lock(&self.state).pending.push_back(Delivery::Lost(overdue));
        Ok(())
    }

    async fn unlock(&self, connected: &mut Connected, partitions: &[Partition]) -> Result<(), sqlx::Error> {
        let ids: Vec<i32> = {
            let mut state = lock(&self.state);
            partitions
                .iter()
                .filter_map(|partition| state.owned.remove(partition))
                .map(|owned| owned.id)
                .collect()
        };
        if ids.is_empty() {
            return Ok(());
        }
        sqlx::query("select pg_advisory_unlock($1, id) from unnest($2::integer[]) as id")
            .bind(OWNER)
            .bind(ids)
            .execute(&mut connected.connection)
            .await?;
        self.shared.wake.group_changed();
        Ok(())
    }

    pub async fn release(&mut self, partitions: &[Partition]) -> Result<(), BusError> {
        let Some(mut connected) = self.connected.take() else {
            return Ok(());
        };
        match self.unlock(&mut connected, partitions).await {
            Ok(()) => {
                self.connected = Some(connected);
                Ok(())
            }
            Err(error) => Err(self.lose(error)),
        }
    }
}

/// The second key of the members' lock of a topic: the id of its first partition's row.
pub(super) fn member_key(rows: &[(i32, Option<Partition>)]) -> Option<i32> {
    rows.first().map(|(id, _)| *id)
}

/// Reads the group's rows, making those that are missing.
pub(super) async fn layout(connection: &mut PgConnection, group: &str, ids: &[i16]) -> Result<Layout, sqlx::Error> {
    sqlx::query(
        "insert into log.groups (name, topic, partition)
         select $1, h.topic, h.partition from log.heads h
         where h.topic = any($2) and not exists (
            select from log.groups g where g.name = $1 and g.topic = h.topic and g.partition = h.partition)
         order by h.topic, h.partition
         on conflict do nothing",
    )
    .bind(group)
    .bind(ids)
    .execute(&mut *connection)
    .await?;
    let rows: Vec<(i32, i16, String, i32)> = sqlx::query_as(
        "select g.id, g.topic, t.name, g.partition from log.groups g join log.topics t on t.id = g.topic
         where g.name = $1 order by g.topic, g.partition",
    )
    .bind(group)
    .fetch_all(connection)
    .await?;
    let mut topics: BTreeMap<i16, Vec<(i32, Option<Partition>)>> = BTreeMap::new();
    for (id, topic, name, number) in rows {
        let partition = Topic::by_name(&name).map(|topic| Partition {
            topic,
            number: number.cast_unsigned(),
        });
        topics.entry(topic).or_default().push((id, partition));
    }
    Ok(Layout {
        read: Instant::now(),
        topics,
    })
}
