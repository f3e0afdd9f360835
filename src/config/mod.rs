//! Unit's configuration as a language: how a text is read, and how to find things in it. Nothing here
//! speaks to a Unit.
//!
//! | file | what it knows |
//! |---|---|
//! | `file` | a configuration's file, and why it cannot be read |
//! | `json` | Unit's JSON, with positions |
//! | `dialect` | a configuration as a value, and whether two are the same |
//! | `position` | lines and columns, and the line with a caret |
//! | `places` | where a name, a string or a JSON Pointer stands in a text |
//! | `applications` | applications, listeners and the destinations of a `pass` |
//! | `segments` | paths of names: `applications/a%2Fb` |
//! | `address` | addresses of sockets |
//! | `language` | an application's `type` |
//! | `localize` | paths of the app's container on this machine |

pub mod address;
pub mod applications;
pub mod dialect;
mod file;
pub mod json;
pub mod language;
pub mod localize;
pub mod places;
pub mod position;
pub mod segments;

pub use file::{Config, read_config};

#[cfg(fuzzing)]
pub mod fuzzing {
    pub use super::dialect::fuzz as dialect;
}
