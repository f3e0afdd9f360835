//! The integration tests, in one binary: a directory for each part of the flow, and shared helpers.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

mod cli;
mod source;
mod store;
mod unit;
mod venv;
mod volume;

mod docs;
mod layers;
mod opens;
