//! Files of a repository in the syntax of Git's configuration. libgit2 reads them.

use std::path::Path;

use git2::{Config, ConfigLevel};

use crate::error::{Error, IoContext, Result};

/// The most bytes of such a file: the parser needs many times as much.
const LARGEST: usize = 1 << 20;

/// The entries of the file `name` in their order: `section.key` or `section.name.key`, with the section and the key in
/// lower case. Reads the text by way of a file in `scratch`.
pub(crate) fn entries(name: &str, text: &[u8], scratch: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let unreadable = || Error::source(format!("cannot read {name} of the repository"));
    if text.len() > LARGEST {
        return Err(unreadable().because(format!("it has {} bytes, and the limit is {LARGEST}", text.len())));
    }
    // libgit2 would open the included files.
    let includes = text.split(|byte| *byte == b'[').skip(1).any(|section| {
        let name = section.trim_ascii_start();
        name.get(..7).is_some_and(|start| start.eq_ignore_ascii_case(b"include"))
    });
    if includes {
        return Err(unreadable().because("it includes other files, which Git does not allow there"));
    }
    let path = scratch.join("config-of-repository");
    std::fs::write(&path, text).on_volume(|| format!("cannot write {}", path.display()))?;
    let parsed = parse(&path).map_err(|error| unreadable().because(error.message()));
    std::fs::remove_file(&path).on_volume(|| format!("cannot remove {}", path.display()))?;
    parsed
}

fn parse(path: &Path) -> Result<Vec<(String, Vec<u8>)>, git2::Error> {
    let mut config = Config::new()?;
    config.add_file(path, ConfigLevel::Local, false)?;
    let (mut entries, mut found) = (config.entries(None)?, Vec::new());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let value = if entry.has_value() { entry.value_bytes() } else { b"" };
        found.push((String::from_utf8_lossy(entry.name_bytes()).into_owned(), value.to_owned()));
    }
    Ok(found)
}
