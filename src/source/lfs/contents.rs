//! Writes contents to the place of their pointer, and verifies them on the way.

use std::fs::{File, FileTimes, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use crate::error::{Error, IoContext, Kind, Result};
use crate::files;
use crate::retry::Deadline;
use crate::runtime::hex;
use crate::source::lfs::pointer::Object;

const BUFFER: usize = 256 << 10;

/// A file that was a pointer and gets its contents. It keeps its mode, and gets its times back.
pub(super) struct Filling {
    path: PathBuf,
    file: File,
    times: FileTimes,
    digest: Sha256,
    /// Bytes that are here.
    pub(super) received: u64,
}

impl Filling {
    /// Opens the file and empties it.
    pub(super) fn start(path: PathBuf) -> Result<Self> {
        let open = || {
            let flags = OFlags::NOFOLLOW.bits().cast_signed();
            let file = OpenOptions::new().write(true).custom_flags(flags).open(&path)?;
            let meta = file.metadata()?;
            Ok((file, FileTimes::new().set_accessed(meta.accessed()?).set_modified(meta.modified()?)))
        };
        let (file, times) = open().on_volume(|| format!("cannot open {}", path.display()))?;
        let mut filling = Self { path, file, times, digest: Sha256::new(), received: 0 };
        filling.empty()?;
        Ok(filling)
    }

    /// Starts again.
    pub(super) fn empty(&mut self) -> Result<()> {
        self.digest = Sha256::new();
        self.received = 0;
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.on_volume(|| format!("cannot empty {}", self.path.display()))
    }

    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<()> {
        self.received += bytes.len() as u64;
        self.digest.update(bytes);
        self.file.write_all(bytes).on_volume(|| format!("cannot write {}", self.path.display()))
    }

    /// The SHA-256 of what is here.
    pub(super) fn sha256(&self) -> String {
        hex(&self.digest.clone().finalize())
    }

    pub(super) fn finish(self) -> Result<()> {
        self.file.set_times(self.times).on_volume(|| format!("cannot set the time of {}", self.path.display()))
    }
}

/// Fills a file from another one. False: there is no such file, or it has other contents.
///
/// # Errors
/// The other file is unreadable, or this one cannot be written.
pub(super) fn copy(from: &Path, to: PathBuf, object: &Object, deadline: Deadline) -> Result<bool> {
    let unreadable =
        |error: &io::Error| files::unreadable(Kind::Source, format!("cannot read {}", from.display()), error);
    let Some(mut file) = files::unless_absent(files::open(from)).map_err(|error| unreadable(&error))? else {
        return Ok(false);
    };
    if file.metadata().map_err(|error| unreadable(&error))?.len() != object.size {
        return Ok(false);
    }
    let (mut filling, mut buffer) = (Filling::start(to)?, vec![0; BUFFER]);
    let mut copy = || loop {
        let length = file.read(&mut buffer).map_err(|error| unreadable(&error))?;
        let Some(chunk) = buffer.get(..length).filter(|chunk| !chunk.is_empty()) else { return Ok(()) };
        filling.add(chunk)?;
        if deadline.passed() {
            return Err(deadline.late(&format!("cannot copy {}", from.display())));
        }
    };
    let copied: Result<()> = copy();
    let is_same = filling.sha256() == object.oid;
    // The next attempt needs the times.
    filling.finish()?;
    copied.map(|()| is_same)
}

/// Fills files whose contents are empty: no server has these.
pub(super) fn fill_empty(tree: &Path, object: &Object) -> Result<()> {
    for path in &object.paths {
        let filling = Filling::start(tree.join(path))?;
        if filling.sha256() != object.oid {
            return Err(Error::source(format!("the Git LFS pointer {} is damaged", path.display()))
                .because("it names contents without a byte, but not the SHA-256 of these"));
        }
        filling.finish()?;
    }
    Ok(())
}
