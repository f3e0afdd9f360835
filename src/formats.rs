//! The formats of archives: their names and their first bytes. No other file lists them.
//!
//! A name tells the URL of an archive from that of a Git repository. The first bytes decide how to read a file.

use std::path::Path;

use tar::Header;

/// Number of bytes that identify a format: a tar's first header.
pub(crate) const FIRST: usize = 512;
/// The first bytes of a member (RFC 1952, 2.3.1).
pub(crate) const GZIP: &[u8] = &[0x1f, 0x8b];
/// The first bytes of a stream, before its level.
pub(crate) const BZIP2: &[u8] = b"BZh";

/// The supported formats, for errors.
pub(crate) const SUPPORTED: &str = "a tar, a tar compressed with gzip, bzip2, xz or zstd, or a zip";
pub(crate) const HINT: &str = "give a .tar.gz, .tar.bz2, .tar.xz, .tar.zst, .tar or .zip, or publish the file itself with \
                               --file NAME";

/// A format that podstrap recognises.
#[derive(Debug)]
pub(crate) struct Format {
    pub(crate) reader: Reader,
    /// Completes "it is …".
    pub(crate) shown: &'static str,
    /// In lower case.
    suffixes: &'static [&'static str],
    /// Whether a file starts like this format. Gets [`FIRST`] bytes, or all of a shorter file.
    is: fn(&[u8]) -> bool,
}

/// How to read a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    Tar,
    Zip,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
    /// podstrap does not unpack it.
    None,
}

macro_rules! known {
    ($reader:ident, $shown:literal, [$($suffix:literal),*], $is:expr) => {
        Format { reader: Reader::$reader, shown: $shown, suffixes: &[$($suffix),*], is: $is }
    };
}

/// The names of compressed tars are those of GNU tar's --auto-compress, the first bytes those of file(1).
const FORMATS: &[Format] = &[
    known!(Gzip, "gzip-compressed", [".tar.gz", ".tgz"], |first| first.starts_with(GZIP)),
    known!(Bzip2, "bzip2-compressed", [".tar.bz2", ".tbz2", ".tbz", ".tb2", ".tz2"], is_bzip2),
    known!(Xz, "xz-compressed", [".tar.xz", ".txz"], |first| first.starts_with(b"\xfd7zXZ\0")),
    known!(Zstd, "zstd-compressed", [".tar.zst", ".tzst"], is_zstd),
    known!(Zip, "a zip", [".zip"], is_zip),
    known!(Tar, "a tar", [".tar"], is_tar),
    known!(None, "a 7z archive", [".7z"], |first| first.starts_with(b"7z\xbc\xaf\x27\x1c")),
    known!(None, "a RAR archive", [".rar"], |first| first.starts_with(b"Rar!\x1a\x07")),
    known!(None, "compressed with lzip", [".tar.lz"], |first| first.starts_with(b"LZIP")),
    known!(None, "compressed with lzma", [".tar.lzma", ".tlz"], is_lzma),
    known!(None, "compressed with compress", [".tar.z", ".taz"], |first| first.starts_with(b"\x1f\x9d")),
    known!(None, "compressed with lz4", [".tar.lz4"], |first| first.starts_with(b"\x04\x22\x4d\x18")),
    known!(None, "compressed with lzop", [".tar.lzo", ".tzo"], |first| first.starts_with(b"\x89LZO\0")),
    // Brotli has no first bytes of its own.
    known!(None, "compressed with brotli", [".tar.br"], |_| false),
    known!(None, "a cpio archive", [".cpio"], |first| {
        [b"070701", b"070702", b"070707"].iter().any(|magic| first.starts_with(*magic))
    }),
];

impl Format {
    /// The format of a file with these first bytes. [`FIRST`] of them are enough.
    pub(crate) fn of_contents(first: &[u8]) -> Option<&'static Self> {
        FORMATS.iter().find(|format| (format.is)(first))
    }

    /// The format of an archive with this name.
    pub(crate) fn of_name(path: &Path) -> Option<&'static Self> {
        let name = path.as_os_str().as_encoded_bytes().to_ascii_lowercase();
        FORMATS.iter().find(|format| format.suffixes.iter().any(|end| name.ends_with(end.as_bytes())))
    }

    pub(crate) fn is_supported(&self) -> bool {
        self.reader != Reader::None
    }
}

/// The level, and then the mark of a block or of the end.
fn is_bzip2(first: &[u8]) -> bool {
    let marks = [[0x31, 0x41, 0x59, 0x26, 0x53, 0x59], [0x17, 0x72, 0x45, 0x38, 0x50, 0x90]];
    match first.strip_prefix(BZIP2) {
        Some([b'1'..=b'9', rest @ ..]) => {
            marks.iter().any(|mark| mark.starts_with(&rest[..rest.len().min(mark.len())]))
        }
        _ => false,
    }
}

/// A frame, or a skippable one, with which pzstd starts (RFC 8878, 3.1).
fn is_zstd(first: &[u8]) -> bool {
    first.starts_with(b"\x28\xb5\x2f\xfd") || matches!(first, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// An entry, an archive without entries, and one that was prepared for a split but not split (APPNOTE 4.3.7,
/// 4.3.16, 8.5.4).
fn is_zip(first: &[u8]) -> bool {
    [b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"].iter().any(|magic| first.starts_with(*magic))
}

/// The usual properties, a dictionary of at least 64 KiB, and the highest byte of the size, which is known or not.
fn is_lzma(first: &[u8]) -> bool {
    first.starts_with(b"\x5d\0\0") && matches!(first.get(12), Some(0 | 0xff))
}

fn is_tar(first: &[u8]) -> bool {
    first.get(..FIRST).is_some_and(|block| is_tar_header(Header::from_byte_slice(block)))
}

/// Whether the checksum of a header is valid: the sum of all bytes, with spaces for those of the checksum
/// itself. A block of zeros is not a header.
pub(crate) fn is_tar_header(header: &Header) -> bool {
    let bytes = header.as_bytes();
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    let (before, after) = (sum(&bytes[..148]), sum(&bytes[156..]));
    before + after > 0 && header.cksum().ok() == Some(before + after + 8 * u32::from(b' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_name(name: &str) -> Option<Reader> {
        Format::of_name(Path::new(name)).map(|format| format.reader)
    }

    fn by_contents(first: &[u8]) -> Option<&'static str> {
        Format::of_contents(first).map(|format| format.shown)
    }

    #[test]
    fn a_name_tells_the_format() {
        for (name, reader) in [
            ("a.tar", Some(Reader::Tar)),
            ("a.tar.gz", Some(Reader::Gzip)),
            ("/x/A.TGZ", Some(Reader::Gzip)),
            ("a.tar.bz2", Some(Reader::Bzip2)),
            ("a.tbz2", Some(Reader::Bzip2)),
            ("a.Tar.Xz", Some(Reader::Xz)),
            ("a.txz", Some(Reader::Xz)),
            ("a.tar.zst", Some(Reader::Zstd)),
            ("a.tzst", Some(Reader::Zstd)),
            ("a.zip", Some(Reader::Zip)),
            ("a.7z", Some(Reader::None)),
            ("a.rar", Some(Reader::None)),
            ("a.tar.Z", Some(Reader::None)),
            ("a.tar.lz", Some(Reader::None)),
            ("a.tar.lzma", Some(Reader::None)),
            ("a.tar.lz4", Some(Reader::None)),
            ("a.tar.br", Some(Reader::None)),
            // A compressed file, but no archive by its name.
            ("a.gz", None),
            ("a.sql.xz", None),
            ("star", None),
            ("a.tar.gz.asc", None),
            ("a.git", None),
        ] {
            assert_eq!(by_name(name), reader, "{name}");
        }
    }

    #[test]
    fn the_first_bytes_tell_the_format() {
        for (first, shown) in [
            (&b"\x1f\x8b\x08"[..], Some("gzip-compressed")),
            (b"BZh91AY&SY...", Some("bzip2-compressed")),
            (b"BZh1\x17\x72\x45\x38\x50\x90\0\0\0\0", Some("bzip2-compressed")),
            (b"BZh91A", Some("bzip2-compressed")),
            (b"BZh", None),
            (b"BZh0", None),
            (b"BZh9 is a text", None),
            (b"\xfd7zXZ\0\0\x04", Some("xz-compressed")),
            (b"\xfd7zXZ", None),
            (b"\x28\xb5\x2f\xfd", Some("zstd-compressed")),
            (b"\x50\x2a\x4d\x18\x04\0\0\0", Some("zstd-compressed")),
            (b"\x60\x2a\x4d\x18\x04\0\0\0", None),
            (b"PK\x03\x04", Some("a zip")),
            (b"7z\xbc\xaf\x27\x1c", Some("a 7z archive")),
            (b"Rar!\x1a\x07\x01\0", Some("a RAR archive")),
            (b"LZIP\x01", Some("compressed with lzip")),
            (b"\x1f\x9d\x90", Some("compressed with compress")),
            (b"\x04\x22\x4d\x18", Some("compressed with lz4")),
            (b"\x89LZO\0\r\n\x1a\n", Some("compressed with lzop")),
            (b"\x5d\0\0\x80\0\xff\xff\xff\xff\xff\xff\xff\xff\0", Some("compressed with lzma")),
            (b"\x5d\0\0 text that starts so", None),
            (b"070701", Some("a cpio archive")),
            (b"", None),
            (b"#!/usr/bin/env python3\n", None),
            (&[0; FIRST], None),
        ] {
            assert_eq!(by_contents(first), shown, "{}", first.escape_ascii());
        }
        let mut header = Header::new_gnu();
        header.set_cksum();
        assert_eq!(by_contents(header.as_bytes()), Some("a tar"));
        assert_eq!(by_contents(&header.as_bytes()[..FIRST - 1]), None);
    }

    #[test]
    fn the_documentation_has_every_suffix() {
        let sources = include_str!("../docs/sources.md");
        let short = [include_str!("../docs/cli.md"), HINT];
        for format in FORMATS {
            for suffix in format.suffixes {
                let named = if *suffix == ".tar.z" { ".tar.Z" } else { suffix };
                assert!(sources.contains(&format!("`{named}`")), "{named}");
            }
            for text in short.iter().filter(|_| format.is_supported()) {
                let end = format.suffixes[0].trim_start_matches(".tar").trim_start_matches('.');
                assert!(text.contains(end), "{end}");
            }
        }
    }
}
