//! release.json: what is in a release.

use serde::{Deserialize, Serialize};

use crate::plan::Shape;
use crate::source::{Revision, Validator};
use crate::venv::EnvironmentRecord;

/// release.json: what is in the release, for the app, for people and for the next run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// The format of this file.
    pub version: u32,
    /// Hash of everything that decided the release's contents; equal keys need no new build.
    pub key: String,
    /// The podstrap that built it.
    pub podstrap: String,
    /// RFC 3339, UTC.
    pub built_at: String,
    pub source: SourceRecord,
    pub environment: Option<EnvironmentRecord>,
    /// Hash of what the tree's requirements lead to outside of it; another one, and the key is not enough.
    pub elsewhere: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SourceRecord {
    /// Without credentials.
    pub repo: String,
    #[serde(flatten)]
    pub revision: Revision,
    /// How much of it was taken, and how.
    pub shape: Shape,
    /// Of a file that is not pinned: what to ask with whether it is still the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validator: Option<Validator>,
    pub files: u64,
    pub bytes: u64,
}

pub const MANIFEST_VERSION: u32 = 6;

/// A complete release.
#[derive(Debug)]
pub struct Release {
    pub id: String,
    pub manifest: Manifest,
}

/// A manifest that can be read is written as it was.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let Ok(manifest) = serde_json::from_slice::<Manifest>(data) else { return };
    let text = serde_json::to_vec(&manifest).expect("a manifest is JSON");
    let again: Manifest = serde_json::from_slice(&text).expect("it was just written");
    assert_eq!(format!("{again:?}"), format!("{manifest:?}"));
}
