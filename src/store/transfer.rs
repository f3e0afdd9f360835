//! Archives on their way into a store and out of it: packed and unpacked, hashed and counted.

use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};
use zstd::stream::read::Decoder;
use zstd::stream::write::Encoder;

use super::entry::{Archive, Manifest};
use super::unusable::Unusable;
use crate::archive::{self, Rules};
use crate::error::{Error, IoContext, Kind, Result};
use crate::retry::Deadline;
use crate::runtime::hex;
use crate::size::Size;
use crate::tree;

/// Level of the compression: zstd's default.
const LEVEL: i32 = 3;
/// Largest window of an archive that podstrap unpacks, as a power of two. At [`LEVEL`], zstd uses 2^21.
const WINDOW: u32 = 24;
const BUFFER: usize = 128 << 10;

/// Refuses an environment that would not fit.
pub(super) fn fits(archive: &Archive, most: Size) -> Result<(), Unusable> {
    if archive.occupied_bytes <= most.0 {
        return Ok(());
    }
    let why = format!("the environment takes {}, and --size-limit is {most}", Size(archive.occupied_bytes));
    Err(Unusable::Failed(Error::volume("cannot unpack the archive").because(why)))
}

/// Unpacks an archive to `to`, which must not exist yet. Leaves nothing there after an error.
pub(super) fn unpack(from: &mut dyn Read, manifest: &Manifest, to: &Path, deadline: Deadline) -> Result<(), Unusable> {
    let wanted = &manifest.archive;
    let failed = |error: io::Error| Unusable::Failed(Error::volume("cannot read the archive").because(error));
    let mut hashed = Hashed::new(from);
    let rules = Rules { strip: 0, forbidden: None, limit: Size(wanted.occupied_bytes), deadline };
    let unpacked = decoder(&mut hashed)
        .map_err(|error| Error::source("cannot decompress it").because(error))
        .and_then(|decoder| archive::unpack_environment(decoder, to, "it", rules));
    let result = match unpacked {
        _ if hashed.failed.is_some() => Err(failed(hashed.failed.take().unwrap_or(ErrorKind::Other.into()))),
        Err(error) if error.kind() == Kind::Volume || deadline.passed() => Err(Unusable::Failed(error)),
        Err(_) if hashed.bytes < wanted.bytes && hashed.has_ended => Err(Unusable::length(hashed.bytes, wanted.bytes)),
        Err(error) => Err(Unusable::damaged(error.summary())),
        Ok(_) if hex(&hashed.digest.finalize()) != wanted.sha256 => Err(Unusable::damaged("it has another hash")),
        Ok(done) if (done.files, done.bytes) != (wanted.files, wanted.unpacked_bytes) => {
            Err(Unusable::damaged("it has other files than its manifest says"))
        }
        Ok(_) => Ok(()),
    };
    if result.is_err() {
        // Whatever is left is in staging, which podstrap empties.
        let _ = tree::remove(to);
    }
    result
}

/// Whether an archive has its length and its hash.
pub(super) fn verify(from: &mut dyn Read, archive: &Archive) -> Result<(), Unusable> {
    let mut hashed = Hashed::new(from);
    let read = io::copy(&mut (&mut hashed).take(archive.bytes.saturating_add(1)), &mut io::sink());
    read.map_err(|error| Error::volume("cannot read the archive").because(error))?;
    if hashed.bytes != archive.bytes {
        return Err(Unusable::length(hashed.bytes, archive.bytes));
    }
    if hex(&hashed.digest.finalize()) != archive.sha256 {
        return Err(Unusable::damaged("it has another hash"));
    }
    Ok(())
}

/// Packs an environment.
///
/// # Errors
/// Volume: `to` fails. Environment: it has files that an archive cannot hold.
pub(super) fn pack(venv: &Path, to: &mut dyn Write, what: &str, deadline: Deadline) -> Result<Archive> {
    let what = || what.to_owned();
    let mut hashed = Hashed::new(to);
    let mut encoder = Encoder::new(&mut hashed, LEVEL).on_volume(what)?;
    let packed = archive::pack(venv, &mut encoder, deadline);
    let finished = encoder.finish().map(drop);
    if let Some(error) = hashed.failed.take() {
        return Err(error).on_volume(what);
    }
    let packed = packed?;
    finished.on_volume(what)?;
    Ok(Archive {
        sha256: hex(&hashed.digest.finalize()),
        bytes: hashed.bytes,
        files: packed.written.files,
        unpacked_bytes: packed.written.bytes,
        occupied_bytes: packed.occupied,
    })
}

/// Counts and hashes the bytes that pass.
struct Hashed<T> {
    inner: T,
    digest: Sha256,
    bytes: u64,
    /// The inner reader has no more bytes.
    has_ended: bool,
    /// The first error of the store itself.
    failed: Option<io::Error>,
}

impl<T> Hashed<T> {
    fn new(inner: T) -> Self {
        Self { inner, digest: Sha256::new(), bytes: 0, has_ended: false, failed: None }
    }

    fn pass(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    fn fail(&mut self, error: io::Error) -> io::Error {
        let copy = io::Error::new(error.kind(), error.to_string());
        if error.kind() != ErrorKind::Interrupted {
            self.failed.get_or_insert(error);
        }
        copy
    }
}

impl<T: Read> Read for Hashed<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer).map_err(|error| self.fail(error))?;
        self.has_ended |= length == 0 && !buffer.is_empty();
        self.pass(&buffer[..length]);
        Ok(length)
    }
}

impl<T: Write> Write for Hashed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(bytes).map_err(|error| self.fail(error))?;
        self.pass(&bytes[..length]);
        Ok(length)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn decoder<T: Read>(from: &mut Hashed<T>) -> io::Result<Decoder<'static, BufReader<&mut Hashed<T>>>> {
    let mut decoder = Decoder::with_buffer(BufReader::with_capacity(BUFFER, from))?;
    decoder.window_log_max(WINDOW)?;
    Ok(decoder)
}
