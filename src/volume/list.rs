//! The list of a release's entries, in a file next to its tree.
//!
//! For each entry below the tree: its name, NUL, the size of a regular file in bytes or nothing, NUL. A `~` before the
//! size marks a file with holes.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::usage::Occupied;
use crate::walk::walk;

/// One entry of the list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listed<'a> {
    /// Its path in the tree.
    pub(super) name: &'a OsStr,
    /// Bytes of a regular file.
    pub(super) size: Option<u64>,
    /// The file had holes from the start.
    pub(super) is_sparse: bool,
}

/// A tree in which nothing changes any more.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// The text of the list.
    pub(super) text: Vec<u8>,
    pub(super) entries: u64,
    pub(super) occupied: Occupied,
}

/// Walks the tree of a release, the only time.
pub(super) fn measure(tree: &Path) -> io::Result<Measured> {
    let mut measured = Measured::default();
    for entry in walk(tree) {
        let entry = entry?;
        let stat = entry.stat()?;
        measured.occupied.add(&stat);
        if entry.is_root() {
            continue;
        }
        measured.entries += 1;
        measured.text.extend(entry.name.as_os_str().as_bytes());
        measured.text.push(0);
        if entry.is_file() {
            if stat.st_blocks.saturating_mul(512) < stat.st_size {
                measured.text.push(b'~');
            }
            measured.text.extend(stat.st_size.to_string().bytes());
        }
        measured.text.push(0);
    }
    Ok(measured)
}

/// Reads a list. `None` if it does not have so many entries: the end of the file is lost.
pub(super) fn read(text: &[u8], entries: u64) -> Option<Vec<Listed<'_>>> {
    let mut parts = text.strip_suffix(&[0]).into_iter().flat_map(|text| text.split(|byte| *byte == 0));
    let mut listed = Vec::new();
    while let (Some(name), Some(size)) = (parts.next(), parts.next()) {
        let (is_sparse, size) = size.strip_prefix(b"~").map_or((false, size), |size| (true, size));
        let size = if size.is_empty() { None } else { Some(std::str::from_utf8(size).ok()?.parse().ok()?) };
        listed.push(Listed { name: OsStr::from_bytes(name), size, is_sparse });
    }
    (listed.len() as u64 == entries).then_some(listed)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_list_that_was_cut_off_is_no_list() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/new\nline"), "123").unwrap();
        symlink("a", dir.path().join("link")).unwrap();
        fs::File::create(dir.path().join("sparse")).unwrap().set_len(1 << 20).unwrap();
        let measured = measure(dir.path()).unwrap();
        assert_eq!(measured.entries, 4);
        let listed = read(&measured.text, 4).unwrap();
        let seen = |entry: &Listed| (entry.name.to_str().unwrap().to_owned(), entry.size, entry.is_sparse);
        let wanted = [
            ("a", None, false),
            ("a/new\nline", Some(3), false),
            ("link", None, false),
            ("sparse", Some(1 << 20), true),
        ];
        assert_eq!(
            listed.iter().map(seen).collect::<Vec<_>>(),
            wanted.map(|(name, size, sparse)| (name.to_owned(), size, sparse))
        );
        for end in 0..measured.text.len() {
            assert_eq!(read(&measured.text[..end], 4), None, "{end}");
        }
        assert_eq!(read(b"", 0), Some(Vec::new()));
    }
}
