//! Notices that a configuration file was changed: edited in place, renamed over, or its folder's link exchanged, as Kubernetes does.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;

/// How often the file is looked at. A change counts when two looks in a row find the same, so that nobody reads half of one.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A file, and how it looked when it was last read.
#[derive(Debug)]
pub struct ConfigFile {
    path: PathBuf,
    read: Option<Look>,
}

/// What tells one content of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl ConfigFile {
    /// The file as it is now counts as read.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            read: Look::at(path),
        }
    }

    /// Somebody reads the file now, for whatever reason: as it is, it is no change any more.
    pub fn reading(&mut self) {
        self.read = Look::at(&self.path);
    }

    /// Waits until the file is another one and stays so for a moment. A file that is gone is no change: what was read from it
    /// stays in force. May be dropped and called again at any time.
    pub async fn changed(&mut self) {
        let mut before = None;
        loop {
            sleep(LOOK_EVERY).await;
            let now = Look::at(&self.path);
            if now.is_some() && now != self.read && now == before {
                self.read = now;
                return;
            }
            before = now;
        }
    }
}

impl Look {
    /// How a file looks now; `None` where there is none.
    pub fn at(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_change_is_noticed_whichever_way_it_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("edge.toml");
        fs::write(&path, "a").unwrap();
        let mut file = ConfigFile::new(&path);
        assert!(
            timeout(LONG, file.changed()).await.is_err(),
            "nothing changed"
        );
        fs::write(&path, "bb").unwrap();
        timeout(LONG, file.changed()).await.unwrap();
        fs::write(&path, "bbb").unwrap();
        file.reading();
        assert!(
            timeout(LONG, file.changed()).await.is_err(),
            "what is read is no change"
        );
        let other = folder.path().join("new.toml");
        fs::write(&other, "cc").unwrap();
        fs::rename(&other, &path).unwrap();
        timeout(LONG, file.changed()).await.unwrap();
        fs::remove_file(&path).unwrap();
        assert!(
            timeout(LONG, file.changed()).await.is_err(),
            "gone is no change"
        );
        fs::write(&path, "dd").unwrap();
        timeout(LONG, file.changed()).await.unwrap();
    }
}
