//! The version of a source.

/// The prefix of a digest in a revision.
pub(crate) const SHA256: &str = "sha256:";

/// A version of a source.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Revision {
    /// The 40 hexadecimal digits of a commit, or `sha256:…` of a file or of a local directory's contents.
    pub commit: String,
    /// The full name of the reference (`refs/heads/main`; `HEAD` if the remote does not name its branch). `None`
    /// for a bare commit, a file or a directory.
    pub reference: Option<String>,
}

impl Revision {
    /// The revision of a file with this digest.
    pub(crate) fn of_file(sha256: &str) -> Self {
        Self { commit: format!("{SHA256}{sha256}"), reference: None }
    }
}

/// A server's validators of a file's version (RFC 9110, 8.8).
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Validator {
    pub etag: Option<String>,
    pub last_modified: Option<String>,
}

/// The result of the last resolve.
#[derive(Debug, Clone)]
pub struct Known {
    pub revision: Revision,
    pub validator: Validator,
}
