//! interpreter → environment → installed, relocated, compiled, verified.
//!
//! An environment is built at a path that nobody uses yet. Python's own `venv` makes it, uv or pip
//! fills it, and then it is checked against the records of what was installed, told its last path
//! and compiled. What the user's variables say about indexes comes in through [`Settings`].

mod app;
mod builder;
mod child;
mod compile;
mod consistency;
mod elf;
mod engine;
mod explain;
mod fit;
mod inputs;
mod installed;
mod interpreter;
mod lock;
mod origin;
mod pipconf;
mod provision;
mod pyproject;
mod python;
mod reach;
mod recipe;
mod record;
mod relocate;
mod requirements;
mod reuse;
mod settings;

use std::path::{Path, PathBuf};

pub use self::builder::{BuildDirs, Builder, Built};
pub use self::inputs::Inputs;
pub use self::installed::{Distribution, EnvironmentRecord, Origin};
pub use self::provision::{Begun, Filled, Provided, Provision};

pub use self::settings::Settings;
use crate::error::Result;
use crate::plan;
use crate::retry::Deadline;

/// What an environment is built with, as far as it is known without starting anything: enough to
/// tell whether a kept environment still fits. Serialized into the release's key.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Toolchain {
    pub python: Stamp,
    /// The uv binary, or none for pip, which belongs to the interpreter.
    pub uv: Option<Stamp>,
    /// uv was asked for: if it does not run, pip is no substitute.
    pub uv_required: bool,
}

impl Toolchain {
    /// The pips that the interpreter may find, by the names of their records: `pip-24.2.dist-info`. Where
    /// uv is there they do not matter.
    fn pips(&self) -> Vec<String> {
        let prefix = self.python.path.parent().and_then(Path::parent).filter(|_| self.uv.is_none());
        let entries = |dir: PathBuf| {
            let names = std::fs::read_dir(dir).into_iter().flatten().flatten();
            names.filter_map(|entry| entry.file_name().into_string().ok())
        };
        let mut pips = Vec::new();
        for lib in prefix.into_iter().flat_map(|prefix| [prefix.join("lib"), prefix.join("local/lib")]) {
            for python in entries(lib.clone()).filter(|name| name.starts_with("python3")) {
                for packages in ["site-packages", "dist-packages"] {
                    let here = entries(lib.join(&python).join(packages));
                    pips.extend(here.filter(|name| name.starts_with("pip-") && name.ends_with("-info")));
                }
            }
        }
        pips.sort();
        pips
    }
}

/// A file as it is recognized without being read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Stamp {
    pub path: PathBuf,
    pub size: u64,
    /// Nanoseconds since the epoch.
    pub mtime: i128,
}

/// Finds the interpreter and the engine without starting either where that can be avoided.
pub async fn locate(
    settings: &Settings,
    python: &plan::PythonRequest,
    engine: &plan::EngineRequest,
    deadline: Deadline,
) -> Result<Toolchain> {
    settings.check()?;
    let python = interpreter::locate(python, settings, deadline).await?;
    let uv = engine::locate_uv(engine, settings)?;
    let uv_asked = matches!(engine, plan::EngineRequest::Uv | plan::EngineRequest::UvAt(_));
    Ok(Toolchain { python, uv, uv_required: uv_asked })
}

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
