//! Why podstrap does not use an entry of a store.

use crate::error::Error;

/// Why an entry cannot be used.
#[derive(Debug)]
pub(super) enum Unusable {
    /// It is not what it claims to be.
    Damaged(Error),
    /// A newer podstrap saved it, in a format that this one cannot read.
    Newer(Error),
    /// The store or the volume failed, or was too slow.
    Failed(Error),
}

impl From<Error> for Unusable {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Unusable {
    pub(super) fn damaged(why: impl Into<String>) -> Self {
        Self::Damaged(Error::volume("the archive is damaged").because(why.into()))
    }

    /// The archive has another length than its manifest says.
    pub(super) fn length(found: u64, wanted: u64) -> Self {
        Self::damaged(format!("it has {found} bytes instead of {wanted}"))
    }

    pub(super) fn within(self, part: &str) -> Self {
        match self {
            Self::Damaged(error) => Self::Damaged(error.within(part)),
            Self::Newer(error) => Self::Newer(error.within(part)),
            Self::Failed(error) => Self::Failed(error.within(part)),
        }
    }

    pub(super) fn error(self) -> Error {
        let (Self::Damaged(error) | Self::Newer(error) | Self::Failed(error)) = self;
        error
    }
}
