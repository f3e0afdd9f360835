//! The language of Unit's configuration: parsing, and finding parts of it. Does not contact Unit.
//!
//! | file | content |
//! |---|---|
//! | `file` | reading a configuration file |
//! | `json` | Unit's JSON, with positions |
//! | `dialect` | a configuration as a value, and the comparison of two |
//! | `position` | lines and columns, and a line with a caret |
//! | `places` | the offset of a name, a string or a JSON Pointer in a text |
//! | `applications` | applications, listeners and the targets of `pass` |
//! | `segments` | paths of names: `applications/a%2Fb` |
//! | `address` | socket addresses |
//! | `language` | an application's `type` |
//! | `canary` | a second copy of a configuration beside the one that serves |
//! | `localize` | mapping paths of the app's container to this machine |

pub mod address;
pub mod applications;
pub mod canary;
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
