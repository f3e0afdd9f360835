//! The key of a release: a hash of everything that determines its contents.

use std::path::Path;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::plan::Shape;
use crate::runtime::hex;

/// The inputs of a release. The hash covers their names and values as JSON.
#[derive(Debug, Serialize)]
pub struct Key<'a> {
    /// Version of the manifest, and so of this struct.
    pub version: u32,
    pub repo: String,
    pub shape: Shape,
    pub commit: &'a str,
    /// Only for a tree with a `.git`, which contains it.
    pub reference: Option<&'a str>,
    pub environment: Option<EnvironmentKey<'a>>,
    pub copy_self: Option<CopyKey<'a>>,
    /// Absent without commands, so that the key of other releases stays the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<StepsKey<'a>>,
}

/// The environment, as far as it is known without the tree.
#[derive(Debug, Serialize)]
pub struct EnvironmentKey<'a> {
    /// Whether to create an environment even if there is nothing to install.
    pub always: bool,
    pub venv: &'a Path,
    pub digest: String,
}

/// The build steps (`--run`).
#[derive(Debug, Serialize)]
pub struct StepsKey<'a> {
    pub commands: &'a [String],
    /// Hash of the variables that the commands see.
    pub variables: String,
}

/// podstrap's own binary in the tree (`--copy-self`).
#[derive(Debug, Serialize)]
pub struct CopyKey<'a> {
    pub path: &'a Path,
    pub podstrap: &'static str,
    /// Sizes of the copied files in bytes.
    pub sizes: Vec<u64>,
}

impl Key<'_> {
    /// 64 hexadecimal digits.
    ///
    /// # Errors
    /// A path is not UTF-8.
    pub fn hash(&self) -> Result<String> {
        let text =
            serde_json::to_vec(self).map_err(|error| Error::internal("cannot compute the key").because(error))?;
        Ok(hex(&Sha256::digest(text)))
    }
}
