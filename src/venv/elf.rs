//! Reads the machine and the C library that a program or a library needs, from its headers.

use std::io;
use std::path::Path;

use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{Endianness, ReadCache, ReadRef, elf};

use crate::files;
use crate::plan::Libc;

/// The needs of an ELF file. `None` is unknown and fits everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Elf {
    /// `e_machine`.
    pub(super) machine: Option<u16>,
    /// 32 or 64.
    pub(super) bits: Option<u8>,
    pub(super) libc: Option<Libc>,
}

impl Elf {
    /// Whether a program with the format `program` can load it.
    pub(super) fn fits(self, program: Self) -> bool {
        fn agree<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
            one.zip(other).is_none_or(|(one, other)| one == other)
        }
        agree(self.machine, program.machine) && agree(self.bits, program.bits) && agree(self.libc, program.libc)
    }
}

/// Reads the headers of a file. `None` for a file that is missing, not ELF, or broken.
///
/// # Errors
/// The system cannot open it.
pub(super) fn read(path: &Path) -> io::Result<Option<Elf>> {
    Ok(files::unless_absent(files::open(path))?.and_then(|file| parse(&ReadCache::new(file))))
}

/// What the linker left in a program or a library of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Links {
    /// The names of the libraries that it loads.
    pub(super) needed: Vec<String>,
    /// Where they are looked for first: `$ORIGIN` is the file's own directory.
    pub(super) run_path: Vec<String>,
    /// The program that loads it: a part of the C library.
    pub(super) loader: Option<String>,
    /// The GNU build ID: the same contents, the same ID.
    pub(super) build_id: Option<Vec<u8>>,
}

/// The dynamic section of a file. None: it is missing, no ELF file, or a broken one.
///
/// # Errors
/// The system cannot open it.
pub(super) fn links(path: &Path) -> io::Result<Option<Links>> {
    Ok(files::unless_absent(files::open(path))?.and_then(|file| parse_links(&ReadCache::new(file))))
}

fn parse_links<'data, R: ReadRef<'data>>(data: R) -> Option<Links> {
    links_of::<elf::FileHeader64<Endianness>, R>(data).or_else(|| links_of::<elf::FileHeader32<Endianness>, R>(data))
}

fn links_of<'data, H: FileHeader<Endian = Endianness>, R: ReadRef<'data>>(data: R) -> Option<Links> {
    let header = H::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, data).ok()?;
    let strings = |tag| -> Vec<String> {
        let found = dynamic_strings(segments, endian, data, |found| found == tag).unwrap_or_default();
        found.into_iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    };
    let run_path = [strings(elf::DT_RUNPATH), strings(elf::DT_RPATH)].concat();
    let loader = segments.iter().find_map(|segment| segment.interpreter(endian, data).ok()?);
    Some(Links {
        needed: strings(elf::DT_NEEDED),
        loader: loader.map(|path| String::from_utf8_lossy(path).into_owned()),
        run_path: run_path.iter().flat_map(|path| path.split(':')).map(str::to_owned).collect(),
        build_id: segments.iter().find_map(|segment| {
            let mut notes = segment.notes(endian, data).ok()??;
            while let Ok(Some(note)) = notes.next() {
                if note.name() == elf::ELF_NOTE_GNU && note.n_type(endian) == elf::NT_GNU_BUILD_ID {
                    return Some(note.desc().to_owned());
                }
            }
            None
        }),
    })
}

fn parse<'data, R: ReadRef<'data>>(data: R) -> Option<Elf> {
    headers::<elf::FileHeader64<Endianness>, R>(data, 64)
        .or_else(|| headers::<elf::FileHeader32<Endianness>, R>(data, 32))
}

fn headers<'data, H: FileHeader<Endian = Endianness>, R: ReadRef<'data>>(data: R, bits: u8) -> Option<Elf> {
    let header = H::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, data).ok()?;
    let loader = segments.iter().find_map(|segment| segment.interpreter(endian, data).ok()?);
    let needed = || {
        let names = dynamic_strings(segments, endian, data, |tag| tag == elf::DT_NEEDED)?;
        names.into_iter().find_map(libc_of_name)
    };
    let libc = loader.and_then(libc_of_loader).or_else(needed);
    Some(Elf { machine: Some(header.e_machine(endian).0), bits: Some(bits), libc })
}

/// The strings that entries of the dynamic section name.
fn dynamic_strings<'data, P: ProgramHeader<Endian = Endianness>, R: ReadRef<'data>>(
    segments: &'data [P],
    endian: Endianness,
    data: R,
    wanted: impl Fn(elf::DynamicTag) -> bool,
) -> Option<Vec<&'data [u8]>> {
    let entries = segments.iter().find_map(|segment| segment.dynamic(endian, data).ok()?)?;
    let value = |entry: &<P::Elf as FileHeader>::Dyn| -> u64 { entry.d_val(endian).into() };
    let strings = value(entries.iter().find(|entry| entry.d_tag(endian) == elf::DT_STRTAB)?);
    // The address of the table is one in memory: convert it to an offset in the file.
    let at = segments.iter().filter(|segment| segment.p_type(endian) == elf::PT_LOAD).find_map(|segment| {
        let (start, size): (u64, u64) = (segment.p_vaddr(endian).into(), segment.p_filesz(endian).into());
        let inside = strings.checked_sub(start).filter(|inside| *inside < size)?;
        segment.p_offset(endian).into().checked_add(inside)
    })?;
    let end = data.len().ok()?;
    let named = entries.iter().filter(|entry| wanted(entry.d_tag(endian)));
    let text = |entry| {
        let start = at.checked_add(value(entry)).filter(|start| *start < end)?;
        data.read_bytes_at_until(start..end, 0).ok()
    };
    Some(named.filter_map(text).collect())
}

/// The soname of glibc, of Alpine's musl, and of musl.
fn libc_of_name(name: &[u8]) -> Option<Libc> {
    match name {
        b"libc.so.6" => Some(Libc::Glibc),
        b"libc.so" => Some(Libc::Musl),
        name if name.starts_with(b"libc.musl-") => Some(Libc::Musl),
        _ => None,
    }
}

/// `/lib/ld-musl-x86_64.so.1`, `/lib64/ld-linux-x86-64.so.2`, `/lib/ld64.so.1`.
fn libc_of_loader(path: &[u8]) -> Option<Libc> {
    let name = path.rsplit(|byte| *byte == b'/').next()?;
    if name.starts_with(b"ld-musl") {
        return Some(Libc::Musl);
    }
    (name.starts_with(b"ld-linux") || name.starts_with(b"ld64.so") || name.starts_with(b"ld.so")).then_some(Libc::Glibc)
}

/// Any bytes parse without a read past their end, and only an ELF file is accepted.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let _ = parse_links(data);
    if let Some(found) = parse(data) {
        assert!(found.fits(found) && data.starts_with(b"\x7fELF"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_and_its_library_are_for_the_same_machine() {
        // The interpreter is dynamic even where this test is not.
        let python = std::env::var_os("PATH")
            .and_then(|path| {
                std::env::split_paths(&path)
                    .map(|dir| dir.join("env"))
                    .find_map(|file| read(&file.canonicalize().ok()?).unwrap())
            })
            .unwrap();
        assert!(python.machine.is_some() && python.libc.is_some(), "{python:?}");
        assert!(python.fits(python));
        assert!(!python.fits(Elf { machine: Some(1), ..python }));
        let other = if python.libc == Some(Libc::Musl) { Libc::Glibc } else { Libc::Musl };
        assert!(!python.fits(Elf { libc: Some(other), ..python }));
        assert!(Elf::default().fits(python));
    }

    #[test]
    fn a_library_tells_by_what_it_needs() {
        let glibc: &[u8] = include_bytes!("../../fuzz/corpus/elf/glibc");
        assert_eq!(parse(glibc), Some(Elf { machine: Some(62), bits: Some(64), libc: Some(Libc::Glibc) }));
        let musl: Vec<u8> = glibc[..glibc.len() - 11].iter().copied().chain(*b"\0libc.so\0\0\0").collect();
        assert_eq!(parse(musl.as_slice()).unwrap().libc, Some(Libc::Musl));
        assert_eq!(parse_links(glibc).unwrap().needed, ["libc.so.6"]);
        // `e_machine` of 64-bit Arm.
        let arm = [&glibc[..18], &[183, 0], &glibc[20..]].concat();
        let found = parse(arm.as_slice()).unwrap();
        assert_eq!(found, Elf { machine: Some(183), bits: Some(64), libc: Some(Libc::Glibc) });
        assert!(!found.fits(parse(glibc).unwrap()));
    }

    #[test]
    fn a_loader_tells_the_c_library_of_each_processor() {
        for (path, libc) in [
            ("/lib64/ld-linux-x86-64.so.2", Libc::Glibc),
            ("/lib/ld-linux-aarch64.so.1", Libc::Glibc),
            ("/lib/ld-linux-armhf.so.3", Libc::Glibc),
            ("/lib64/ld64.so.2", Libc::Glibc),
            ("/lib/ld-musl-x86_64.so.1", Libc::Musl),
            ("/lib/ld-musl-aarch64.so.1", Libc::Musl),
        ] {
            assert_eq!(libc_of_loader(path.as_bytes()), Some(libc), "{path}");
        }
    }

    #[test]
    fn what_is_no_elf_file_is_none() {
        for bytes in [&b""[..], b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF\x02\x01\x01"] {
            assert_eq!(parse(bytes), None);
        }
    }
}
