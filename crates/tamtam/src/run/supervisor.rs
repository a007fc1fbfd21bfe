//! The tasks of a process: started, watched, and stopped one after another.

use std::{
    error::Error,
    future::Future,
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::exit::{Failure, chain};

/// Everything is over so long after the signal; `tamtam up` then has a few seconds left to stop PostgreSQL.
const STOP: Duration = Duration::from_secs(26);
/// How long the next task waits for the one before it to end; a slow one goes on draining beside.
const TURN: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Task {
    name: &'static str,
    shutdown: CancellationToken,
    handle: JoinHandle<()>,
}

/// The tasks, in the order of their stop.
#[derive(Debug)]
pub struct Supervisor {
    tasks: Vec<Task>,
    ended: mpsc::UnboundedReceiver<String>,
    tell: mpsc::UnboundedSender<String>,
}

impl Supervisor {
    pub fn new() -> Supervisor {
        let (tell, ended) = mpsc::unbounded_channel();
        Supervisor {
            tasks: Vec::new(),
            ended,
            tell,
        }
    }

    /// Starts a task; it will be stopped after the ones started before it.
    pub fn start<F, E>(&mut self, name: &'static str, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Error + Send + 'static,
    {
        let shutdown = CancellationToken::new();
        let work = tokio::spawn(run(shutdown.clone()));
        let tell = self.tell.clone();
        let stopped = shutdown.clone();
        let handle = tokio::spawn(async move {
            let text = match work.await {
                Ok(Ok(())) if stopped.is_cancelled() => return,
                Ok(Ok(())) => "ended by itself".to_owned(),
                Ok(Err(error)) => chain(&error),
                Err(_) => "panicked".to_owned(),
            };
            tracing::error!(role = name, error = text, "a role ended");
            let _ = tell.send(format!("{name}: {text}"));
        });
        self.tasks.push(Task { name, shutdown, handle });
    }

    /// Waits until one of them ends without having been asked to.
    pub async fn failed(&mut self) -> Failure {
        match self.ended.recv().await {
            Some(text) => Failure::no(text),
            None => std::future::pending().await,
        }
    }

    /// Stops one after another, each draining what is under way.
    pub async fn stop(self) {
        let deadline = Instant::now() + STOP;
        let mut draining = Vec::new();
        for mut task in self.tasks {
            task.shutdown.cancel();
            let patience = TURN.min(deadline.saturating_duration_since(Instant::now()));
            match tokio::time::timeout(patience, &mut task.handle).await {
                Ok(_) => tracing::info!(role = task.name, "stopped"),
                Err(_) => draining.push(task),
            }
        }
        for mut task in draining {
            let patience = deadline.saturating_duration_since(Instant::now());
            if tokio::time::timeout(patience, &mut task.handle).await.is_err() {
                // What it had not committed is delivered again at the next start.
                tracing::warn!(role = task.name, "did not drain in time");
                task.handle.abort();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn they_stop_in_their_order_and_a_failure_is_told() {
        let stopped = Arc::new(Mutex::new(Vec::new()));
        let mut supervisor = Supervisor::new();
        for name in ["first", "second", "third"] {
            let stopped = stopped.clone();
            supervisor.start(name, move |shutdown| async move {
                shutdown.cancelled().await;
                stopped.lock().unwrap().push(name);
                Ok::<(), std::io::Error>(())
            });
        }
        supervisor.start("bad", |_| async { Err(std::io::Error::other("no bus")) });
        assert_eq!(supervisor.failed().await.message, "bad: no bus");
        supervisor.stop().await;
        assert_eq!(*stopped.lock().unwrap(), ["first", "second", "third"]);
    }
}
