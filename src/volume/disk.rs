//! Power cuts.
//!
//! Until the node restarts, every file is in the page cache, so podstrap need not wait for a disk that others keep
//! busy. A file in each release names the boot of the node that built it or found it complete. After another boot,
//! podstrap looks at every file: a power cut leaves it empty, shorter, or without written blocks. ext4 may set a size
//! while the blocks are still marked as unwritten, which lseek(2) shows as a hole; XFS and btrfs set it afterwards. A file
//! that is younger than the release was changed by an app.
//!
//! A durable volume is written to disk before each step that depends on it: on request, and on file systems of a
//! network. syncfs(2) waits for all writers of a file system; such a volume usually is one of its own.

use std::io;
use std::path::Path;

use rustix::fs::statfs;

use crate::dir::Dir;
use crate::error::{IoContext, Result};
use crate::files;

/// A random number for each boot (`proc_sys_kernel(5)`).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The file in a release with the boot that it depends on. Without it, the release is on the disk.
pub(super) const BOOT: &str = "boot";
/// Most bytes of this file.
const SIZE: u64 = 256;

/// Numbers of file systems that outlive the node: statfs(2), linux/magic.h, and coreutils' fs.h.
const NETWORK: [u32; 13] = [
    0x0000_6969, // NFS
    0xfe53_4d42, // SMB
    0xff53_4d42, // CIFS
    0x00c3_6400, // Ceph
    0x0102_1997, // 9P
    0x4750_4653, // GPFS
    0x0bd0_0bd0, // Lustre
    0x6573_5546, // FUSE
    0x1983_0326, // BeeGFS
    0x0116_1970, // GFS2
    0x7461_636f, // OCFS2
    0x5346_414f, // AFS of OpenAFS
    0x6b41_4653, // AFS of the kernel
];

/// The boot that a release depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Boot {
    /// It is on the disk.
    Any,
    This,
    Earlier,
}

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

    /// The boot that a release depends on.
    pub(super) fn built_in(&self, release: &Dir) -> io::Result<Boot> {
        match files::unless_absent(release.read(BOOT, SIZE))? {
            None => Ok(Boot::Any),
            Some(text) if self.boot.as_ref().is_some_and(|boot| boot.as_bytes() == text) => Ok(Boot::This),
            Some(_) => Ok(Boot::Earlier),
        }
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
