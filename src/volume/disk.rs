//! Power cuts.
//!
//! Until the node restarts, every file is in the page cache, so podstrap need not wait for a disk that others keep
//! busy. Each release records the boot of the node that built it. After another boot, podstrap trusts it only if every
//! file has its size: a file system with a journal does not set a size before the contents are on the disk (ext4 in its
//! default mode, XFS, btrfs).
//!
//! A durable volume is written to disk before each step that depends on it: on request, and on file systems of a
//! network. syncfs(2) waits for all writers of a file system; such a volume usually is one of its own.

use std::path::Path;

use rustix::fs::statfs;

use super::manifest::Contents;
use crate::dir::Dir;
use crate::error::{IoContext, Result};
use crate::files;

/// A random number for each boot (`proc_sys_kernel(5)`).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Numbers of file systems that outlive the node: NFS, SMB, CIFS, Ceph, 9P, GPFS, Lustre and FUSE (statfs(2), and
/// linux/magic.h; the number of GPFS and Lustre is in coreutils' fs.h).
const NETWORK: [u32; 8] =
    [0x6969, 0xfe53_4d42, 0xff53_4d42, 0x00c3_6400, 0x0102_1997, 0x4750_4653, 0x0bd0_0bd0, 0x6573_5546];

/// How far a volume may lose files in a power cut.
#[derive(Debug)]
pub(super) struct Disk {
    /// The current boot of the node, if known.
    boot: Option<String>,
    durable: bool,
}

impl Disk {
    /// `durable`: releases must survive the node.
    pub(super) fn of(root: &Dir, durable: bool) -> Self {
        Self { boot: boot(), durable: durable || is_remote(root) }
    }

    /// The boot that a new release depends on; `None` if podstrap writes it to disk.
    pub(super) fn depends_on(&self) -> Option<&str> {
        self.boot.as_deref().filter(|_| !self.durable)
    }

    /// Whether a release depends on an earlier boot.
    pub(super) fn may_have_lost(&self, contents: &Contents) -> bool {
        contents.boot.is_some() && contents.boot != self.boot
    }

    /// Writes the entries of a directory to disk, if the volume is durable.
    pub(super) fn sync(&self, dir: &Dir) -> Result<()> {
        if self.depends_on().is_some() {
            return Ok(());
        }
        dir.sync().on_volume(|| format!("cannot sync {}", dir.path().display()))
    }
}

/// Whether a volume may be on another node later.
fn is_remote(root: &Dir) -> bool {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the numbers have 32 bits")]
    statfs(root.path()).is_ok_and(|stat| NETWORK.contains(&(stat.f_type as u32)))
}

/// The current boot of the node.
fn boot() -> Option<String> {
    let text = String::from_utf8(files::read_proc(Path::new(BOOT_ID)).ok()?).ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}
