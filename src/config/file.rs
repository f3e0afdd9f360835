//! Reads a configuration file.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::position::without_bom;
use crate::error::{Error, Kind, Result};
use crate::files::{self, WRITTEN};

/// Most names in a hint.
const NAMES: usize = 12;

/// The text of a configuration, and its path for messages.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file, for `file:line:column`.
    pub path: PathBuf,
    /// What Unit gets.
    pub bytes: Vec<u8>,
    /// What the user wrote, if podstrap derived `bytes` from it.
    written: Option<Vec<u8>>,
}

impl Config {
    /// A configuration that Unit gets unchanged.
    pub fn new(path: PathBuf, bytes: Vec<u8>) -> Self {
        Self { path, bytes, written: None }
    }

    /// Another text for Unit. Messages show places in the text of the user.
    #[must_use]
    pub fn derived(self, bytes: Vec<u8>) -> Self {
        let written = self.written.unwrap_or(self.bytes);
        Self { path: self.path, bytes, written: Some(written) }
    }

    /// The text of the user, for messages.
    pub fn written(&self) -> &[u8] {
        self.written.as_ref().unwrap_or(&self.bytes)
    }
}

/// The first few names in the directory of a missing file, without the kubelet's own (`..data`).
fn beside(path: &Path) -> Option<String> {
    let names = files::names(path.parent()?).ok()?;
    let mut names: Vec<_> =
        names.iter().map(|name| name.to_string_lossy()).filter(|name| !name.starts_with("..")).collect();
    names.truncate(NAMES);
    (!names.is_empty()).then(|| crate::redact::clean(&names.join(", ")))
}

/// Reads the configuration file.
///
/// # Errors
/// Usage: the file is missing, empty or unreadable.
pub fn read_config(path: &Path) -> Result<Config> {
    let shown = path.display();
    let bytes = files::read(path, WRITTEN).map_err(|error| {
        let made = files::unreadable(Kind::Usage, format!("cannot read the configuration {shown}"), &error);
        match error.kind() {
            ErrorKind::NotFound => made.hint(match beside(path) {
                Some(names) => format!("correct the path, or add the key to the ConfigMap: the directory has {names}"),
                None => "check that the ConfigMap or volume is mounted there in this container".to_owned(),
            }),
            ErrorKind::IsADirectory => made.hint(format!(
                "give the file in it: {}; a missing subPath also becomes a directory",
                path.join("unit.json").display()
            )),
            ErrorKind::PermissionDenied => made.hint(format!(
                "make it readable for podstrap's uid {}, for example with the volume's defaultMode",
                rustix::process::geteuid().as_raw()
            )),
            ErrorKind::InvalidInput => made.hint("give the file of the configuration"),
            _ => made,
        }
    })?;
    if without_bom(&bytes).trim_ascii().is_empty() {
        return Err(Error::usage(format!("the configuration {shown} is empty"))
            .hint("check the template or the ConfigMap key; the smallest configuration that Unit accepts is {}"));
    }
    Ok(Config::new(path.to_owned(), bytes))
}
