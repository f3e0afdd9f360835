//! Checks that podstrap opens, lists and inspects files of others only through `src/files.rs`.
//!
//! A repository, a package or a neighbour on the volume may put a named pipe, a device or an unreadable file at any
//! path. Every other way to open or inspect a path needs a reason below.

use std::collections::BTreeSet;

use regex::Regex;

use super::layers::Sources;

/// The ways around `files`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// Opens, copies, lists or removes whatever is at a path.
    Opens,
    /// Asks whether something is at a path, and takes an unreadable path for a missing one.
    Asks,
    /// Asks for the metadata of a path.
    Metadata,
}

impl Way {
    fn pattern(self) -> &'static str {
        match self {
            Self::Opens => {
                r"\b(?:fs::(?:read|read_to_string|copy|read_dir|remove_dir_all)\b|File::(?:open|create|options)\b|OpenOptions|tokio::fs)|\.read_dir\(\)"
            }
            Self::Asks => {
                r"(?:\b(?:path|dir|file|from|to|home|place|tree|root|lib)|[)\]?])\s*\.(?:is_file|is_dir|is_symlink)\(\)|\.(?:exists|try_exists)\(\)|\bfs::exists\b|canonicalize(?:\(\)|\([^()]*\))\s*\.(?:ok|is_ok_and|unwrap_or\w*)\("
            }
            Self::Metadata => r"\bfs::(?:symlink_)?metadata\b|\b(?:path|open)\.(?:symlink_)?metadata\(\)",
        }
    }
}

/// A file or directory in `src`, its way, and the reason.
const EXCEPTIONS: &[(&str, Way, &str)] = &[
    ("files.rs", Way::Opens, "it is the one place"),
    ("files.rs", Way::Metadata, "it is the one place"),
    ("archive/unpacker.rs", Way::Metadata, "an archive chose the name: the error names its entry"),
    ("confine.rs", Way::Opens, "gets handles that cannot read or write"),
    ("confine.rs", Way::Asks, "its caller holds the directory open"),
    ("reap.rs", Way::Opens, "reads /proc of its own process, and imports nothing"),
    ("reap.rs", Way::Asks, "the same"),
    ("selfcopy.rs", Way::Metadata, "the running binary is there"),
    ("source/directory.rs", Way::Metadata, "the user named the directory: every error is reported"),
    ("unit/container_log.rs", Way::Opens, "appends to the output of PID 1, which may be a pipe, without waiting"),
    ("unit/container_log.rs", Way::Metadata, "an unreadable file in /proc is another file"),
    ("unit/log.rs", Way::Metadata, "a log in /proc that cannot be read is unknown"),
    ("unit/sidecar.rs", Way::Metadata, "an unreadable socket is another one than a readable one"),
    ("unit/wait.rs", Way::Metadata, "explains why a connection failed"),
    ("venv/provision.rs", Way::Metadata, "the user named the directory: every error is reported"),
    ("venv/relocate.rs", Way::Metadata, "the file was just read: every error is reported"),
    ("venv/reuse.rs", Way::Opens, "copies between two directories of podstrap's own"),
    ("source/objects/", Way::Opens, "stores a pack in podstrap's own directory, and reads it"),
    ("source/lfs/", Way::Opens, "writes to podstrap's own directory"),
    ("source/download.rs", Way::Opens, "writes to podstrap's own directory"),
    ("walk.rs", Way::Metadata, "the entry was listed: every error is reported"),
];

#[test]
fn files_of_others_are_opened_and_inspected_in_one_place() {
    let (mut used, mut wrong) = (BTreeSet::new(), Vec::new());
    let texts = Sources::read().texts;
    for way in [Way::Opens, Way::Asks, Way::Metadata] {
        let pattern = Regex::new(way.pattern()).unwrap();
        // Directories and files of tests have no `cfg` of their own.
        for (file, code) in texts.iter().filter(|(file, _)| !file.contains("/test")) {
            for found in pattern.find_iter(code) {
                let exception = EXCEPTIONS.iter().find(|(at, of, _)| *of == way && file.starts_with(at));
                match exception {
                    Some((at, ..)) => drop(used.insert((*at, way))),
                    None => wrong.push(format!("src/{file} has `{}`", found.as_str())),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "use crate::files, or give a reason here:\n{}", wrong.join("\n"));
    for (at, way, reason) in EXCEPTIONS {
        assert!(used.contains(&(*at, *way)) && !reason.is_empty(), "the exception of {at} for {way:?} is not needed");
    }
}

#[test]
fn the_patterns_see_every_way() {
    let sees = |way: Way, code: &str| Regex::new(way.pattern()).unwrap().is_match(code);
    for code in ["std::fs::read(path)", "fs::copy(a, b)", "File::open(path)", "File::options()", "dir.read_dir()"] {
        assert!(sees(Way::Opens, code), "{code}");
    }
    for code in ["home.is_dir()", "tree.join(x).exists()", "Path::new(x).is_file()", "x.canonicalize().ok()"] {
        assert!(sees(Way::Asks, code), "{code}");
    }
    for code in ["files::read(path, 9)", "meta.is_dir()", "files::is_dir(path)", "entry.is_file()"] {
        assert!(!sees(Way::Opens, code) && !sees(Way::Asks, code), "{code}");
    }
    assert!(sees(Way::Metadata, "fs::symlink_metadata(x)") && !sees(Way::Metadata, "files::metadata(x)"));
}
