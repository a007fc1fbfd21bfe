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
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use events::Topic;
use sqlx::{ConnectOptions, Connection, PgConnection};

use super::{
    Shared,
    balance::{Layout, MEMBER, layout, member_key},
    reading,
};
use crate::{BusError, Delivery, Partition, ReadLimits, StoredRecord};

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
    pub id: i32,
    pub topic: i16,
    pub epoch: i64,
    /// The next offset to deliver.
    pub position: i64,
    /// The partition's end as far as we know.
    pub end: i64,
    /// The segment that holds `position`, once looked up.
    pub segment: Option<i32>,
    pub paused: bool,
    pub revoked: Option<Instant>,
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
    pub(super) shared: Arc<Shared>,
    pub(super) group: String,
    topics: Vec<Topic>,
    pub(super) state: SharedState,
    pub(super) connected: Option<Connected>,
}

#[derive(Debug)]
pub(super) struct Connected {
    pub connection: PgConnection,
    pub pid: i32,
    pub layout: Layout,
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
    pub(super) fn topics_of<'a>(
        &'a self,
        layout: &'a Layout,
    ) -> impl Iterator<Item = (i16, &'a Vec<(i32, Option<Partition>)>)> + 'a {
        layout.topics.iter().filter_map(|(id, rows)| {
            let topic = rows.first()?.1?.topic;
            self.topics.contains(&topic).then_some((*id, rows))
        })
    }

    pub(super) async fn connected(&mut self) -> Result<&mut Connected, BusError> {
        if self.connected.is_none() {
            self.join().await?;
        }
        // Just made.
        self.connected
            .as_mut()
            .ok_or(BusError::Postgres(sqlx::Error::WorkerCrashed))
    }

    /// The connection is of no use any more, and with it all that we owned by it.
    pub(super) fn lose(&mut self, error: sqlx::Error) -> BusError {
        self.connected = None;
        let mut state = lock(&self.state);
        let lost: Vec<Partition> = std::mem::take(&mut state.owned).into_keys().collect();
        if !lost.is_empty() {
            tracing::warn!(group = self.group, partitions = lost.len(), %error, "consumer session lost");
            state.pending.push_back(Delivery::Lost(lost));
        }
        BusError::Postgres(error)
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

    /// Records of the first of these partitions, and of those others whose next records are in the same segment, each from its
    /// position on; the positions are the caller's to move.
    pub async fn fetch(
        &mut self,
        partitions: Vec<Partition>,
        limits: ReadLimits,
    ) -> Result<Vec<(Partition, Vec<StoredRecord>)>, BusError> {
        let mut segment = None;
        let mut topic = 0;
        let mut asked = Vec::with_capacity(partitions.len());
        let mut wanted = Vec::with_capacity(partitions.len());
        {
            let state = lock(&self.state);
            for partition in partitions {
                let Some(owned) = state.owned.get(&partition) else {
                    continue;
                };
                // A segment is of one topic.
                if owned.segment.is_some() && segment.get_or_insert(owned.segment) == &owned.segment {
                    topic = owned.topic;
                    asked.push(partition);
                    wanted.push((partition.number.cast_signed(), owned.position));
                }
            }
        }
        let (Some(Some(segment)), Some(connected)) = (segment, self.connected.as_mut()) else {
            return Ok(Vec::new());
        };
        let read = match reading::fetch(&mut connected.connection, topic, segment, &wanted, limits, true).await {
            Ok(read) => read,
            Err(error) => return Err(self.lose(error)),
        };
        let mut state = lock(&self.state);
        let mut records = Vec::with_capacity(read.len());
        for ((partition, (_, position)), read) in asked.into_iter().zip(wanted).zip(read) {
            // It may have been sought elsewhere in between.
            let owned = state
                .owned
                .get_mut(&partition)
                .filter(|owned| owned.position == position);
            let Some(owned) = owned else { continue };
            if let Some((end, _)) = read.head {
                owned.end = owned.end.max(end);
            }
            // Nothing more in this segment, and it is not the last, or is gone.
            if read.records.is_empty() && read.head.is_none_or(|(_, open)| open != segment) {
                owned.segment = None;
                state.stale = true;
            }
            records.push((partition, read.records));
        }
        Ok(records)
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
