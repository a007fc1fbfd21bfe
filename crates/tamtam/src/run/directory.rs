//! The data directory of `tamtam up`: where it lies, whose it is at the moment, and the admin key in it.

use std::{
    fs::{File, TryLockError},
    io::{ErrorKind, Read, Seek, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::{
    exit::{Failure, chain},
    settings::Settings,
};

/// Where the default moves to when PostgreSQL's user may not enter the current directory.
const SYSTEM: &str = "/var/lib/tamtam";
const KEY: &str = "api-key";

/// A data directory that nobody else is using while this value lives.
#[derive(Debug)]
pub struct DataDirectory {
    pub path: PathBuf,
    _lock: File,
}

impl DataDirectory {
    /// Makes it where it is missing, and locks it. `private_database`: PostgreSQL will live in it.
    pub fn open(settings: &Settings, private_database: bool) -> Result<DataDirectory, Failure> {
        let mut path = settings.data_directory.clone();
        if private_database && !settings.data_directory_given && is_closed(&path) {
            path = PathBuf::from(SYSTEM);
            tracing::info!(
                directory = SYSTEM,
                "the current directory lies in a closed home: the data goes elsewhere"
            );
        }
        if private_database && let Ok(Some(closed)) = embedded::closed_directory(&path.join("postgres").join("cluster"))
        {
            return Err(Failure::settings(format!(
                "`data.directory` is `{}`: PostgreSQL's user may not enter {} (as root, the server runs as an unprivileged user): expected a directory elsewhere, for example {SYSTEM}",
                path.display(),
                closed.display()
            )));
        }
        let failure = |error: std::io::Error| Failure::no(format!("data directory {}: {error}", path.display()));
        let new = !path.exists();
        std::fs::create_dir_all(&path).map_err(failure)?;
        if new {
            // As root, PostgreSQL's own user must be able to pass through; what is secret in it is closed by itself.
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).map_err(failure)?;
        }
        let path = path.canonicalize().map_err(failure)?;
        let lock = lock(&path)?;
        Ok(DataDirectory { path, _lock: lock })
    }

    /// The admin key in it: the given one, else the one that is there, else a new one. It is on disk, readable for its
    /// owner alone, before anybody relies on it.
    pub fn admin_key(&self, given: Option<&str>) -> Result<String, Failure> {
        let path = self.path.join(KEY);
        let failure = |error: std::io::Error| Failure::no(format!("{}: {error}", path.display()));
        let present = match std::fs::read_to_string(&path) {
            Ok(text) => Some(text.trim().to_owned()).filter(|key| !key.is_empty()),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(failure(error)),
        };
        let key = match (given, &present) {
            (Some(given), _) => given.to_owned(),
            (None, Some(present)) => return Ok(present.clone()),
            (None, None) => api::keys::generate(),
        };
        if present.as_ref() != Some(&key) {
            let fresh = self.path.join("api-key.new");
            let _ = std::fs::remove_file(&fresh);
            let mut file = File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&fresh)
                .map_err(failure)?;
            file.write_all(format!("{key}\n").as_bytes())
                .and_then(|()| file.sync_all())
                .and_then(|()| std::fs::rename(&fresh, &path))
                .map_err(failure)?;
        }
        Ok(key)
    }
}

/// Where a command looks for the admin key that `tamtam up` made.
pub fn key_files(data_directory: Option<&Path>) -> Vec<PathBuf> {
    match data_directory {
        Some(directory) => vec![directory.join(KEY)],
        None => vec![Path::new(".tamtam").join(KEY), Path::new(SYSTEM).join(KEY)],
    }
}

fn is_closed(path: &Path) -> bool {
    match embedded::closed_directory(&path.join("postgres")) {
        Ok(closed) => closed.is_some(),
        Err(error) => {
            tracing::debug!(error = chain(&error), "cannot tell whether the directory is closed");
            false
        }
    }
}

/// The lock ends with the process, however it ends.
fn lock(directory: &Path) -> Result<File, Failure> {
    let path = directory.join("lock");
    let failure = |error: std::io::Error| Failure::no(format!("{}: {error}", path.display()));
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failure)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            let _ = file.read_to_string(&mut owner);
            return Err(Failure::no(format!(
                "another `tamtam up` (process {}) runs on the data directory {}: stop it first, or give this one its own with --data-dir",
                owner.trim(),
                directory.display()
            )));
        }
        Err(TryLockError::Error(error)) => return Err(failure(error)),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(failure)?;
    Ok(file)
}
