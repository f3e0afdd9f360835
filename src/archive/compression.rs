//! The compressions of tars. Consecutive members of gzip (RFC 1952), streams of bzip2 and xz, and frames of zstd
//! (RFC 8878) are one stream. Other data after the last one is as it is for these tools, and so for tar: ignored
//! for gzip and bzip2, an error for xz (except zeros, its padding) and zstd.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};

use bzip2::bufread::BzDecoder;
use flate2::bufread::GzDecoder;
use lzma_rust2::XzReader;
use zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode::ZSTD_error_frameParameter_windowTooLarge as TOO_LARGE;

use super::unpacker::BUFFER;
use crate::error::Error;
use crate::formats::{self, Reader};

/// The largest dictionary of xz, and the largest window of zstd, as a power of two: zstd's own limit. gzip and
/// bzip2 need less than 5 MiB.
const WINDOW: u32 = 27;
/// What the decoder of xz needs besides its dictionary, in KiB.
const MORE: u32 = 1 << 10;

/// The same error for a file that ends too early, whatever its compression.
const CUT: &str = "unexpected end of the compressed data";

/// Decompresses a file.
pub(super) struct Decompressed {
    from: Box<dyn Read>,
    compression: Reader,
    needs_more_memory: bool,
}

impl Decompressed {
    pub(super) fn new(file: File, compression: Reader) -> io::Result<Self> {
        let file = BufReader::with_capacity(BUFFER, file);
        let from: Box<dyn Read> = match compression {
            Reader::Gzip => Box::new(Members::<GzDecoder<_>>::start(file)),
            Reader::Bzip2 => Box::new(Members::<BzDecoder<_>>::start(file)),
            Reader::Xz => Box::new(XzReader::new_mem_limit(file, true, (1 << (WINDOW - 10)) + MORE)),
            Reader::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(file)?;
                decoder.window_log_max(WINDOW)?;
                Box::new(decoder)
            }
            Reader::Tar | Reader::Zip | Reader::None => Box::new(file),
        };
        Ok(Self { from, compression, needs_more_memory: false })
    }

    /// The error of an archive that needs too much memory, instead of the error of its reader.
    pub(super) fn or_too_large(&self, what: &str, error: Error) -> Error {
        if !self.needs_more_memory {
            return error;
        }
        let (needs, hint) = match self.compression {
            Reader::Zstd => ("a window", "compress it without --long, or with --long=27 at most"),
            _ => ("a dictionary", "compress it with xz -9 or a lower preset"),
        };
        Error::source(what)
            .because(format!("it needs {needs} of more than {} MiB of memory", 1 << (WINDOW - 20)))
            .hint(hint)
    }
}

impl Read for Decompressed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.from.read(buffer).map_err(|error| {
            let zstd = error.get_ref().and_then(|error| error.downcast_ref::<zstd::Error>());
            self.needs_more_memory |=
                error.kind() == ErrorKind::OutOfMemory || zstd.is_some_and(|error| error.is(TOO_LARGE));
            if error.kind() == ErrorKind::UnexpectedEof { io::Error::new(error.kind(), CUT) } else { error }
        })
    }
}

/// Reads one member, and returns the rest of the file after it.
trait Member: Read {
    const MAGIC: &[u8];
    fn start(file: BufReader<File>) -> Self;
    fn rest(self) -> BufReader<File>;
}

impl Member for GzDecoder<BufReader<File>> {
    const MAGIC: &[u8] = formats::GZIP;
    fn start(file: BufReader<File>) -> Self {
        Self::new(file)
    }
    fn rest(self) -> BufReader<File> {
        self.into_inner()
    }
}

impl Member for BzDecoder<BufReader<File>> {
    const MAGIC: &[u8] = formats::BZIP2;
    fn start(file: BufReader<File>) -> Self {
        Self::new(file)
    }
    fn rest(self) -> BufReader<File> {
        self.into_inner()
    }
}

struct Members<M> {
    /// `None` at the end of the stream.
    member: Option<M>,
}

impl<M: Member> Members<M> {
    fn start(file: BufReader<File>) -> Self {
        Self { member: Some(M::start(file)) }
    }
}

impl<M: Member> Read for Members<M> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let length = member.read(buffer)?;
            if length > 0 || buffer.is_empty() {
                return Ok(length);
            }
            // The member is complete: its checksum and its length are correct.
            let mut rest = self.member.take().map(M::rest).expect("it was just read from");
            let ahead = rest.fill_buf()?;
            if !ahead.is_empty() && ahead.starts_with(&M::MAGIC[..ahead.len().min(M::MAGIC.len())]) {
                self.member = Some(M::start(rest));
            }
        }
        Ok(0)
    }
}
