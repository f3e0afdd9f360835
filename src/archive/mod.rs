//! Unpacks tars, also compressed ones, and zips. Whatever they contain, podstrap touches only the new tree.
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
//! To add a format, add it to `formats.rs`, which knows its names and its first bytes. For a compressed tar, add a
//! reader to `compression.rs`. For another archive, write a file next to `tar.rs` that reads it and passes each
//! entry to an [`Unpacker`]. Only the unpacker writes, and it depends on no format.

mod compression;
mod environment;
mod tar;
mod unpacker;
mod writers;
mod zip;

use std::io::{self, Read, Seek};
use std::path::Path;

use compression::Decompressed;
use unpacker::Unpacker;

use crate::error::{Error, Kind, Result};
use crate::files;
use crate::formats::{self, FIRST, Format, Reader};
use crate::tree::Written;

pub(crate) use environment::{pack, unpack_environment};
pub(crate) use unpacker::Rules;

/// Unpacks the archive to `tree`, which must not exist yet. `name` is its name in messages.
pub(crate) fn unpack(file: &Path, tree: &Path, name: &str, rules: Rules) -> Result<Written> {
    let mut unpacker = Unpacker::new(name, tree, rules);
    let unreadable = |error: io::Error| files::unreadable(Kind::Source, unpacker.what(), &error);
    let mut from = files::open(file).map_err(unreadable)?;
    let mut first = Vec::new();
    (&from).take(FIRST as u64).read_to_end(&mut first).and_then(|_| from.rewind()).map_err(unreadable)?;
    let format = Format::of_contents(&first).filter(|format| format.is_supported());
    let format =
        format.ok_or_else(|| Error::source(unpacker.what()).because(not_unpacked(&first)).hint(formats::HINT))?;
    unpacker.begin()?;
    if format.reader == Reader::Zip {
        zip::unpack(from, &mut unpacker)?;
    } else {
        let mut tar = Decompressed::new(from, format.reader).map_err(|error| unpacker.damaged_somewhere(&error))?;
        tar::unpack(&mut tar, format.shown, &mut unpacker)
            .map_err(|error| tar.or_too_large(&unpacker.what(), error))?;
    }
    unpacker.finish()
}

/// Why podstrap does not unpack a file with these first bytes.
pub(crate) fn not_unpacked(first: &[u8]) -> String {
    match Format::of_contents(first) {
        Some(format) => format!("it is {}, which podstrap does not unpack", format.shown),
        None if String::from_utf8_lossy(first).trim_start().starts_with('<') => {
            "it is a page of HTML or XML".to_owned()
        }
        None if first.is_empty() => "it is empty".to_owned(),
        None => format!("it does not start like {}", formats::SUPPORTED),
    }
}

/// For any bytes: podstrap touches only the tree, which stays within the limit and has only the allowed modes,
/// and the same bytes give the same tree.
///
/// The first byte decides how many parts to strip, whether to repair the input, and how to compress it: a fuzzer
/// finds no checksum of a tar's header or of a compression. It also decides whether to change the result.
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
    bytes = match how >> 3 & 7 {
        1 => {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packed.write_all(&bytes).and_then(|()| packed.finish()).expect("memory")
        }
        2 => {
            let mut packed = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            packed.write_all(&bytes).and_then(|()| packed.finish()).expect("memory")
        }
        3 => {
            let options = lzma_rust2::XzOptions::with_preset(0);
            let mut packed = lzma_rust2::XzWriter::new(Vec::new(), options).expect("valid options");
            packed.write_all(&bytes).and_then(|()| packed.finish()).expect("memory")
        }
        4 => zstd::encode_all(&*bytes, 1).expect("memory"),
        _ => bytes,
    };
    if how & 64 != 0 {
        let at = bytes.iter().fold(0, |sum, byte| sum * 31 % 65_521 + usize::from(*byte));
        let at = at % bytes.len().max(1);
        if how & 128 == 0 {
            bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (at % 8));
        } else {
            bytes.truncate(at);
        }
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
            assert!(Format::of_contents(&bytes[..bytes.len().min(FIRST)]).is_some_and(Format::is_supported));
        }
    });
}

#[cfg(test)]
mod tests;
