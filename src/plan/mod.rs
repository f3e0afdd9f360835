//! Turns what was typed into plans: absolute paths, validated names, deadlines. Does no I/O.

mod check;
mod environment;
mod follow;
mod init;
mod paths;
pub(crate) mod platform;
mod source;
mod ssh;
mod store;
mod target;
mod unit;
mod up;

pub use crate::cli::StoreAction;
pub use check::{Check, Tree};
pub use environment::{
    AppTarget, EngineRequest, Environment, Links, PythonRequest, Supply, Wanted, is_in_tree, remote,
};
pub use follow::{Follow, Keep, Order};
pub use init::{CopySelf, Entrypoint, Init};
pub(crate) use paths::normal;
pub use paths::{RESERVED, TreePath};
pub use platform::{Libc, Platform};
pub use source::{Download, GitSource, GitUrl, Origin, Shape, Source, Submodules, Unpack};
pub use ssh::{SSH_PORT, Ssh};
pub use store::{Location, Registry, SIZE_LIMIT, Shelves, Store};
pub use target::Target;
pub use unit::{Apply, Control, Sidecar, Status};
pub use up::Up;

/// Checks the properties of every topic for one text.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    paths::fuzz(text);
    init::fuzz(text);
    environment::fuzz(text);
    unit::fuzz(text);
    source::fuzz(text);
}

#[cfg(fuzzing)]
pub use ssh::fuzz as ssh_address;
