//! The integration tests: one binary, a module for each part of the data flow.

mod support;

mod cli;
mod docs;
mod publish;
mod source;
mod unit;
mod up;
mod venv;
