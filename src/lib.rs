//! podstrap: boots interpreted apps in Pods.
//!
//! The data flows source → venv → publish → unit; `docs/architecture.md` is the map.

pub mod cli;
pub mod command;
pub mod error;
pub mod http;
pub mod plan;
pub mod redact;
pub mod retry;
pub mod source;
pub mod telemetry;
pub mod unit;
pub mod venv;
