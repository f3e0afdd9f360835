//! gzip (RFC 1952): consecutive members are one stream. Ignores other data after the last member.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;

use crate::archive::unpacker::BUFFER;

/// The first bytes of a member (RFC 1952, 2.3.1).
const MAGIC: [u8; 2] = [0x1f, 0x8b];

pub(super) fn is(first: &[u8]) -> bool {
    first.starts_with(&MAGIC)
}

pub(super) struct Reader {
    /// `None` at the end of the stream.
    member: Option<GzDecoder<BufReader<File>>>,
}

impl Reader {
    pub(super) fn new(file: File) -> Self {
        Self { member: Some(GzDecoder::new(BufReader::with_capacity(BUFFER, file))) }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let length = member.read(buffer)?;
            if length > 0 || buffer.is_empty() {
                return Ok(length);
            }
            // The member is complete: its checksum and its length are correct.
            let mut rest = self.member.take().map(GzDecoder::into_inner).expect("it was just read from");
            let ahead = rest.fill_buf()?;
            if !ahead.is_empty() && ahead.starts_with(&MAGIC[..ahead.len().min(MAGIC.len())]) {
                self.member = Some(GzDecoder::new(rest));
            }
        }
        Ok(0)
    }
}
