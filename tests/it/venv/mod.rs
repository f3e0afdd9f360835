//! The environment: its packages, its engine and its Python.

mod build;
mod errors;
mod fits;
mod inputs;
mod real;
