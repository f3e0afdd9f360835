//! Disk usage during a build.
//!
//! The kubelet evicts a Pod whose emptyDir exceeds its sizeLimit, which includes the old release, the
//! new one and the engine's cache. podstrap reports the peak, and fails with an explanation when it
//! exceeds `--size-limit`. Both count disk blocks, as the kubelet and `du` do.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

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
}

impl Meter {
    pub fn new(dir: PathBuf, limit: Size) -> Self {
        Self { dir, limit, peak: AtomicU64::new(0) }
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
        let now = blocking(move || Ok(occupied(&dir))).await?;
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
fn occupied(dir: &Path) -> u64 {
    let mut linked = HashSet::new();
    let mut bytes = 0;
    for entry in walk(dir).flatten().filter(|entry| !entry.is_root()) {
        let Ok(stat) = entry.stat() else { continue };
        if entry.is_dir() || stat.st_nlink == 1 || linked.insert((stat.st_dev, stat.st_ino)) {
            bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK;
        }
    }
    bytes
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
        let bytes = occupied(dir.path());
        assert!((1 << 20..3 << 19).contains(&bytes), "{bytes}");
    }
}
