//! The environment: what is installed, by which engine, for which Python.

mod build;
mod errors;
mod fits;
mod inputs;
mod real;
