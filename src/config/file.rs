//! Reading a configuration's file.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::position::without_bom;
use crate::error::{Error, Result};

/// A configuration and the name that messages give it.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it came from, for `file:line:column`.
    pub path: PathBuf,
    /// Sent verbatim.
    pub bytes: Vec<u8>,
}

/// Reads the configuration file; a missing, empty or unreadable one is a usage error.
pub fn read_config(path: &Path) -> Result<Config> {
    let shown = path.display();
    let bytes = std::fs::read(path).map_err(|error| {
        let made = Error::usage(format!("cannot read the configuration {shown}"));
        match error.kind() {
            ErrorKind::NotFound => {
                made.because(error).hint("is the ConfigMap or volume mounted there, in this container?")
            }
            ErrorKind::IsADirectory => made.because("it is a directory").hint(format!(
                "name the file in it: {}; a missing subPath also becomes a directory",
                path.join("unit.json").display()
            )),
            ErrorKind::PermissionDenied => made.because(error).hint(format!(
                "podstrap runs as uid {}: give the file to it, or widen the volume's defaultMode",
                rustix::process::geteuid().as_raw()
            )),
            _ => made.because(error),
        }
    })?;
    if without_bom(&bytes).trim_ascii().is_empty() {
        return Err(Error::usage(format!("the configuration {shown} is empty"))
            .hint("the least that Unit accepts is {}; has a template or a ConfigMap key come out empty?"));
    }
    Ok(Config { path: path.to_owned(), bytes })
}
