//! Commits, tags and directories, as Git stores them.

use git2::Oid;

/// An entry of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) id: Oid,
    pub(crate) kind: FileKind,
}

/// The kind of an entry in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    Directory,
    /// Becomes an empty directory.
    Submodule,
    Link,
    Regular {
        executable: bool,
    },
}

impl FileKind {
    /// The kind of a mode in a directory, as Git reads it: any other mode is a submodule (cache.h, `canon_mode`).
    fn of(mode: u32) -> Self {
        match mode & 0o170_000 {
            0o040_000 => Self::Directory,
            0o120_000 => Self::Link,
            0o100_000 => Self::Regular { executable: mode & 0o100 != 0 },
            _ => Self::Submodule,
        }
    }
}

impl<'a> Entry<'a> {
    /// Takes the first entry of a directory, which must not be empty. `None` if it is damaged.
    pub(crate) fn take(directory: &mut &'a [u8]) -> Option<Self> {
        let (mode, rest) = cut(directory, b' ')?;
        let mode = std::str::from_utf8(mode).ok().filter(|mode| !mode.starts_with('+'))?;
        let mode = u32::from_str_radix(mode, 8).ok()?;
        let (name, rest) = cut(rest, 0)?;
        let (id, rest) = rest.split_at_checked(20)?;
        *directory = rest;
        Some(Self { name, id: Oid::from_bytes(id).ok()?, kind: FileKind::of(mode) })
    }

    /// All entries of a directory. The last one is `None` if the directory is damaged there.
    pub(crate) fn all(mut directory: &'a [u8]) -> impl Iterator<Item = Option<Self>> {
        std::iter::from_fn(move || {
            (!directory.is_empty()).then(|| {
                let entry = Self::take(&mut directory);
                if entry.is_none() {
                    directory = &[];
                }
                entry
            })
        })
    }
}

/// The directory of a commit, and its time in seconds since 1970. `None` if the commit is damaged.
pub(crate) fn commit(contents: &[u8]) -> Option<(Oid, i64)> {
    Some((id(field(contents, b"tree ")?)?, field(contents, b"committer ").map_or(0, time)))
}

/// The seconds in a committer's or a tagger's line, which follow its address. A commit without them is usable too: 0.
pub(crate) fn time(committer: &[u8]) -> i64 {
    let after = committer.rsplit(|byte| *byte == b'>').next().unwrap_or_default().trim_ascii_start();
    let seconds = after.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    std::str::from_utf8(seconds).ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(0)
}

/// The object of an annotated tag. `None` if the tag is damaged.
pub(crate) fn tag(contents: &[u8]) -> Option<Oid> {
    id(field(contents, b"object ")?)
}

/// The value of a field in the header, which ends with an empty line.
pub(crate) fn field<'a>(contents: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let lines = contents.split(|byte| *byte == b'\n');
    lines.take_while(|line| !line.is_empty()).find_map(|line| line.strip_prefix(name))
}

fn id(digits: &[u8]) -> Option<Oid> {
    let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.len() == 40)?;
    Oid::from_str(digits).ok()
}

/// Cuts at the first byte of that value.
fn cut(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == at)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_git_stores_them() {
        let id = Oid::from_bytes(&[7; 20]).unwrap();
        let stored =
            [b"100755 run\0".as_slice(), &[7; 20], b"40000 a b\0", &[7; 20], b"160000 lib\0", &[7; 20]].concat();
        let mut rest = &stored[..];
        for (name, kind) in [
            (&b"run"[..], FileKind::Regular { executable: true }),
            (b"a b", FileKind::Directory),
            (b"lib", FileKind::Submodule),
        ] {
            assert_eq!(Entry::take(&mut rest), Some(Entry { name, id, kind }));
        }
        assert!(rest.is_empty());
        assert_eq!(Entry::all(&stored).count(), 3);
        assert_eq!(Entry::all(&stored[..40]).map(|entry| entry.is_some()).collect::<Vec<_>>(), [true, false]);
        for damaged in
            [&b"100644 a\x00123"[..], b"x a\0aaaaaaaaaaaaaaaaaaaa", b"+7 a\0aaaaaaaaaaaaaaaaaaaa", b"100644", b"1 a"]
        {
            assert_eq!(Entry::take(&mut &damaged[..]), None, "{}", damaged.escape_ascii());
        }
    }

    #[test]
    fn a_commit_names_its_directory_and_its_time() {
        let tree = "1".repeat(40);
        let text = |committer: &str| {
            format!("tree {tree}\nparent {tree}\nauthor A <a> 5 +0000\n{committer}\n\ncommitter B <b> 9 +0000\n")
        };
        let read = |text: &str| commit(text.as_bytes()).map(|(_, time)| time);
        for (committer, time) in [
            ("committer A b <a@b> 1700000000 +0100", 1_700_000_000),
            ("committer A <a> -5 +0000", -5),
            ("committer A 5 <a@b>  17 -07:00 x", 17),
            ("committer A <a@b> 1700000000", 1_700_000_000),
            ("committer A <a@b>", 0),
            ("committer A <a> x +0000", 0),
            ("encoding x", 0),
        ] {
            assert_eq!(read(&text(committer)), Some(time), "{committer}");
        }
        assert_eq!(read(""), None);
        assert_eq!(read("tree 12\n"), None);
        assert_eq!(tag(format!("object {tree}\ntype commit\ntag v1\n").as_bytes()), id(tree.as_bytes()));
        assert_eq!(tag(b"object 12\ntype commit\n"), None);
    }
}
