//! What the machine has: PostgreSQL's programs, the user to run them as, and where that user may go.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::ClusterError;

/// The newest `bin` directory under /usr/lib/postgresql, 15 or later.
pub(crate) fn find_binaries() -> Result<PathBuf, ClusterError> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .map_err(|_| ClusterError::NoBinaries)?
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            let path = entry.path().join("bin");
            (version >= 15 && path.join("initdb").exists()).then_some((version, path))
        })
        .collect();
    versions.sort();
    versions.pop().map(|(_, path)| path).ok_or(ClusterError::NoBinaries)
}

/// As root: the user and group that the server runs as.
pub(crate) fn unprivileged_account() -> Result<Option<(u32, u32)>, ClusterError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = std::fs::read_to_string("/etc/passwd").map_err(|_| ClusterError::NoAccount)?;
    for wanted in ["postgres", "nobody"] {
        for line in passwd.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            if let [name, _, uid, gid, ..] = fields[..]
                && name == wanted
                && let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse())
            {
                return Ok(Some((uid, gid)));
            }
        }
    }
    Err(ClusterError::NoAccount)
}

/// The first directory above `path` that the server's user may not enter; `None` where it can get there. What does not
/// exist yet will be made and is no obstacle.
pub fn closed_directory(path: &Path) -> Result<Option<PathBuf>, ClusterError> {
    let Some((uid, gid)) = unprivileged_account()? else {
        return Ok(None);
    };
    let path = std::path::absolute(path).map_err(|source| ClusterError::Io {
        path: path.to_owned(),
        source,
    })?;
    let parents: Vec<&Path> = path.ancestors().skip(1).collect();
    Ok(parents
        .into_iter()
        .rev()
        .find(|parent| {
            std::fs::metadata(parent).is_ok_and(|found| !may_enter(found.mode(), found.uid(), found.gid(), uid, gid))
        })
        .map(Path::to_owned))
}

fn may_enter(mode: u32, owner: u32, group: u32, uid: u32, gid: u32) -> bool {
    let bit = match (owner == uid, group == gid) {
        (true, _) => 0o100,
        (false, true) => 0o010,
        (false, false) => 0o001,
    };
    mode & bit != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entering_needs_the_bit_of_ones_own_class() {
        assert!(may_enter(0o755, 0, 0, 101, 101));
        assert!(!may_enter(0o700, 0, 0, 101, 101));
        assert!(may_enter(0o700, 101, 0, 101, 101));
        // The owner's bits count for the owner even where others may.
        assert!(!may_enter(0o055, 101, 0, 101, 101));
        assert!(may_enter(0o710, 0, 101, 101, 101));
    }
}
