//! The failures of a request to Unit.

use crate::error::{Error, Kind};

/// The reason why a request failed.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The connection was cut: Unit may or may not have processed the request. Holds the details.
    Cut(String),
    Failed(Error),
}

impl Trouble {
    /// The error if nobody tries again.
    pub(super) fn error(self) -> Error {
        match self {
            Self::Failed(error) => error,
            Self::Cut(how) => Error::new(Kind::UnitUnreachable, "lost the connection to Unit").because(how),
        }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}
