//! The control API of NGINX Unit and FreeUnit. `apply` is read first: wait, PUT, read back, prove.
//!
//! | file | what happens there |
//! |---|---|
//! | `apply` | the whole of it, with its tries |
//! | `sockets` | where the control socket usually is |
//! | `wait`, `listener`, `process` | wait for an answer; does the Unit that answers stay? |
//! | `channel` | one request over one connection |
//! | `setup` | files and directories that are to be applied |
//! | `store`, `chain` | certificates and modules, before the configuration that names them |
//! | `put`, `reply` | the configuration is sent; a refusal is put in words |
//! | `diagnose/` | a 500 without a reason: a file for each suspect |
//! | `readback`, `expected` | Unit shows the configuration, and goes on showing it |
//! | `prove`, `probe` | every application runs; a listener answers |
//! | `sidecar`, `status`, `entrypoint` | `podstrap sidecar`, `status`, `init --entrypoint-config` |
//! | `log`, `container_log` | Unit's log since a moment; the log that a hook writes to |
//!
//! There is never more than one request of ours at once: bursts have crashed Unit's controller.

mod apply;
mod chain;
mod channel;
mod client;
mod container_log;
mod deadline;
mod diagnose;
mod entrypoint;
mod expected;
mod listener;
mod log;
mod probe;
mod process;
mod prove;
mod put;
mod readback;
mod reply;
mod setup;
mod sidecar;
mod sockets;
mod status;
mod store;
mod trouble;
mod wait;

pub use apply::{Applied, apply};
pub use client::Client;
pub use container_log::container_log;
pub use entrypoint::place;
pub use probe::{Answer, first_answer, probe};
pub use readback::SETTLE;
pub use setup::{Part, Setup};
pub use sidecar::Sidecar;
pub use sockets::SOCKETS;
pub use status::{Status, status};

#[cfg(fuzzing)]
pub mod fuzzing {
    pub use super::chain::fuzz as chain;
    pub use super::reply::fuzz as replies;
}
