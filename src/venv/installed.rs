//! What release.json tells of an environment.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Toolchain;
use crate::plan::AppTarget;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EnvironmentRecord {
    /// Hash of everything that decided the environment's contents; equal keys need no new one.
    pub key: String,
    /// What the files looked like when it was ready: another one, and somebody changed them.
    pub fingerprint: String,
    /// Relative to the tree.
    pub venv: PathBuf,
    pub final_path: PathBuf,
    /// `3.13.1`; `3.13` of another Python than the one that built it.
    pub python: String,
    /// The interpreter that `bin/python` leads to.
    pub python_path: PathBuf,
    /// What it was said to be for.
    pub target: AppTarget,
    /// `uv 0.13.9`
    pub engine: String,
    pub toolchain: Toolchain,
    pub packages: Vec<Distribution>,
}

/// An installed distribution, as release.json tells of it:
///
/// ```json
/// {"name": "Flask", "version": "3.1.2", "contents": "sha256:6a1c…",
///  "source": {"url": "https://host/flask-3.1.2-py3-none-any.whl", "hash": "sha256:bf65…"}}
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    pub name: String,
    pub version: String,
    /// Hash over the paths and hashes of its files, by its RECORD and without what an installer adds:
    /// the same whether uv or pip installed it.
    pub contents: String,
    /// Where it came from, if the engine tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Origin>,
}

/// Where a distribution came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Of an archive, a repository or a directory, without credentials; of what was in the tree, as the app
    /// sees it.
    pub url: String,
    /// `sha256:…` of the archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Of a repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// It is read from there whenever the app starts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub editable: bool,
}
