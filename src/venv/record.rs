//! The record of an environment in release.json.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Toolchain;
use crate::plan::AppTarget;

/// The record of an environment in release.json.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EnvironmentRecord {
    /// Hash of everything that determined the environment's contents. An equal key needs no rebuild.
    pub key: String,
    /// Fingerprint of the files after the build. A different one means that they were changed.
    pub fingerprint: String,
    /// Relative to the tree.
    pub venv: PathBuf,
    pub final_path: PathBuf,
    /// `3.13.1`, or `3.13` if another Python built it.
    pub python: String,
    /// The interpreter that `bin/python` links to.
    pub python_path: PathBuf,
    /// The Python and platform of the app's image, if given.
    pub target: AppTarget,
    /// `uv 0.13.9`
    pub engine: String,
    pub toolchain: Toolchain,
    pub packages: Vec<Distribution>,
    /// What the store had, if podstrap restored the environment from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
}

impl EnvironmentRecord {
    /// A project whose code is imported from the tree, at the path that the links show.
    pub fn editable(&self) -> Option<&Distribution> {
        self.packages.iter().find(|package| package.source.as_ref().is_some_and(|source| source.editable))
    }
}

/// An installed distribution in release.json:
///
/// ```json
/// {"name": "Flask", "version": "3.1.2", "contents": "sha256:6a1c…",
///  "source": {"url": "https://host/flask-3.1.2-py3-none-any.whl", "hash": "sha256:bf65…"}}
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    pub name: String,
    pub version: String,
    /// Hash of the paths and hashes of its files in RECORD, without the files that an installer adds. The
    /// same with uv and pip.
    pub contents: String,
    /// Its origin, if the engine reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<DistributionOrigin>,
}

/// The origin of a distribution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DistributionOrigin {
    /// The URL of an archive, a repository or a directory, without credentials. For a path in the tree, the
    /// path in the app's container.
    pub url: String,
    /// `sha256:…`, only for an archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Only for a repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The app imports it from there at each start.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub editable: bool,
}
