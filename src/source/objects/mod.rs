//! Git objects on this machine, stored by libgit2.

mod repository;
pub(crate) mod transport;

pub(crate) use repository::{create, failure, fetch_local, open_local};
pub(crate) use transport::MAX_OBJECT;
