//! A temporary directory for one run.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{IoContext, Result};
use crate::tree;

/// Tries to remove the directory, and the pause between them.
const REMOVALS: u32 = 20;
const REMOVAL_PAUSE: Duration = Duration::from_millis(10);

/// A directory below TMPDIR, removed on drop.
#[derive(Debug)]
pub struct Scratch {
    pub dir: PathBuf,
}

impl Scratch {
    /// Creates a directory whose name has the command's.
    ///
    /// # Errors
    /// Volume: it cannot be created.
    pub fn new(command: &str) -> Result<Self> {
        let suffix: String = std::iter::repeat_with(fastrand::alphanumeric).take(8).collect();
        let scratch = Self { dir: std::env::temp_dir().join(format!("podstrap-{command}-{suffix}")) };
        scratch.make("")?;
        Ok(scratch)
    }

    /// Creates a directory in it that every user can read.
    ///
    /// # Errors
    /// Volume: it cannot be created.
    pub fn make(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir)
            .and_then(|()| fs::set_permissions(&dir, Permissions::from_mode(0o755)))
            .on_volume(|| format!("cannot create the directory {}", dir.display()))?;
        Ok(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A child that was just killed may still write.
        for _ in 0..REMOVALS {
            if tree::remove(&self.dir).is_ok() {
                return;
            }
            std::thread::sleep(REMOVAL_PAUSE);
        }
    }
}
