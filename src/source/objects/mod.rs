//! Git objects on this machine.
//!
//! | file | purpose |
//! |---|---|
//! | transport, repository | libgit2's repositories |
//! | pack, delta | a pack that podstrap reads itself |
//! | arrived | the part of a pack that has arrived, and who uses it |
//! | entry | the contents of commits, tags and directories |
//! | store | the objects, wherever they are |

mod arrived;
mod delta;
mod entry;
mod pack;
mod repository;
mod store;
pub(crate) mod transport;

pub(crate) use arrived::{Arrived, Taker};
pub(crate) use entry::{Entry, FileKind, commit, field, tag, time};
#[cfg(fuzzing)]
pub use pack::fuzz;
pub(crate) use pack::receive;
pub(crate) use repository::{create, failure, fetch_local, index, open_local};
pub(crate) use store::{Contents, Fetched, Objects, Store};
pub(crate) use transport::MAX_OBJECT;
