//! What is taken from the machine to reach a Unit.

use std::path::PathBuf;
use std::time::Duration;

use super::readback::SETTLE;
use super::sockets::SOCKETS;
use crate::plan::Control;

/// Where to look, and for how long; the default is the machine as it is.
#[derive(Debug, Clone)]
pub struct Client {
    /// What is looked at when no address is given.
    pub sockets: Vec<PathBuf>,
    /// The process file system.
    pub proc: PathBuf,
    /// See [`SETTLE`].
    pub settle: Duration,
}

impl Default for Client {
    fn default() -> Self {
        Self { sockets: SOCKETS.map(PathBuf::from).into(), proc: PathBuf::from("/proc"), settle: SETTLE }
    }
}

impl Client {
    /// The address that is given, or all usual ones.
    pub(super) fn controls(&self, control: Option<&Control>) -> Vec<Control> {
        match control {
            Some(control) => vec![control.clone()],
            None => self.sockets.iter().cloned().map(Control::Unix).collect(),
        }
    }
}
