//! The integration tests: one binary, a module for each part of the data flow.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

mod binary;
mod check;
mod cli;
mod concurrent;
mod crash;
mod docs;
mod faults;
mod hostile;
mod network;
mod processes;
mod publish;
mod rerun;
mod restricted;
mod secrets;
mod source;
mod unit;
mod up;
mod venv;
