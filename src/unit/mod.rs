//! The control API of NGINX Unit and FreeUnit: wait, PUT, read back, explain.

use std::path::PathBuf;

use crate::error::Result;
use crate::plan::Control;
use crate::retry::Deadline;

/// A configuration and the name that messages give it.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it came from, for `file:line:column`.
    pub path: PathBuf,
    /// Sent verbatim.
    pub bytes: Vec<u8>,
}

/// What was proven.
#[derive(Debug)]
pub struct Applied {
    /// Where Unit answered.
    pub control: Control,
    /// `Unit/1.35.0`, from the Server header.
    pub server: String,
}

/// What a listener answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// At most 64 KiB of it.
    pub body: Vec<u8>,
}

/// Waits for the control socket, PUTs the configuration and reads it back.
pub async fn apply(_control: Option<&Control>, _config: &Config, _deadline: Deadline) -> Result<Applied> {
    todo!()
}

/// GETs `url` until it answers below 500 or the deadline passes.
pub async fn probe(_url: &reqwest::Url, _deadline: Deadline) -> Result<Answer> {
    todo!()
}

/// Reads the configuration file; a missing, empty or unreadable one is a usage error.
pub fn read_config(_path: &std::path::Path) -> Result<Config> {
    todo!()
}
pub mod dialect {
    pub fn to_value(_: &[u8]) -> Result<serde_json::Value, ()> {
        todo!()
    }
}
