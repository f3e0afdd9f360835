//! tar: the old format, ustar, GNU's long names, and pax records (POSIX.1-2008, pax, "ustar
//! Interchange Format" and "pax Header Block").
//!
//! The crate `tar` reads the headers. podstrap does not use its iterator, which ignores a pax record with a line
//! feed in it, and holds names and records of any length in memory.

use std::io::{self, ErrorKind, Read};

use ::tar::{EntryType, Header};

use crate::archive::unpacker::{BUFFER, Packed, Unpacker, one_line};
use crate::error::{Error, Result};
use crate::formats::{self, is_tar_header};

pub(super) const BLOCK: usize = formats::FIRST;
/// The most bytes of the records or the long name before an entry. A path has at most 4096 bytes, extended
/// attributes 64 KiB each (xattr(7)).
const MAX_EXTENSION: u64 = 1 << 20;

/// Bytes to read for the checksum of a compressed block: one of bzip2 has at most 900 kB.
const CHECKSUM_WITHIN: u64 = 1 << 20;

/// The records before an entry, which replace or extend parts of its header.
#[derive(Clone, Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    mtime: Option<i64>,
    /// Whether its contents are a map of holes.
    sparse: bool,
}

/// `packed` is the format of the file, for errors.
pub(super) fn unpack(from: impl Read, packed: &str, unpacker: &mut Unpacker<'_>) -> Result<()> {
    let mut tar = Tar { from, packed, offset: 0, last: Vec::new() };
    let (mut global, mut next) = (Extensions::default(), None::<Extensions>);
    loop {
        unpacker.in_time()?;
        let Some(header) = tar.header(unpacker)? else { break };
        let mut extensions = next.take();
        let kind = header.entry_type();
        let size = header.entry_size().map_err(|error| tar.damaged(unpacker, &error))?;
        match kind {
            EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader => {
                let bytes = tar.extension(size, unpacker)?;
                let extensions = next.insert(extensions.unwrap_or_else(|| global.clone()));
                match kind {
                    EntryType::GNULongName => extensions.path = Some(terminated(&bytes)),
                    EntryType::GNULongLink => extensions.link = Some(terminated(&bytes)),
                    _ => extensions.read(&bytes).ok_or_else(|| tar.damaged(unpacker, &"invalid pax records"))?,
                }
            }
            EntryType::XGlobalHeader => {
                let bytes = tar.extension(size, unpacker)?;
                global.read(&bytes).ok_or_else(|| tar.damaged(unpacker, &"invalid pax records"))?;
                // Earlier records for the next entry still apply.
                next = extensions;
            }
            _ => {
                let extensions = extensions.get_or_insert_with(|| global.clone());
                tar.entry(&header, kind, extensions, extensions.size.unwrap_or(size), unpacker)?;
            }
        }
    }
    if next.is_some() {
        return Err(tar.damaged(unpacker, &"the entry for the last header is missing"));
    }
    tar.drain(unpacker)
}

struct Tar<'a, R> {
    from: R,
    packed: &'a str,
    offset: u64,
    /// The name of the last entry.
    last: Vec<u8>,
}

impl<R: Read> Tar<'_, R> {
    /// The next header; `None` at the block of zeros after the last one.
    fn header(&mut self, unpacker: &Unpacker<'_>) -> Result<Option<Header>> {
        let (start, mut header) = (self.offset, Header::new_old());
        let length = self.fill(header.as_mut_bytes()).map_err(|error| self.damaged(unpacker, &error))?;
        if length == BLOCK && header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        if length == BLOCK && is_tar_header(&header) {
            return Ok(Some(header));
        }
        // A compressed block with a wrong byte has other contents; its checksum comes after them.
        if start == 0 {
            let rest = io::copy(&mut (&mut self.from).take(CHECKSUM_WITHIN), &mut io::sink());
            rest.map_err(|error| self.damaged(unpacker, &error))?;
        }
        Err(match start {
            0 => Error::source(unpacker.what())
                .because(format!("it is {}, but does not contain a tar", self.packed))
                .hint(formats::HINT),
            _ if length < BLOCK => self.damaged(unpacker, &"it ends without a block of zeros, the mark of its end"),
            _ => self.damaged(unpacker, &format!("invalid header at byte {start}: wrong checksum")),
        })
    }

    fn entry(
        &mut self,
        header: &Header,
        kind: EntryType,
        extensions: &Extensions,
        size: u64,
        unpacker: &mut Unpacker<'_>,
    ) -> Result<()> {
        let path = extensions.path.clone().unwrap_or_else(|| header.path_bytes().into_owned());
        self.last.clone_from(&path);
        let name = &*path;
        let directory = kind == EntryType::Directory
            || (matches!(kind, EntryType::Regular | EntryType::Continuous) && name.ends_with(b"/"));
        let target = || extensions.link.clone().or(header.link_name_bytes().map(Into::into)).unwrap_or_default();
        // The time of a date before 1970 is negative.
        let mtime = if header.as_old().mtime[0] == 0xff { Some(0) } else { None };
        let mtime = extensions
            .mtime
            .or(mtime)
            .unwrap_or_else(|| header.mtime().map_or(0, |seconds| i64::try_from(seconds).unwrap_or(i64::MAX)));
        if extensions.sparse || kind == EntryType::GNUSparse {
            return Err(unpacker.refused(name, "is a sparse file").hint("create the archive without tar's --sparse"));
        }
        // Some readers skip such contents, others read them as the next header.
        if (directory || kind == EntryType::Symlink) && size > 0 {
            return Err(unpacker.refused(name, "is a directory or a link, and has contents"));
        }
        let entry = match kind {
            _ if directory => Packed::Directory,
            EntryType::Regular | EntryType::Continuous => {
                let executable = header.mode().is_ok_and(|mode| mode & 0o100 != 0);
                let mut contents = (&mut self.from).take(size);
                let file = Packed::File { executable, size, contents: &mut contents };
                unpacker.add(name, mtime, file)?;
                // The contents of a skipped entry have not been read.
                let left = contents.limit();
                self.offset = self.offset.saturating_add(size - left);
                return self.skip(left.saturating_add(padding(size)), unpacker);
            }
            EntryType::Symlink => Packed::Symlink { target: &target() },
            // Old archives give the size of the file here. A hard link never has contents.
            EntryType::Link => Packed::HardLink { to: &target() },
            EntryType::Char | EntryType::Block => return Err(unpacker.refused(name, "is a device")),
            EntryType::Fifo => return Err(unpacker.refused(name, "is a named pipe")),
            other => {
                let letter = char::from(other.as_byte()).escape_default();
                return Err(unpacker.refused(name, format!("has a type that podstrap does not support ('{letter}')")));
            }
        };
        unpacker.add(name, mtime, entry)
    }

    /// The contents of an extension header.
    fn extension(&mut self, size: u64, unpacker: &Unpacker<'_>) -> Result<Vec<u8>> {
        if size > MAX_EXTENSION {
            return Err(self.damaged(unpacker, &format!("{size} bytes of records for one entry")));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        self.read(&mut bytes).map_err(|error| self.damaged(unpacker, &error))?;
        self.skip(padding(size), unpacker)?;
        Ok(bytes)
    }

    fn skip(&mut self, bytes: u64, unpacker: &Unpacker<'_>) -> Result<()> {
        let (mut left, mut buffer) = (bytes, vec![0; BUFFER]);
        while left > 0 {
            unpacker.in_time()?;
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            self.read(&mut buffer[..length]).map_err(|error| self.damaged(unpacker, &error))?;
            left -= length as u64;
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        if self.fill(buffer)? < buffer.len() {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "unexpected end of the archive"));
        }
        Ok(())
    }

    /// Reads until the buffer is full or the input ends.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut length = 0;
        while length < buffer.len() {
            match self.from.read(&mut buffer[length..]) {
                Ok(0) => break,
                Ok(more) => length += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.offset += length as u64;
        Ok(length)
    }

    /// Reads to the end, to verify the checksum of the compression.
    fn drain(&mut self, unpacker: &Unpacker<'_>) -> Result<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            unpacker.in_time()?;
            match self.from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.damaged(unpacker, &error)),
            }
        }
    }

    fn damaged(&self, unpacker: &Unpacker<'_>, why: &dyn std::fmt::Display) -> Error {
        if self.last.is_empty() {
            return unpacker.damaged_somewhere(why);
        }
        unpacker.damaged(&self.last, &format!("in this entry or after it: {why}"))
    }
}

/// Number of bytes that fill the last block after `size` bytes.
fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

/// GNU's long names end with a NUL.
fn terminated(bytes: &[u8]) -> Vec<u8> {
    bytes.strip_suffix(b"\0").unwrap_or(bytes).to_owned()
}

impl Extensions {
    /// Adds pax records: `"%d %s=%s\n", length, keyword, value`. The length is that of the whole record. An
    /// empty value removes an earlier one. `None` if the records are invalid.
    fn read(&mut self, mut records: &[u8]) -> Option<()> {
        while !records.is_empty() {
            let space = records.iter().position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
            let (record, rest) = records.split_at_checked(length)?;
            let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            let (keyword, value) = (&record[..equals], &record[equals + 1..]);
            let text = std::str::from_utf8(value).ok();
            let bytes = || (!value.is_empty()).then(|| value.to_owned());
            match keyword {
                b"path" => self.path = bytes(),
                b"linkpath" => self.link = bytes(),
                b"size" if value.is_empty() => self.size = None,
                b"size" => self.size = Some(text?.parse().ok()?),
                b"mtime" if value.is_empty() => self.mtime = None,
                b"mtime" => self.mtime = Some(text?.split('.').next()?.parse().ok()?),
                b"comment" => tracing::debug!("the archive's comment: {}", one_line(value)),
                _ => self.sparse |= keyword.starts_with(b"GNU.sparse."),
            }
            records = rest;
        }
        Some(())
    }
}
