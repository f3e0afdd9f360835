//! A Git repository behind SSH.
//!
//! | file | |
//! |---|---|
//! | `known_hosts` | which keys a host may show |
//! | `host_key` | what becomes of the key that it shows |
//! | connection | a connection to a host that is known |
//! | login | which key opens the account |
//! | session | the command that sends references and a pack |

mod connection;
mod host_key;
mod known_hosts;
mod login;
mod session;

pub(crate) use session::{Session, list};

#[cfg(fuzzing)]
pub use known_hosts::fuzz as known_hosts;
#[cfg(fuzzing)]
pub use login::fuzz as private_key;
