//! The integration tests: one binary, a module for each part of the data flow.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

mod binary;
mod check;
mod checkout;
mod cli;
mod compare;
mod concurrent;
mod containers;
mod crash;
mod docs;
mod download;
mod faults;
mod fits;
mod hostile;
mod inputs;
mod layers;
mod network;
mod private;
mod processes;
mod proxy;
mod real;
mod rerun;
mod restricted;
mod secrets;
mod source;
mod ssh;
mod submodules;
mod unit;
mod up;
mod venv;
mod volume;
