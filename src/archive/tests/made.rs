//! Archives, built byte by byte.

use ::tar::{EntryType, Header};

use super::*;

/// A tar of raw headers.
#[derive(Default)]
pub(super) struct Tar(pub(super) Vec<u8>);

impl Tar {
    pub(super) fn entry(mut self, kind: u8, name: &[u8], link: &[u8], contents: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
        header.set_entry_type(EntryType::new(kind));
        header.set_mode(0o644);
        header.set_mtime(1_600_000_000);
        header.set_size(contents.len() as u64);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(contents);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }
    pub(super) fn file(self, name: &str, contents: &str) -> Self {
        self.entry(b'0', name.as_bytes(), b"", contents.as_bytes())
    }
    pub(super) fn link(self, name: &str, target: &str) -> Self {
        self.entry(b'2', name.as_bytes(), target.as_bytes(), b"")
    }
    pub(super) fn directory(self, name: &str) -> Self {
        self.entry(b'5', name.as_bytes(), b"", b"")
    }
    pub(super) fn hard(self, name: &str, to: &str) -> Self {
        self.entry(b'1', name.as_bytes(), to.as_bytes(), b"")
    }
    pub(super) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.records(b'x', records)
    }
    pub(super) fn records(self, kind: u8, records: &[(&str, &[u8])]) -> Self {
        let mut bytes = Vec::new();
        for (keyword, value) in records {
            let rest = keyword.len() + value.len() + 3;
            let length = (1..9).map(|digits| digits + rest).find(|length| length.to_string().len() + rest == *length);
            bytes.extend(format!("{} {keyword}=", length.unwrap()).into_bytes());
            bytes.extend(*value);
            bytes.push(b'\n');
        }
        self.entry(kind, b"records", b"", &bytes)
    }
    pub(super) fn done(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

pub(super) fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut packed = ::bzip2::write::BzEncoder::new(Vec::new(), ::bzip2::Compression::best());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

pub(super) fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut packed = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

/// With a checksum, as the tool adds one.
pub(super) fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut packed = ::zstd::Encoder::new(Vec::new(), 3).unwrap();
    packed.include_checksum(true).unwrap();
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

/// A compression of tars.
pub(super) struct Compression {
    /// Its name in messages.
    pub(super) shown: &'static str,
    pub(super) pack: fn(&[u8]) -> Vec<u8>,
    /// The error for other data after the end, if it is one.
    pub(super) garbage: Option<&'static str>,
    /// The same for zeros.
    pub(super) zeros: Option<&'static str>,
}

const UNKNOWN: Option<&str> = Some("Unknown frame descriptor");

/// Every compression of tars.
pub(super) const COMPRESSIONS: [Compression; 4] = [
    Compression { shown: "gzip-compressed", pack: gzip, garbage: None, zeros: None },
    Compression { shown: "bzip2-compressed", pack: bzip2, garbage: None, zeros: None },
    Compression { shown: "xz-compressed", pack: xz, garbage: Some("invalid data after stream"), zeros: None },
    Compression { shown: "zstd-compressed", pack: zstd, garbage: UNKNOWN, zeros: UNKNOWN },
];

/// An entry of a zip, as its headers describe it.
#[derive(Clone)]
pub(super) struct Member<'a> {
    pub(super) name: &'a [u8],
    pub(super) contents: &'a [u8],
    pub(super) system: u8,
    pub(super) mode: u32,
    pub(super) flags: u16,
    /// The declared size, if it is another one.
    pub(super) size: Option<u32>,
    pub(super) crc: u32,
    pub(super) method: u16,
    pub(super) extra: &'a [u8],
}

impl<'a> Member<'a> {
    pub(super) fn new(name: &'a [u8], contents: &'a [u8]) -> Self {
        let mut crc = flate2::Crc::new();
        crc.update(contents);
        let (system, mode) = (3, 0o100_644);
        Self { name, contents, system, mode, flags: 0, size: None, crc: crc.sum(), method: 8, extra: b"" }
    }
    pub(super) fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }
    pub(super) fn dos(self) -> Self {
        Self { system: 0, ..self }
    }
}

pub(super) fn zip(members: &[Member<'_>]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for member in members {
        let mut packed = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(member.contents).unwrap();
        let packed = if member.method == 0 { member.contents.to_owned() } else { packed.finish().unwrap() };
        let mut common = Vec::new();
        // 2020-02-03 04:05:06.
        for word in [20, member.flags, member.method, 4 << 11 | 5 << 5 | 3, 40 << 9 | 2 << 5 | 3] {
            common.extend(word.to_le_bytes());
        }
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
        for number in [member.crc, length(&packed), member.size.unwrap_or(length(member.contents))] {
            common.extend(number.to_le_bytes());
        }
        let at = length(&bytes);
        for number in [length(member.name), length(member.extra)] {
            common.extend(u16::try_from(number).unwrap().to_le_bytes());
        }
        bytes.extend([&b"PK\x03\x04"[..], &common, member.name, member.extra, &packed].concat());
        directory.extend([&b"PK\x01\x02"[..], &[20, member.system], &common, &[0; 6]].concat());
        directory.extend((member.mode << 16).to_le_bytes());
        directory.extend(at.to_le_bytes());
        directory.extend([member.name, member.extra].concat());
    }
    let (start, count) = (u32::try_from(bytes.len()).unwrap(), u16::try_from(members.len()).unwrap().to_le_bytes());
    let length = u32::try_from(directory.len()).unwrap().to_le_bytes();
    bytes.extend(directory);
    bytes.extend([&b"PK\x05\x06\0\0\0\0"[..], &count, &count, &length, &start.to_le_bytes(), &[0, 0]].concat());
    bytes
}
