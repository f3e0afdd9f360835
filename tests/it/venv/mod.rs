//! The environment: its packages, its engine and its Python.

mod build;
mod errors;
mod fits;
mod flat;
mod inputs;
mod real;
mod steps;
mod vcs;
