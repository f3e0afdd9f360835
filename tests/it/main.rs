//! The integration tests, one binary: a directory for each part of the flow, and what all stand on.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

mod cli;
mod source;
mod unit;
mod venv;
mod volume;

mod docs;
mod layers;
