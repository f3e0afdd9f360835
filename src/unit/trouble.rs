//! The failures of a request to Unit.

use crate::error::Error;

/// The reason why a request failed.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The connection was cut: Unit may or may not have processed the request. Holds the details.
    Cut(String),
    Failed(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}
