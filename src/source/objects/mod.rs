//! Objects of a repository on this machine, and libgit2, which keeps them.

mod repository;
pub(crate) mod transport;

pub(crate) use repository::{create, failure, fetch_local, open_local};
pub(crate) use transport::MAX_OBJECT;
