//! Waking readers: in this process through a watch a topic, in others by `notify`.
//!
//! A notification wakes every process that listens to any, whomever it is for: with a hundred appends a second that was a
//! fifth of all the work. So a reader that had something looks again by itself every [`LOOK`] until it had nothing for
//! [`LINGER`], and who appends to a partition again within [`WARM`] tells nobody outside.
//!
//! A notification is a hint and nothing more: it is sent after the commit, on a connection of its own, and a reader that
//! misses one looks by itself a second later. Sent inside the appending transaction it would make all appenders queue for
//! PostgreSQL's one notification lock across their commits.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{BuildHasher, Hasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use events::Topic;
use sqlx::{PgPool, postgres::PgListener, postgres::PgPoolOptions};
use tokio::sync::{Notify, watch};

use super::own::Own;
use crate::Partition;

const CHANNEL: &str = "tamtam_log";
/// In the payload: somebody joined, left or let go of a partition.
const GROUPS: &str = "*";
/// Notices within this time share one notification.
const GATHER: Duration = Duration::from_millis(2);
/// How often a reader looks by itself that had something of late,
pub(super) const LOOK: Duration = Duration::from_millis(5);
/// and for how long after it had something.
pub(super) const LINGER: Duration = Duration::from_millis(200);
/// Of what is appended to a partition so soon after the append before, other processes are not told. That one was told, or
/// seen by a reader that still looks by itself; the difference to [`LINGER`] is for what happens between a commit and here.
const WARM: Duration = Duration::from_millis(50);

/// Where readers wait, and what is to be told to other processes.
#[derive(Debug)]
pub(super) struct Wake {
    /// By topic.
    appended: Vec<watch::Sender<()>>,
    groups: watch::Sender<()>,
    untold: Mutex<BTreeSet<&'static str>>,
    /// When each partition was last appended to from here.
    last: Mutex<HashMap<Partition, Instant>>,
    tell: Notify,
    /// Marks our own notifications, which we need not hear.
    instance: String,
}

impl Wake {
    pub fn new() -> Arc<Wake> {
        Arc::new(Wake {
            appended: Topic::ALL.map(|_| watch::Sender::new(())).into(),
            groups: watch::Sender::new(()),
            untold: Mutex::default(),
            last: Mutex::default(),
            tell: Notify::new(),
            instance: format!("{:016x}", RandomState::new().build_hasher().finish()),
        })
    }

    pub fn on_append(&self, topic: Topic) -> watch::Receiver<()> {
        self.appended[topic as usize].subscribe()
    }

    pub fn on_group_change(&self) -> watch::Receiver<()> {
        self.groups.subscribe()
    }

    /// Records of these partitions were committed.
    pub fn appended(&self, partitions: &BTreeSet<Partition>) {
        let now = Instant::now();
        let mut cold = BTreeSet::new();
        {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            for partition in partitions {
                let before = last.insert(*partition, now);
                if before.is_none_or(|before| now.duration_since(before) >= WARM) {
                    cold.insert(partition.topic.name());
                }
            }
        }
        let mut topics: Vec<Topic> = partitions.iter().map(|partition| partition.topic).collect();
        topics.dedup();
        for topic in topics {
            self.appended[topic as usize].send_replace(());
        }
        if !cold.is_empty() {
            self.untold().extend(cold);
            self.tell.notify_one();
        }
    }

    /// A group's members or owners changed.
    pub fn group_changed(&self) {
        self.groups.send_replace(());
        self.untold().insert(GROUPS);
        self.tell.notify_one();
    }

    fn untold(&self) -> MutexGuard<'_, BTreeSet<&'static str>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard(&self, payload: &str) {
        let Some((instance, notices)) = payload.split_once(':') else {
            return;
        };
        if instance == self.instance {
            return;
        }
        for notice in notices.split(',') {
            if notice == GROUPS {
                self.groups.send_replace(());
            } else if let Some(topic) = Topic::by_name(notice) {
                self.appended[topic as usize].send_replace(());
            }
        }
    }

    fn wake_all(&self) {
        for waiting in &self.appended {
            waiting.send_replace(());
        }
        self.groups.send_replace(());
    }
}

/// Tells other processes, for ever.
pub(super) async fn tell(wake: Arc<Wake>, pool: PgPool) {
    let mut own = Own::new(pool);
    loop {
        wake.tell.notified().await;
        let notices = std::mem::take(&mut *wake.untold());
        if notices.is_empty() {
            continue;
        }
        let payload = format!(
            "{}:{}",
            wake.instance,
            notices.into_iter().collect::<Vec<_>>().join(",")
        );
        if let Err(error) = notify(&mut own, &payload).await {
            own.leave();
            tracing::debug!(%error, "notification not sent; readers notice at their next poll");
        }
        tokio::time::sleep(GATHER).await;
    }
}

async fn notify(own: &mut Own, payload: &str) -> Result<(), sqlx::Error> {
    let connection = own.get().await?;
    sqlx::query("select pg_notify($1, $2)")
        .bind(CHANNEL)
        .bind(payload)
        .execute(connection)
        .await?;
    Ok(())
}

/// Hears other processes, for ever, on a connection of its own.
pub(super) async fn listen(wake: Arc<Wake>, pool: PgPool) {
    let own = PgPoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with((*pool.connect_options()).clone());
    loop {
        match hear(&wake, &own).await {
            Ok(()) => {}
            Err(error) => tracing::debug!(%error, "not listening for notifications; readers poll until it works again"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn hear(wake: &Wake, own: &PgPool) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(own).await?;
    listener.listen(CHANNEL).await?;
    // What was said before we listened.
    wake.wake_all();
    // `None`: the connection was lost, and with it perhaps some notices.
    while let Some(notice) = listener.try_recv().await? {
        wake.heard(notice.payload());
    }
    Ok(())
}
