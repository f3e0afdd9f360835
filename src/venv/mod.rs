//! interpreter → environment → installed, relocated, compiled, verified.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::plan;
use crate::retry::Deadline;

/// What an environment is built with, as far as it is known without starting anything: enough to
/// tell whether a kept environment still fits. Serialized into the release's key.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Toolchain {
    pub python: Stamp,
    pub engine: EngineKind,
    /// The uv binary, or none for pip, which belongs to the interpreter.
    pub uv: Option<Stamp>,
}

/// A file as it is recognized without being read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Stamp {
    pub path: PathBuf,
    pub size: u64,
    /// Nanoseconds since the epoch.
    pub mtime: i128,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    Uv,
    Pip,
}

/// What to install, all of it resolved: absolute paths of files that exist.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    pub packages: Vec<String>,
    pub requirements: Vec<PathBuf>,
    pub constraints: Vec<PathBuf>,
    /// Take the newest versions allowed, past every cache.
    pub refresh: bool,
}

/// An environment as it was built.
#[derive(Debug)]
pub struct Built {
    /// `3.13.1`
    pub python_version: String,
    /// `uv 0.13.9`, `pip 24.2`
    pub engine: String,
    pub distributions: Vec<Distribution>,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Distribution {
    pub name: String,
    pub version: String,
}

/// Finds the interpreter and the engine without starting either where that can be avoided.
pub async fn locate(
    _python: &plan::PythonRequest,
    _engine: &plan::EngineRequest,
    _deadline: Deadline,
) -> Result<Toolchain> {
    todo!()
}

/// An environment under construction at a path that is not its last.
#[derive(Debug)]
pub struct Builder {}

impl Builder {
    /// Creates an empty environment at `dir` (absolute, not existing yet), which is to be used at
    /// `final_path`. `scratch` is an existing directory for temporary files (TMPDIR, NETRC);
    /// `cache` is where an engine may keep downloads for the next run on this volume.
    pub async fn create(
        _toolchain: &Toolchain,
        _dir: &Path,
        _final_path: &Path,
        _scratch: &Path,
        _cache: &Path,
        _deadline: Deadline,
    ) -> Result<Self> {
        todo!()
    }

    /// Installs into it. `cwd` is the tree, which relative paths in requirements files refer to.
    pub async fn install(&self, _inputs: &Inputs, _cwd: Option<&Path>, _deadline: Deadline) -> Result<()> {
        todo!()
    }

    /// Makes it right for its final path, compiles the bytecode and verifies that every file the
    /// records name is there.
    pub async fn finish(self, _deadline: Deadline) -> Result<Built> {
        todo!()
    }
}

/// Whether installing these must wait for the checkout, because a file or path in the tree is
/// named.
pub fn needs_tree(_plan: &plan::Environment) -> bool {
    todo!()
}
