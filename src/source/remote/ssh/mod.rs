//! A Git repository over SSH.
//!
//! | file | purpose |
//! |---|---|
//! | `known_hosts` | the keys that a host may show |
//! | `host_key` | verifies the key that it shows |
//! | connection | a connection to a known host |
//! | login | finds a key that opens the account |
//! | session | the command that sends references and a pack; other commands |

mod connection;
mod host_key;
mod known_hosts;
mod login;
mod session;

pub(crate) use session::{Session, list, output};

#[cfg(fuzzing)]
pub use known_hosts::fuzz as known_hosts;
#[cfg(fuzzing)]
pub use login::fuzz as private_key;
