//! release.json: the record of a release.

use serde::{Deserialize, Serialize};

use crate::plan::Shape;
use crate::signature::SignedBy;
use crate::source::{Revision, Validator};
use crate::venv::{EnvironmentRecord, Identified};

/// release.json, for the app, for people and for the next run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// Format version of this file.
    pub version: u32,
    /// Hash of every input of the release; equal keys mean equal contents.
    pub key: String,
    /// Version of the podstrap that built it.
    pub podstrap: String,
    /// Build time in RFC 3339, UTC.
    pub built_at: String,
    pub source: SourceRecord,
    pub environment: Option<EnvironmentRecord>,
    /// Hash of the files outside the tree that its requirements name. If it differs, an equal key does
    /// not mean equal contents.
    pub elsewhere: String,
    /// Number of entries in the list of files.
    pub entries: u64,
    /// Files outside the tree that were read to know what they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<Identified>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SourceRecord {
    /// URL or path, without credentials.
    pub repo: String,
    #[serde(flatten)]
    pub revision: Revision,
    /// Options that decide the tree.
    pub shape: Shape,
    /// Who signed the commit or its tag, with --verify.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<SignedBy>,
    /// For a download without a pin: the validator of the next conditional request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validator: Option<Validator>,
    pub files: u64,
    pub bytes: u64,
}

pub const MANIFEST_VERSION: u32 = 7;

/// A complete release.
#[derive(Debug, Clone)]
pub struct Release {
    pub id: String,
    pub manifest: Manifest,
}

/// A manifest survives a round trip.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let Ok(manifest) = serde_json::from_slice::<Manifest>(data) else { return };
    let text = serde_json::to_vec(&manifest).expect("a manifest is JSON");
    let again: Manifest = serde_json::from_slice(&text).expect("it was just written");
    assert_eq!(format!("{again:?}"), format!("{manifest:?}"));
}
