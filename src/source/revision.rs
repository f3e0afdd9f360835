//! Which version of a source is meant.

/// What a digest begins with as a revision.
pub(crate) const SHA256: &str = "sha256:";

/// What the source is right now.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Revision {
    /// 40 hexadecimal digits of a commit, or `sha256:…` over a file or a local directory's contents.
    pub commit: String,
    /// The full name of the reference (`refs/heads/main`; `HEAD` where the remote does not tell
    /// which branch that is); none for a bare commit, a file or a directory.
    pub reference: Option<String>,
}

impl Revision {
    /// Of a file with this digest.
    pub(crate) fn of_file(sha256: &str) -> Self {
        Self { commit: format!("{SHA256}{sha256}"), reference: None }
    }
}

/// What a server says of a file's version (RFC 9110, 8.8).
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Validator {
    pub etag: Option<String>,
    pub last_modified: Option<String>,
}

/// What was there when the source was asked the last time.
#[derive(Debug, Clone)]
pub struct Known {
    pub revision: Revision,
    pub validator: Validator,
}
