//! How an exchange with Unit fails.

use crate::error::Error;

/// Why something was not done.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The connection was cut: what became of the request is unknown. Holds how.
    Cut(String),
    Failed(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}
