//! The control API of NGINX Unit and FreeUnit. Start with `apply`: wait, PUT, read back, prove.
//!
//! | file | content |
//! |---|---|
//! | `apply` | all steps in order, with retries |
//! | `sockets` | the usual paths of the control socket |
//! | `client`, `deadline`, `trouble` | paths and times of the machine; texts and types of failures |
//! | `wait`, `listener`, `process` | wait for an answer; tell the final Unit from a temporary one |
//! | `channel` | one request over one connection |
//! | `setup` | the files and directories to apply |
//! | `store`, `chain` | certificates and modules, uploaded before the configuration |
//! | `put`, `reply` | send the configuration; explain a refusal |
//! | `diagnose/` | find the cause of a 500 without a reason: one file for each possible cause |
//! | `readback`, `expected` | verify that Unit has the configuration and keeps it |
//! | `prove`, `probe` | verify that every application runs and a listener answers |
//! | `canary` | try a setup beside the one that serves |
//! | `sidecar`, `status`, `entrypoint` | `podstrap sidecar`, `status`, `init --entrypoint-dir` |
//! | `log`, `container_log` | Unit's log since a moment; the log of a hook |
//!
//! podstrap sends one request at a time: bursts have crashed Unit's controller.

mod apply;
mod canary;
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

pub use apply::{Applied, apply, run};
pub use client::Client;
pub use container_log::container_log;
pub use entrypoint::{place, placeable};
pub use probe::{Answer, first_answer, probe};
pub use readback::SETTLE;
pub use setup::{Part, Setup};
pub use sidecar::{Reader, Seen, Sidecar, Told};
pub use sockets::SOCKETS;
pub use status::{UnitStatus, status};

#[cfg(fuzzing)]
pub mod fuzzing {
    pub use super::chain::fuzz as chain;
    pub use super::reply::fuzz as replies;
}
