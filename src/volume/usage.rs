//! How much podstrap has on the volume, while something is built there.
//!
//! An emptyDir that outgrows its sizeLimit gets its Pod evicted, and the limit counts everything:
//! the old release, the new one, the engine's cache. So the peak is reported, and a limit of our own
//! ends the run with a sentence instead. Both go by disk blocks, as the kubelet and `du` count them.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::runtime::blocking;
use crate::size::Size;

/// The pause between two looks, and what share of the time looking may take: one part in so many.
const PAUSE: Duration = Duration::from_millis(100);
const SHARE: u32 = 20;
/// The unit of `st_blocks`, whatever the file system's own is (stat(2)).
const BLOCK: u64 = 512;

/// What was found on the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The most that was there at any look.
    pub peak: Size,
    /// What is there now.
    pub now: Size,
}

/// Watches a directory of podstrap's own.
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

    /// Looks now: at the points where most is there.
    ///
    /// # Errors
    /// It is more than the limit.
    pub async fn look(&self) -> Result<()> {
        let Usage { now, .. } = self.usage().await?;
        if now <= self.limit {
            return Ok(());
        }
        Err(Error::volume(format!("{} holds more than the size limit", self.dir.display()))
            .because(format!("{now}, staging and the release before included, of --size-limit {}", self.limit))
            .hint("raise --size-limit, and the emptyDir's sizeLimit with it; or install less"))
    }

    /// What is there, and was.
    pub async fn usage(&self) -> Result<Usage> {
        let dir = self.dir.clone();
        let now = blocking(move || Ok(occupied(&dir))).await?;
        let peak = self.peak.fetch_max(now, Ordering::Relaxed).max(now);
        Ok(Usage { peak: Size(peak), now: Size(now) })
    }

    /// Looks again and again, until the limit is passed.
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

/// The bytes that everything below a directory occupies. What goes while we look is not counted.
fn occupied(dir: &Path) -> u64 {
    let mut linked = HashSet::new();
    let mut open = vec![dir.to_owned()];
    let mut bytes = 0;
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                open.push(entry.path());
            } else if meta.nlink() > 1 && !linked.insert((meta.dev(), meta.ino())) {
                continue;
            }
            bytes += meta.blocks() * BLOCK;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
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
