//! Builds an environment: create, install, relocate, compile, verify.
//!
//! podstrap builds at a path that no process uses. Python's `venv` creates the environment, and uv or pip installs the
//! packages. podstrap then checks them against their records, changes the build path to the final path and compiles
//! the bytecode. [`Settings`] has the user's settings for the indexes.

mod app;
mod builder;
mod child;
mod compile;
mod consistency;
mod contents;
mod elf;
mod engine;
mod explain;
mod fit;
mod identity;
mod inputs;
mod installed;
mod interpreter;
mod key;
mod lock;
mod origin;
mod pipconf;
mod provision;
mod pyproject;
mod python;
mod reach;
mod record;
mod relocate;
mod requirements;
mod reuse;
mod settings;
mod toolchain;

pub use self::builder::{BuildDirs, Builder, Built};
pub use self::inputs::Inputs;
pub use self::installed::{Distribution, DistributionOrigin, EnvironmentRecord};
pub use self::provision::{Begun, Filled, Provided, Provision};

pub use self::identity::{Identified, Identities};
pub use self::settings::Settings;
pub use self::toolchain::{Toolchain, locate};
#[cfg(fuzzing)]
pub mod fuzzing {
    pub use super::elf::fuzz as elf;
    pub use super::explain::fuzz as explain;
    pub use super::origin::fuzz as origin;
    pub use super::pipconf::fuzz as pipconf;
    pub use super::pyproject::fuzz as pyproject;
    pub use super::record::fuzz as record;
    pub use super::relocate::fuzz as relocate;
    pub use super::requirements::fuzz as requirements;
}
