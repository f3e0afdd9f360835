//! zip (PKWARE's APPNOTE): what the central directory says counts, as for unzip and Python; sizes and
//! checksums must be right.
//!
//! A name's bytes are kept where they are UTF-8 or were made on Unix; else they are code page 437. Backslashes are separators where unzip takes them for such: on entries made under
//! DOS or Windows, in names without a slash.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::time::UNIX_EPOCH;

use ::zip::read::ZipFile;
use ::zip::{ExtraField, System, ZipArchive};

use crate::archive::unpacker::{PATH_MAX, Packed, Unpacker, one_line};
use crate::error::Result;
use crate::size::Size;

/// What the first entry starts with; an archive without one; and one that was made to be split, and
/// was not (APPNOTE 4.3.7, 4.3.16, 8.5.4).
const MAGIC: [&[u8]; 3] = [b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"];

/// What may be read of the directory at the end. The crate holds it in memory, several times as
/// large: half a million entries with usual names.
const MAX_DIRECTORY: u64 = 32 << 20;
/// The bits of a Unix mode that say what it is, and what they can say (inode(7)).
const KIND: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;

pub(super) fn is(first: &[u8]) -> bool {
    MAGIC.iter().any(|magic| first.starts_with(magic))
}

pub(super) fn unpack(from: File, unpacker: &mut Unpacker<'_>) -> Result<()> {
    let budget = Cell::new(MAX_DIRECTORY);
    let from = Budgeted { from, left: &budget };
    let mut archive = ZipArchive::new(BufReader::new(from)).map_err(|error| unpacker.damaged_somewhere(&error))?;
    budget.set(u64::MAX);
    if archive.has_duplicate_names() {
        return Err(unpacker.twice(&duplicate(&archive)));
    }
    unpacker.in_time()?;
    // A bomb's way to say the same contents a thousand times.
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
            return Err(unpacker.refused(&raw, "is encrypted").hint("make the archive without a password"));
        }
        let mut file = archive.by_index(index).map_err(|error| unpacker.damaged(&raw, &error))?;
        entry(&mut file, unpacker)?;
    }
    Ok(())
}

fn entry<R: Read>(file: &mut ZipFile<'_, R>, unpacker: &mut Unpacker<'_>) -> Result<()> {
    let (name, mtime, size) = (name(file), mtime(file), file.size());
    // DOS has no modes; what stands in their place is no promise.
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
        _ => Err(unpacker.refused(&name, format!("is no file, directory or symbolic link (mode {mode:o})"))),
    }
}

fn name<R: Read>(file: &ZipFile<'_, R>) -> Vec<u8> {
    let system = file.system();
    let mut name = match file.name() {
        // The crate takes bytes that are UTF-8 for UTF-8, and others for code page 437.
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

/// In seconds since 1970: the extended timestamp, or else what DOS calls local time, taken for UTC.
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

/// A name that is there more than once. The crate keeps the first one's place and the last one's
/// header, which the next place's header then precedes.
fn duplicate<R: Read + Seek>(archive: &ZipArchive<R>) -> Vec<u8> {
    let start = |index| archive.by_index_data(index).map_or(u64::MAX, |entry| entry.central_header_start());
    let last = archive.len().saturating_sub(1);
    let index = (0..last).find(|index| start(*index) > start(index + 1)).unwrap_or(last);
    archive.by_index_data(index).map_or_else(|_| Vec::new(), |entry| entry.name_raw().to_owned())
}

/// A file of which so much may be read.
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
