//! Disk usage during a build.
//!
//! The kubelet evicts a Pod whose emptyDir exceeds its sizeLimit, which includes the old release, the
//! new one and the engine's cache. podstrap reports the peak, and fails with an explanation when it
//! exceeds `--size-limit`. Both count disk blocks, as the kubelet and `du` do.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Stat};

use crate::error::{Error, Result};
use crate::runtime::blocking;
use crate::size::Size;
use crate::walk::walk;

/// Pause between two measurements, and the most time they may take: one part in `SHARE`.
const PAUSE: Duration = Duration::from_millis(100);
const SHARE: u32 = 20;
/// Unit of `st_blocks` in bytes (stat(2)).
const BLOCK: u64 = 512;

/// Disk usage of podstrap's files on the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The largest measurement.
    pub peak: Size,
    /// The last measurement.
    pub now: Size,
}

/// Measures the disk usage of a directory.
#[derive(Debug)]
pub struct Meter {
    dir: PathBuf,
    limit: Size,
    peak: AtomicU64,
    /// The tree of the new release, once nothing in it changes any more.
    settled: Mutex<Option<Settled>>,
}

/// A directory that need not be walked again.
#[derive(Debug, Clone)]
struct Settled {
    /// Its device and inode, which a rename keeps.
    id: (u64, u64),
    occupied: Occupied,
}

/// Disk usage of some entries.
#[derive(Debug, Clone, Default)]
pub(super) struct Occupied {
    bytes: u64,
    /// Device and inode of files with several links, which count once.
    linked: HashSet<(u64, u64)>,
}

impl Occupied {
    pub(super) fn add(&mut self, stat: &Stat) {
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_dir || stat.st_nlink == 1 || self.linked.insert((stat.st_dev, stat.st_ino)) {
            self.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK;
        }
    }
}

impl Meter {
    pub fn new(dir: PathBuf, limit: Size) -> Self {
        Self { dir, limit, peak: AtomicU64::new(0), settled: Mutex::default() }
    }

    /// Takes the usage of a directory as known from now on.
    pub(super) fn settle(&self, dir: &Stat, occupied: Occupied) {
        let settled = Settled { id: (dir.st_dev, dir.st_ino), occupied };
        *self.settled.lock().unwrap_or_else(PoisonError::into_inner) = Some(settled);
    }

    /// Measures now. Call it where the usage is highest.
    ///
    /// # Errors
    /// The usage exceeds the limit.
    pub async fn look(&self) -> Result<()> {
        let Usage { now, .. } = self.usage().await?;
        if now <= self.limit {
            return Ok(());
        }
        Err(Error::volume(format!("{} exceeds the size limit", self.dir.display()))
            .because(format!(
                "{now} in use, including staging and the previous release; --size-limit is {}",
                self.limit
            ))
            .hint("raise --size-limit and the emptyDir's sizeLimit, or install less"))
    }

    /// Measures now, and returns the peak as well.
    pub async fn usage(&self) -> Result<Usage> {
        let dir = self.dir.clone();
        let settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let now = blocking(move || Ok(occupied(&dir, settled))).await?;
        let peak = self.peak.fetch_max(now, Ordering::Relaxed).max(now);
        Ok(Usage { peak: Size(peak), now: Size(now) })
    }

    /// Measures until the usage exceeds the limit.
    pub async fn watch(&self) -> Error {
        loop {
            let started = Instant::now();
            if let Err(error) = self.look().await {
                return error;
            }
            tokio::time::sleep(PAUSE.max(started.elapsed() * SHARE)).await;
        }
    }
}

/// Bytes that everything below a directory occupies. Skips files that disappear meanwhile.
fn occupied(dir: &Path, settled: Option<Settled>) -> u64 {
    let (known, mut occupied) = settled.map_or_else(Default::default, |settled| (Some(settled.id), settled.occupied));
    let mut entries = walk(dir);
    while let Some(entry) = entries.next() {
        let Ok((entry, stat)) = entry.and_then(|entry| entry.stat().map(|stat| (entry, stat))) else { continue };
        if known == Some((stat.st_dev, stat.st_ino)) {
            entries.leave_out();
        } else if !entry.is_root() {
            occupied.add(&stat);
        }
    }
    occupied.bytes
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn linked_files_count_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/one"), vec![1; 1 << 20]).unwrap();
        fs::hard_link(dir.path().join("a/one"), dir.path().join("two")).unwrap();
        let bytes = occupied(dir.path(), None);
        assert!((1 << 20..3 << 19).contains(&bytes), "{bytes}");
        // A file of a settled directory counts once, too.
        let measured = super::super::list::measure(&dir.path().join("a")).unwrap();
        let id = rustix::fs::stat(dir.path().join("a")).unwrap();
        let settled = Settled { id: (id.st_dev, id.st_ino), occupied: measured.occupied };
        assert_eq!(occupied(dir.path(), Some(settled)), bytes);
    }
}
