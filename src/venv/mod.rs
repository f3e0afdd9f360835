//! Builds the virtual environment of a release: interpreter, installation, relocation, bytecode, verification.
//!
//! podstrap builds at a path that no process uses. Python's `venv` creates the environment, and uv or pip installs the
//! packages. podstrap then checks them against their records, changes the build path to the final path and compiles
//! the bytecode.
//!
//! | file | purpose |
//! |---|---|
//! | `provision`, `builder` | the steps of a run; the steps of one environment |
//! | `inputs`, `form`, `requirements/`, `pyproject`, `lock` | the files that list packages, and their parsers |
//! | `key`, `contents`, `identity` | the environment's key: flags and tools, contents of files, identities of files |
//! | `reach`, `repositories` | builds and Git repositories that the inputs request |
//! | `engine`, `settings/`, `pipconf`, `explain/`, `child` | calls of uv and pip, their settings, their failures |
//! | `interpreter`, `toolchain`, `python`, `app` | the Python that builds, and the Python that runs the app |
//! | `record`, `consistency`, `fit`, `elf` | verification of the result |
//! | `leak` | searches the result for secrets |
//! | `relocate`, `compile`, `reuse` | final path; bytecode; environments of earlier releases |
//! | `forecast` | what an installation would add, without installing |
//! | `installed`, `origin` | the record in release.json; the origin of each package |

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
mod forecast;
mod form;
mod identity;
mod inputs;
mod installed;
mod interpreter;
mod key;
mod leak;
mod lock;
mod origin;
mod pipconf;
mod provision;
mod pyproject;
mod python;
mod reach;
mod record;
mod relocate;
mod repositories;
mod requirements;
mod reuse;
mod settings;
mod toolchain;

pub use self::builder::{BuildDirs, Builder, Built};
pub use self::forecast::{Forecast, Planned};
pub use self::identity::{Identified, Identities};
pub use self::inputs::Inputs;
pub use self::leak::{is_in as has_secret, search as find_secrets};
pub use self::provision::{Begun, Filled, Provided, Provision};
pub use self::record::{Distribution, DistributionOrigin, EnvironmentRecord};
pub use self::relocate::{replace, scripts, with_other_path};
pub use self::settings::Settings;
pub use self::toolchain::{Toolchain, locate};

#[cfg(fuzzing)]
pub mod fuzzing {
    pub use super::elf::fuzz as elf;
    pub use super::explain::fuzz as explain;
    pub use super::installed::fuzz as record;
    pub use super::origin::fuzz as origin;
    pub use super::pipconf::fuzz as pipconf;
    pub use super::pyproject::fuzz as pyproject;
    pub use super::relocate::fuzz as relocate;
    pub use super::requirements::fuzz as requirements;
}
