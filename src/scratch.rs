//! A temporary directory for one run.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
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
        let parent = std::env::var_os("TMPDIR").filter(|dir| !dir.is_empty()).unwrap_or_else(|| "/tmp".into());
        let dir = std::path::absolute(&parent).unwrap_or_else(|_| parent.into());
        let dir = dir.join(format!("podstrap-{command}-{suffix}"));
        fs::create_dir(&dir)
            .and_then(|()| open_up(&dir))
            .on_volume(|| failed(&dir))
            .map_err(|error| error.hint("set TMPDIR to a directory that exists, is writable and has space"))?;
        Ok(Self { dir })
    }

    /// Creates a directory in it that every user can read.
    ///
    /// # Errors
    /// Volume: it cannot be created.
    pub fn make(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir).and_then(|()| open_up(&dir)).on_volume(|| failed(&dir))?;
        Ok(dir)
    }
}

fn open_up(dir: &Path) -> std::io::Result<()> {
    fs::set_permissions(dir, Permissions::from_mode(0o755))
}

fn failed(dir: &Path) -> String {
    format!("cannot create the directory {}", dir.display())
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
