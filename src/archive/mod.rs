//! Unpacks tar, gzip-compressed tar and zip archives. Whatever they contain, podstrap touches only the new tree.
//! It recognises a format by its first bytes, never by a name.
//!
//! Names are relative, without `..`, and unique. podstrap creates symbolic links last, so no path that it writes
//! leads through one. It creates them as the archive has them, dangling or not, as it does for Git. It refuses
//! entries that are not files, directories or links, and contents that readers of such archives read
//! differently.
//!
//! The tree depends only on the archive. Modes are 0644, 0755 for files that their owner may execute, and 0755
//! for directories. Times are those of the archive, in whole seconds, also for directories and links. A
//! directory without an entry gets the newest time of all.
//!
//! To add a format, write a file next to `tar.rs` that reads it and passes each entry to an [`Unpacker`], and
//! add it to [`FORMATS`]. Only the unpacker writes, and it depends on no format. `ARCHIVES` in `plan/source.rs`
//! lists the suffixes that tell the URL of an archive from that of a Git repository.

mod environment;
mod gzip;
mod tar;
mod unpacker;
mod writers;
mod zip;

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;

use unpacker::{BUFFER, Unpacker};

use crate::error::{Error, Kind, Result};
use crate::files;
use crate::tree::Written;

pub(crate) use environment::{pack, unpack_environment};
pub(crate) use unpacker::Rules;

/// An archive format.
struct Format {
    /// Whether a file starts like this format. Gets [`FIRST`] bytes, or all of a shorter file.
    is: fn(&[u8]) -> bool,
    unpack: fn(File, &mut Unpacker<'_>) -> Result<()>,
}

const FORMATS: [Format; 3] = [
    Format { is: gzip::is, unpack: |file, unpacker| tar::unpack(gzip::Reader::new(file), unpacker) },
    Format { is: zip::is, unpack: zip::unpack },
    Format { is: tar::is, unpack: |file, unpacker| tar::unpack(BufReader::with_capacity(BUFFER, file), unpacker) },
];

/// Number of bytes that identify a format: a tar's first header.
pub(crate) const FIRST: usize = tar::BLOCK;

/// Whether podstrap unpacks a file with these first bytes. [`FIRST`] of them are enough.
pub(crate) fn is_archive(first: &[u8]) -> bool {
    format(first).is_some()
}

fn format(first: &[u8]) -> Option<&'static Format> {
    FORMATS.iter().find(|format| (format.is)(first))
}

/// Unpacks the archive to `tree`, which must not exist yet. `name` is its name in messages.
pub(crate) fn unpack(file: &Path, tree: &Path, name: &str, rules: Rules) -> Result<Written> {
    let mut unpacker = Unpacker::new(name, tree, rules);
    let unreadable = |error: io::Error| files::unreadable(Kind::Source, unpacker.what(), &error);
    let mut from = files::open(file).map_err(unreadable)?;
    let mut first = Vec::new();
    (&from).take(FIRST as u64).read_to_end(&mut first).and_then(|_| from.rewind()).map_err(unreadable)?;
    let format = format(&first).ok_or_else(|| unknown(&unpacker.what(), &first))?;
    unpacker.begin()?;
    (format.unpack)(from, &mut unpacker)?;
    unpacker.finish()
}

/// What a file is whose first bytes are those of an archive that podstrap does not unpack.
pub(crate) fn unsupported(first: &[u8]) -> Option<&'static str> {
    // As in file(1).
    let known: [(&[u8], &str); 5] = [
        (b"\xfd7zXZ\0", "xz-compressed"),
        (b"BZh", "bzip2-compressed"),
        (b"\x28\xb5\x2f\xfd", "zstd-compressed"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (b"Rar!", "a RAR archive"),
    ];
    known.iter().find(|(magic, _)| first.starts_with(magic)).map(|(_, kind)| *kind)
}

/// The error of a file that is not a supported archive.
fn unknown(what: &str, first: &[u8]) -> Error {
    let page = String::from_utf8_lossy(first).trim_start().starts_with('<').then_some("a page of HTML or XML");
    let cause = match unsupported(first).or(page) {
        Some(kind) => format!("it is {kind}, not a gzip-compressed tar, a tar or a zip"),
        None if first.is_empty() => "it is empty".to_owned(),
        None => "it does not start like a gzip-compressed tar, a tar or a zip".to_owned(),
    };
    Error::source(what).because(cause).hint("give the URL of a .tar.gz, a .tar or a .zip")
}

/// For any bytes: podstrap touches only the tree, which stays within the limit and has only the allowed modes,
/// and the same bytes give the same tree.
///
/// The first byte decides how many parts to strip, and whether to repair the input: a fuzzer finds neither the
/// checksum of a tar's header nor gzip's.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use crate::retry::Deadline;
    use crate::size::Size;
    use crate::walk::walk;

    const LIMIT: Size = Size(256 << 10);
    thread_local! {
        static DIRECTORY: PathBuf = {
            let path = std::env::temp_dir().join(format!("podstrap-fuzz-archive-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).expect("the temporary directory is writable");
            path
        };
    }
    let Some((how, bytes)) = data.split_first() else { return };
    let mut bytes = bytes.to_owned();
    if how & 4 != 0 {
        for block in bytes.chunks_exact_mut(tar::BLOCK) {
            if block[257..].starts_with(b"ustar") {
                let mut header = ::tar::Header::from_byte_slice(block).clone();
                header.set_cksum();
                block.copy_from_slice(header.as_bytes());
            }
        }
    }
    if how & 8 != 0 {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&bytes).expect("memory");
        bytes = packed.finish().expect("memory");
    }
    DIRECTORY.with(|directory| {
        let file = directory.join("archive");
        fs::write(&file, &bytes).expect("the temporary directory is writable");
        let deadline = Deadline::after(std::time::Duration::from_secs(4));
        let trees = ["one", "two"].map(|name| {
            let tree = directory.join(name);
            let rules = Rules { strip: usize::from(how & 3), forbidden: None, limit: LIMIT, deadline };
            let unpacked = unpack(&file, &tree, "it", rules);
            let (mut lines, mut occupied, mut done) = (Vec::new(), 0, Written::default());
            for entry in tree.exists().then(|| walk(&tree)).into_iter().flatten() {
                let entry = entry.expect("readable");
                let (meta, path) = (entry.metadata().expect("it was listed"), entry.path);
                occupied += Size::occupied(if meta.is_dir() { 0 } else { meta.len() });
                let mode = meta.permissions().mode() & 0o7777;
                if meta.is_dir() {
                    assert_eq!(mode, 0o755, "{}", path.display());
                } else {
                    done.files += 1;
                    done.bytes += if meta.is_file() { meta.len() } else { 0 };
                    assert!(meta.is_symlink() || meta.is_file(), "{}", path.display());
                    assert!(meta.is_symlink() || unpacked.is_err() || matches!(mode, 0o644 | 0o755), "{mode:o}");
                }
                let time = meta.modified().expect("Linux has it");
                let what = if meta.is_symlink() {
                    fs::read_link(&path).expect("a link").into_os_string().into_encoded_bytes()
                } else if meta.is_file() {
                    fs::read(&path).expect("readable")
                } else {
                    Vec::new()
                };
                lines.push((path.strip_prefix(&tree).expect("below").to_owned(), mode, time, what));
            }
            assert!(occupied <= LIMIT.0, "{occupied}");
            if tree.exists() {
                crate::tree::remove(&tree).expect("it is ours");
            }
            lines.sort();
            unpacked.ok().map(|unpacked| {
                assert_eq!(unpacked, done);
                lines
            })
        });
        assert!(trees[0] == trees[1]);
        let left: Vec<_> =
            fs::read_dir(directory).expect("readable").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["archive"], "something else was written");
        if trees[0].is_some() {
            assert!(is_archive(&bytes[..bytes.len().min(FIRST)]));
        }
    });
}

#[cfg(test)]
mod tests;
