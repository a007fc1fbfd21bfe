//! New pages of PostgreSQL's data files go to the disk steadily.
//!
//! PostgreSQL writes a page by which a file grows to the operating system and leaves it there until the next checkpoint.
//! Linux keeps such a page for 30 s (`vm.dirty_expire_centisecs`) and then writes all that has gathered at once. Under
//! load that is hundreds of megabytes, every commit's `fsync` waits behind them, and messages come some 400 ms late. So
//! the system is asked to begin with what a file has grown by, a few times a second.
//!
//! Nothing is promised to anybody by this: what is durable when is decided by PostgreSQL's own log and checkpoints.
//! For the same reason it is no `fsync`, which would be told of a write that failed instead of the checkpoint that has to
//! hear of it. `posix_fadvise` with `DONTNEED` begins to write and returns (PostgreSQL does so itself where it has no
//! `sync_file_range`); what it may drop from the system's cache, PostgreSQL has in its own.

use std::{
    collections::HashMap,
    fs::File,
    io,
    num::NonZeroU64,
    ops::Range,
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::JoinHandle,
    time::Duration,
};

use rustix::fs::{Advice, fadvise};

/// Between two looks while files grow: under a full load some 10 MB.
const SOON: Duration = Duration::from_millis(250);
/// While none grows.
const LATER: Duration = Duration::from_secs(2);

/// The thread that does so; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Flusher {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    /// Of the cluster whose data directory is `data`.
    pub(crate) fn start(data: &Path) -> io::Result<Flusher> {
        let (stop, stopped) = mpsc::channel();
        let mut files = Files::new(data.join("base"));
        let thread = std::thread::Builder::new().name("flush".into()).spawn(move || {
            let mut wait = Duration::ZERO;
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(wait) {
                let grown = files.grown();
                wait = if grown.is_empty() { LATER } else { SOON };
                for (path, part) in grown {
                    begin(&path, &part);
                }
            }
        })?;
        Ok(Flusher {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A file that is gone by now, or cannot be opened, is PostgreSQL's affair.
fn begin(path: &Path, part: &Range<u64>) {
    if let Ok(file) = File::open(path) {
        let _ = fadvise(
            &file,
            part.start,
            NonZeroU64::new(part.end - part.start),
            Advice::DontNeed,
        );
    }
}

/// How long the files of all databases were when they were last looked at.
struct Files {
    base: PathBuf,
    /// `None` before the first look: what is there already is nothing new.
    lengths: Option<HashMap<PathBuf, u64>>,
}

impl Files {
    fn new(base: PathBuf) -> Files {
        Files { base, lengths: None }
    }

    /// By what each file has grown since the last look.
    fn grown(&mut self) -> Vec<(PathBuf, Range<u64>)> {
        let lengths = self.look();
        let grown = match &self.lengths {
            None => Vec::new(),
            Some(before) => lengths
                .iter()
                .map(|(path, length)| (path.clone(), before.get(path).copied().unwrap_or(0)..*length))
                .filter(|(_, part)| !part.is_empty())
                .collect(),
        };
        self.lengths = Some(lengths);
        grown
    }

    fn look(&self) -> HashMap<PathBuf, u64> {
        let entries = |directory: &Path| std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries(&self.base)
            // What a large sort puts aside is gone before it has to be on the disk.
            .filter(|database| database.file_name() != "pgsql_tmp")
            .flat_map(|database| entries(&database.path()))
            .filter_map(|file| Some((file.path(), file.metadata().ok()?)))
            .filter(|(_, metadata)| metadata.is_file())
            .map(|(path, metadata)| (path, metadata.len()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A data directory with one database, removed with the value.
    fn data() -> tempfile::TempDir {
        let data = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(data.path().join("base/1")).unwrap();
        data
    }

    fn append(data: &tempfile::TempDir, file: &str, bytes: usize) -> PathBuf {
        let path = data.path().join("base/1").join(file);
        let mut opened = File::options().create(true).append(true).open(&path).unwrap();
        opened.write_all(&vec![7; bytes]).unwrap();
        path
    }

    #[test]
    fn what_a_file_has_grown_by_is_new_once() {
        let data = data();
        append(&data, "16384", 8_192);
        let mut files = Files::new(data.path().join("base"));
        assert!(files.grown().is_empty(), "what was there is not new");
        let old = append(&data, "16384", 16_384);
        let new = append(&data, "16385", 100);
        let mut grown = files.grown();
        grown.sort_by_key(|(path, _)| path.clone());
        assert_eq!(grown, [(old.clone(), 8_192..24_576), (new.clone(), 0..100)]);
        assert!(files.grown().is_empty());
        // Shorter, or gone, and there again.
        File::create(&old).unwrap();
        std::fs::remove_file(&new).unwrap();
        assert!(files.grown().is_empty());
        append(&data, "16384", 10);
        append(&data, "16385", 10);
        std::fs::create_dir(data.path().join("base/pgsql_tmp")).unwrap();
        std::fs::write(data.path().join("base/pgsql_tmp/pgsql_tmp1.0"), b"sorted").unwrap();
        assert_eq!(files.grown().len(), 2);
    }

    #[test]
    fn what_is_begun_stays_as_it_is_and_a_file_that_is_gone_is_passed_over() {
        let data = data();
        let path = append(&data, "16384", 100_000);
        begin(&path, &(5_000..100_000));
        assert_eq!(std::fs::read(&path).unwrap(), vec![7; 100_000]);
        begin(&data.path().join("base/1/none"), &(0..1));
        let flusher = Flusher::start(data.path()).unwrap();
        drop(flusher);
    }
}
