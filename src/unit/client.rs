//! The parts of the machine that the client of Unit depends on.

use std::path::PathBuf;
use std::time::Duration;

use super::readback::SETTLE;
use super::sockets::SOCKETS;
use crate::plan::Control;

/// Paths and times of the client. The default is those of the real machine; tests set others.
#[derive(Debug, Clone)]
pub struct Client {
    /// The sockets to try if the user gives no address.
    pub sockets: Vec<PathBuf>,
    /// The path of the process file system.
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
    /// The given address, or all usual ones.
    pub(super) fn controls(&self, control: Option<&Control>) -> Vec<Control> {
        match control {
            Some(control) => vec![control.clone()],
            None => self.sockets.iter().cloned().map(Control::Unix).collect(),
        }
    }
}
