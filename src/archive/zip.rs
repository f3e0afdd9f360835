//! zip (PKWARE's APPNOTE): the central directory is authoritative, as for unzip and Python. Sizes and checksums
//! must be right.
//!
//! A name keeps its bytes if they are UTF-8 or were written on Unix; otherwise they are in code page 437.
//! Backslashes are separators as in unzip: in names without a slash, of entries written under DOS or Windows.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::time::UNIX_EPOCH;

use ::zip::read::ZipFile;
use ::zip::{ExtraField, System, ZipArchive};

use crate::archive::unpacker::{PATH_MAX, Packed, Unpacker, one_line};
use crate::error::Result;
use crate::size::Size;

/// The most bytes of the directory at the end. The crate holds it in memory, several times as large. Enough for
/// half a million entries with usual names.
const MAX_DIRECTORY: u64 = 32 << 20;
/// The type bits of a Unix mode, and their values (inode(7)).
const KIND: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;

pub(super) fn unpack(from: File, unpacker: &mut Unpacker<'_>) -> Result<()> {
    let budget = Cell::new(MAX_DIRECTORY);
    let from = Budgeted { from, left: &budget };
    let mut archive = ZipArchive::new(BufReader::new(from)).map_err(|error| unpacker.damaged_somewhere(&error))?;
    budget.set(u64::MAX);
    if archive.has_duplicate_names() {
        return Err(unpacker.twice(&duplicate(&archive)));
    }
    unpacker.in_time()?;
    // A bomb refers to the same contents a thousand times.
    if archive.has_overlapping_entries().map_err(|error| unpacker.damaged_somewhere(&error))? {
        return Err(unpacker.damaged_somewhere(&"the contents of two entries overlap"));
    }
    if !archive.comment().is_empty() {
        tracing::debug!("the archive's comment: {}", one_line(archive.comment()));
    }
    for index in 0..archive.len() {
        unpacker.in_time()?;
        let data = archive.by_index_data(index).map_err(|error| unpacker.damaged_somewhere(&error))?;
        let (raw, encrypted) = (data.name_raw().to_owned(), data.encrypted());
        if encrypted {
            return Err(unpacker.refused(&raw, "is encrypted").hint("create the archive without a password"));
        }
        let mut file = archive.by_index(index).map_err(|error| unpacker.damaged(&raw, &error))?;
        entry(&mut file, unpacker)?;
    }
    Ok(())
}

fn entry<R: Read>(file: &mut ZipFile<'_, R>, unpacker: &mut Unpacker<'_>) -> Result<()> {
    let (name, mtime, size) = (name(file), mtime(file), file.size());
    // DOS has no modes. Ignore the bits in their place.
    let mode = if file.system() == System::Dos { 0 } else { file.external_attributes() >> 16 };
    let slash = name.ends_with(b"/");
    match mode & KIND {
        _ if slash && size > 0 => Err(unpacker.refused(&name, "is a directory, and has contents")),
        0 | REGULAR | DIRECTORY if slash => unpacker.add(&name, mtime, Packed::Directory),
        DIRECTORY if size == 0 => unpacker.add(&name, mtime, Packed::Directory),
        0 | REGULAR => {
            let executable = mode & 0o100 != 0;
            unpacker.add(&name, mtime, Packed::File { executable, size, contents: file })
        }
        SYMLINK if !slash => {
            let mut target = Vec::new();
            file.take(PATH_MAX as u64).read_to_end(&mut target).map_err(|error| unpacker.damaged(&name, &error))?;
            unpacker.add(&name, mtime, Packed::Symlink { target: &target })
        }
        _ => Err(unpacker.refused(&name, format!("is not a file, directory or symbolic link (mode {mode:o})"))),
    }
}

fn name<R: Read>(file: &ZipFile<'_, R>) -> Vec<u8> {
    let system = file.system();
    let mut name = match file.name() {
        // The crate decodes valid UTF-8 as UTF-8, and other bytes as code page 437.
        Ok(name) if !matches!(system, System::Unix | System::OsDarwin) => name.into_owned().into_bytes(),
        _ => file.name_raw().to_owned(),
    };
    if system == System::Dos && !name.contains(&b'/') {
        for byte in &mut name {
            *byte = if *byte == b'\\' { b'/' } else { *byte };
        }
    }
    name
}

/// Seconds since 1970: the extended timestamp, or else the local time of DOS, read as UTC.
fn mtime<R: Read>(file: &ZipFile<'_, R>) -> i64 {
    let extended = file.extra_data_fields().find_map(|field| match field {
        // Signed, as time_t was (extrafld.txt of Info-ZIP).
        ExtraField::ExtendedTimestamp(times) => times.mod_time().map(|seconds| i64::from(seconds.cast_signed())),
        _ => None,
    });
    extended.unwrap_or_else(|| {
        let Some(time) = file.last_modified() else { return 0 };
        let (year, month, day) = (time.year(), time.month(), time.day());
        let text =
            format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", time.hour(), time.minute(), time.second());
        let since = humantime::parse_rfc3339(&text).ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    })
}

/// A name that appears more than once. The crate keeps the position of the first entry and the header of the
/// last one. The header of the next position then precedes it.
fn duplicate<R: Read + Seek>(archive: &ZipArchive<R>) -> Vec<u8> {
    let start = |index| archive.by_index_data(index).map_or(u64::MAX, |entry| entry.central_header_start());
    let last = archive.len().saturating_sub(1);
    let index = (0..last).find(|index| start(*index) > start(index + 1)).unwrap_or(last);
    archive.by_index_data(index).map_or_else(|_| Vec::new(), |entry| entry.name_raw().to_owned())
}

/// A file with a limit on the bytes to read.
struct Budgeted<'a> {
    from: File,
    left: &'a Cell<u64>,
}

impl Read for Budgeted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(buffer)?;
        let left = self.left.get().checked_sub(length as u64).ok_or_else(|| {
            io::Error::other(format!("its directory has more than {}: pack less into one archive", Size(MAX_DIRECTORY)))
        })?;
        self.left.set(left);
        Ok(length)
    }
}

impl Seek for Budgeted<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.from.seek(to)
    }
}
