//! A group member's own connection, and what it owns by it.
//!
//! - A member holds a shared advisory lock a topic: the group's members are those who hold it, with nothing to clean up
//!   when one dies.
//! - A partition's owner holds an exclusive advisory lock on its row of `log.groups`. Both die with the connection, and so
//!   does the ownership: when the connection breaks, everything owned is lost ([`Delivery::Lost`]).
//! - Taking a partition raises its epoch under the lock. A commit by an earlier owner, be it from a transaction that was
//!   still open when its session died, then finds another epoch and changes nothing.
//!
//! Everybody looks at the locks once a second, and at once when a member says that something changed; so partitions of a
//! member that died are taken over within about a second. A host that vanishes without closing its connection is noticed
//! by TCP's keepalives, about ten seconds later.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use events::Topic;
use sqlx::{ConnectOptions, Connection, PgConnection};

use super::{Shared, reading, share};
use crate::{BusError, Delivery, Partition, ReadLimits, StoredRecord};

/// First keys of the advisory locks: `lg:m` and `lg:p`, members and partitions.
const MEMBER: i32 = 0x6c67_3a6d;
const OWNER: i32 = 0x6c67_3a70;
/// How long the owner may take to let go of a revoked partition before it is taken from it.
const RELEASE_WAIT: Duration = Duration::from_secs(30);
/// How often to look for partitions that a topic was given.
const LAYOUT_FRESH: Duration = Duration::from_secs(15);

/// What the member has, as the consumer sees it.
#[derive(Debug, Default)]
pub(super) struct State {
    pub owned: BTreeMap<Partition, Owned>,
    pub pending: VecDeque<Delivery>,
    /// There may be records beyond the known ends.
    pub stale: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Owned {
    id: i32,
    topic: i16,
    pub epoch: i64,
    /// The next offset to deliver.
    pub position: i64,
    /// The partition's end as far as we know.
    pub end: i64,
    /// The segment that holds `position`, once looked up.
    pub segment: Option<i32>,
    pub paused: bool,
    revoked: Option<Instant>,
}

impl Owned {
    pub fn is_readable(&self) -> bool {
        !self.paused && self.revoked.is_none()
    }
}

pub(super) type SharedState = Arc<Mutex<State>>;

pub(super) fn lock(state: &SharedState) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
pub(super) struct Session {
    shared: Arc<Shared>,
    group: String,
    topics: Vec<Topic>,
    state: SharedState,
    connected: Option<Connected>,
}

#[derive(Debug)]
struct Connected {
    connection: PgConnection,
    pid: i32,
    layout: Layout,
}

/// The rows of `log.groups` for this group, of all topics that it ever read.
#[derive(Debug)]
struct Layout {
    read: Instant,
    topics: BTreeMap<i16, Vec<(i32, Option<Partition>)>>,
}

impl Session {
    pub fn new(shared: Arc<Shared>, group: &str, topics: &[Topic], state: SharedState) -> Session {
        Session {
            shared,
            group: group.into(),
            topics: topics.to_vec(),
            state,
            connected: None,
        }
    }

    /// Connects and becomes a member.
    pub async fn join(&mut self) -> Result<(), BusError> {
        let mut ids = Vec::with_capacity(self.topics.len());
        for topic in &self.topics {
            ids.push(self.shared.catalog.known(*topic).await?.id);
        }
        let connected = self.connect(&ids).await.map_err(BusError::Postgres)?;
        self.connected = Some(connected);
        self.shared.wake.group_changed();
        Ok(())
    }

    async fn connect(&self, ids: &[i16]) -> Result<Connected, sqlx::Error> {
        let options = (*self.shared.pool.connect_options())
            .clone()
            .application_name(&format!("tamtam {}", self.group));
        let mut connection = options.connect().await?;
        // A dead host's session ends within about ten seconds. A plan made while a table is small stays right when it has
        // grown: by index, always.
        sqlx::raw_sql(
            "set tcp_keepalives_idle = 5; set tcp_keepalives_interval = 2; set tcp_keepalives_count = 3;
             set tcp_user_timeout = 10000; set enable_seqscan = off; set enable_bitmapscan = off; set jit = off",
        )
        .execute(&mut connection)
        .await?;
        let (pid,): (i32,) = sqlx::query_as("select pg_backend_pid()")
            .fetch_one(&mut connection)
            .await?;
        let layout = layout(&mut connection, &self.group, ids).await?;
        let members: Vec<i32> = self
            .topics_of(&layout)
            .filter_map(|(_, rows)| member_key(rows))
            .collect();
        sqlx::query("select pg_advisory_lock_shared($1, id) from unnest($2::integer[]) as id")
            .bind(MEMBER)
            .bind(members)
            .execute(&mut connection)
            .await?;
        Ok(Connected {
            connection,
            pid,
            layout,
        })
    }

    /// The topics that we subscribe to.
    fn topics_of<'a>(
        &'a self,
        layout: &'a Layout,
    ) -> impl Iterator<Item = (i16, &'a Vec<(i32, Option<Partition>)>)> + 'a {
        layout.topics.iter().filter_map(|(id, rows)| {
            let topic = rows.first()?.1?.topic;
            self.topics.contains(&topic).then_some((*id, rows))
        })
    }

    async fn connected(&mut self) -> Result<&mut Connected, BusError> {
        if self.connected.is_none() {
            self.join().await?;
        }
        // Just made.
        self.connected
            .as_mut()
            .ok_or(BusError::Postgres(sqlx::Error::WorkerCrashed))
    }

    /// The connection is of no use any more, and with it all that we owned by it.
    fn lose(&mut self, error: sqlx::Error) -> BusError {
        self.connected = None;
        let mut state = lock(&self.state);
        let lost: Vec<Partition> = std::mem::take(&mut state.owned).into_keys().collect();
        if !lost.is_empty() {
            tracing::warn!(group = self.group, partitions = lost.len(), %error, "consumer session lost");
            state.pending.push_back(Delivery::Lost(lost));
        }
        BusError::Postgres(error)
    }

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

    /// Looks which of our partitions have news.
    pub async fn look(&mut self) -> Result<(), BusError> {
        let places: Vec<reading::Place> = {
            let mut state = lock(&self.state);
            state.stale = false;
            let readable = state.owned.iter().filter(|(_, owned)| owned.is_readable());
            readable
                .map(|(partition, owned)| reading::Place {
                    topic: owned.topic,
                    partition: partition.number.cast_signed(),
                    position: owned.position,
                })
                .collect()
        };
        let (false, Some(connected)) = (places.is_empty(), self.connected.as_mut()) else {
            return Ok(());
        };
        let news = match reading::news(&mut connected.connection, &places).await {
            Ok(news) => news,
            Err(error) => return Err(self.lose(error)),
        };
        let mut state = lock(&self.state);
        for news in news {
            let found = state.owned.iter_mut().find(|(partition, owned)| {
                owned.topic == news.topic && partition.number.cast_signed() == news.partition
            });
            // It may have been sought elsewhere in between.
            if let Some((_, owned)) = found
                && owned.position == news.asked
            {
                owned.position = news.position;
                owned.end = news.end;
                owned.segment = Some(news.segment);
            }
        }
        Ok(())
    }

    /// Records of one partition from its position on; the position is the caller's to move.
    pub async fn fetch(&mut self, partition: Partition, limits: ReadLimits) -> Result<Vec<StoredRecord>, BusError> {
        let place = lock(&self.state)
            .owned
            .get(&partition)
            .and_then(|owned| Some((owned.segment?, owned.position)));
        let (Some((segment, from)), Some(connected)) = (place, self.connected.as_mut()) else {
            return Ok(Vec::new());
        };
        let number = partition.number.cast_signed();
        let records = reading::fetch(&mut connected.connection, segment, number, from, limits, true).await;
        records.map_err(|error| self.lose(error))
    }

    pub async fn commit(&mut self, partition: Partition, next_offset: i64) -> Result<(), BusError> {
        let not_owner = BusError::NotOwner {
            topic: partition.topic,
            number: partition.number,
        };
        let owned = lock(&self.state).owned.get(&partition).copied();
        let (Some(owned), Some(connected)) = (owned, self.connected.as_mut()) else {
            return Err(not_owner);
        };
        let done =
            sqlx::query("update log.groups set next_offset = $3, committed_at = now() where id = $1 and epoch = $2")
                .bind(owned.id)
                .bind(owned.epoch)
                .bind(next_offset)
                .execute(&mut connected.connection)
                .await;
        match done {
            Ok(done) if done.rows_affected() == 1 => Ok(()),
            // Somebody took it: the server has given this session up.
            Ok(_) => {
                self.lose(sqlx::Error::WorkerCrashed);
                Err(not_owner)
            }
            Err(error) => Err(self.lose(error)),
        }
    }

    /// Ends the session: its locks go with it.
    pub async fn leave(&mut self) -> Result<(), BusError> {
        lock(&self.state).owned.clear();
        if let Some(connected) = self.connected.take() {
            connected.connection.close().await.map_err(BusError::Postgres)?;
            self.shared.wake.group_changed();
        }
        Ok(())
    }
}

/// The second key of the members' lock of a topic: the id of its first partition's row.
fn member_key(rows: &[(i32, Option<Partition>)]) -> Option<i32> {
    rows.first().map(|(id, _)| *id)
}

/// Reads the group's rows, making those that are missing.
async fn layout(connection: &mut PgConnection, group: &str, ids: &[i16]) -> Result<Layout, sqlx::Error> {
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
