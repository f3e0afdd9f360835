//! Identifies a file by its contents: by its GNU build ID and size if it has one, otherwise by a hash. A large program
//! without a build ID, such as uv, is hashed in part: all of it would take longer than to start it.
//!
//! Hashing a directory of wheels takes longer than the rest of a run without changes. release.json therefore keeps the
//! stamps of hashed files. podstrap does not read a file with the same stamp again.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::elf;
use crate::files;
use crate::retry::Deadline;
use crate::runtime::hex;

/// `build-id:571d98…:6831736`, `parts:6a1c…:38912000`, `sha256:6a1c…`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(String);

/// An identified file, with the stamp by which a later run recognizes it without reading it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identified {
    path: PathBuf,
    #[serde(flatten)]
    stamp: Stamp,
    identity: Identity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    size: u64,
    /// Nanoseconds since the epoch, like `ctime`.
    mtime: i64,
    ctime: i64,
}

/// A file with a more recent change may change again without new times.
const SETTLED: Duration = Duration::from_secs(2);

/// Bytes for each read.
const BUFFER: usize = 128 << 10;

/// Of a large program, the first bytes of each piece. A change of a program moves what is behind it, and so changes
/// nearly every piece.
const PIECE: u64 = 128 << 10;
const PART: usize = 4 << 10;
/// Smaller programs are hashed in full.
const LARGE: u64 = 4 << 20;

/// The identities of an earlier run, and those that this run needed.
#[derive(Debug, Clone, Default)]
pub struct Identities {
    known: Arc<Vec<Identified>>,
    needed: Arc<Mutex<BTreeMap<PathBuf, Identified>>>,
}

impl Identities {
    pub(super) fn new(known: Vec<Identified>) -> Self {
        Self { known: Arc::new(known), needed: Arc::default() }
    }

    /// Identifies a file. Follows links.
    ///
    /// # Errors
    /// It cannot be read, is not a regular file, or the deadline has passed.
    pub(super) fn of(&self, path: &Path, deadline: Deadline) -> io::Result<Identity> {
        let path = path.canonicalize()?;
        let meta = files::open(&path)?.metadata()?;
        let program = elf::links(&path)?;
        let is_program = program.is_some();
        if let Some(id) = program.and_then(|links| links.build_id) {
            return Ok(Identity(format!("build-id:{}:{}", hex(&id), meta.len())));
        }
        if is_program && meta.len() >= LARGE {
            return Ok(Identity(format!("parts:{}:{}", parts(&path, meta.len())?, meta.len())));
        }
        let stamp = Stamp::of(&meta);
        let mut needed = self.needed.lock().unwrap_or_else(PoisonError::into_inner);
        let known = needed.get(&path).into_iter().chain(self.known.iter());
        let found = known.into_iter().find(|known| known.path == path && known.stamp == stamp).cloned();
        let found = match found {
            Some(found) => found,
            None => Identified { identity: Identity(sha256(&path, deadline)?), stamp, path: path.clone() },
        };
        let identity = found.identity.clone();
        if stamp.is_settled() {
            needed.insert(path, found);
        }
        Ok(identity)
    }

    /// The identities for the next run.
    pub(super) fn needed(&self) -> Vec<Identified> {
        self.needed.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

impl Stamp {
    fn of(meta: &fs::Metadata) -> Self {
        let nanoseconds = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
        Self {
            size: meta.len(),
            mtime: nanoseconds(meta.mtime(), meta.mtime_nsec()),
            ctime: nanoseconds(meta.ctime(), meta.ctime_nsec()),
        }
    }

    fn is_settled(self) -> bool {
        let changed = SystemTime::UNIX_EPOCH + Duration::from_nanos(self.ctime.try_into().unwrap_or_default());
        changed.elapsed().is_ok_and(|age| age > SETTLED)
    }
}

/// The hash of parts of a file, which has `size` bytes.
fn parts(path: &Path, size: u64) -> io::Result<String> {
    let file = files::open(path)?;
    let (mut digest, mut part) = (Sha256::new(), [0; PART]);
    for at in (0..size.saturating_sub(PART as u64)).step_by(usize::try_from(PIECE).unwrap_or(usize::MAX)) {
        file.read_exact_at(&mut part, at)?;
        digest.update(part);
    }
    Ok(hex(&digest.finalize()))
}

/// `sha256:…` of a file's contents.
fn sha256(path: &Path, deadline: Deadline) -> io::Result<String> {
    let mut file = files::open(path)?;
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; BUFFER]);
    loop {
        let length = file.read(&mut buffer)?;
        if length == 0 {
            return Ok(format!("sha256:{}", hex(&digest.finalize())));
        }
        digest.update(&buffer[..length]);
        if deadline.passed() {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(10))
    }

    #[test]
    fn the_contents_decide_and_not_the_times() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("uv");
        let of = |bytes: &[u8]| {
            fs::write(&file, bytes).unwrap();
            Identities::default().of(&file, soon()).unwrap()
        };
        let first = of(b"one");
        assert_eq!(first.0, format!("sha256:{}", hex(&Sha256::digest(b"one"))));
        assert_ne!(of(b"two"), first);
        assert_eq!(of(b"one"), first);
        File::open(&file).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(Identities::default().of(&file, soon()).unwrap(), first);
        assert!(Identities::default().of(Path::new("/dev/zero"), soon()).is_err());
    }

    #[test]
    fn a_file_with_the_same_stamp_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("uv");
        fs::write(&file, "one").unwrap();
        let path = file.canonicalize().unwrap();
        let stamp = Stamp::of(&fs::metadata(&path).unwrap());
        let identity = Identity("sha256:told".into());
        let known = Identities::new(vec![Identified { path: path.clone(), stamp, identity: identity.clone() }]);
        assert_eq!(known.of(&file, soon()).unwrap(), identity);
        // It is too recent for the next run.
        assert_eq!(known.needed(), []);
        let other = Stamp { ctime: stamp.ctime - 1, ..stamp };
        let known = Identities::new(vec![Identified { path, stamp: other, identity: identity.clone() }]);
        assert_ne!(known.of(&file, soon()).unwrap(), identity);
    }

    #[test]
    fn a_program_is_known_by_its_build_id() {
        let path = std::env::current_exe().unwrap();
        let identity = Identities::default().of(&path, soon()).unwrap();
        match elf::links(&path).unwrap().unwrap().build_id {
            Some(id) => assert!(identity.0.starts_with(&format!("build-id:{}:", hex(&id)))),
            None => assert!(identity.0.starts_with("parts:")),
        }
    }

    #[test]
    fn a_large_program_without_a_build_id_is_known_by_its_parts() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("uv");
        let mut bytes = fs::read(std::env::current_exe().unwrap()).unwrap();
        // The note's name: without it, there is no build ID.
        let note = bytes.windows(12).position(|window| window == b"\x14\0\0\0\x03\0\0\0GNU\0");
        if let Some(note) = note {
            bytes[note + 8] = b'X';
        }
        let of = |bytes: &[u8]| {
            fs::write(&file, bytes).unwrap();
            Identities::default().of(&file, soon()).unwrap()
        };
        let first = of(&bytes);
        assert!(first.0.starts_with("parts:"), "{first:?}");
        assert_eq!(of(&bytes), first);
        // One byte more in the middle moves the rest.
        let mut longer = bytes.clone();
        longer.insert(bytes.len() / 2, 0);
        longer.pop();
        assert_ne!(of(&longer), first);
        let mut shorter = bytes.clone();
        shorter.pop();
        assert_ne!(of(&shorter), first);
    }
}
