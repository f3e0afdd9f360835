//! The shared volume: podstrap builds a release next to the published one, then switches to it.
//!
//! ```text
//! <root>/.podstrap/lock                      held during every change below; never deleted
//! <root>/.podstrap/follow.json               what a sidecar that follows a branch remembers
//! <root>/.podstrap/staging/<random>/         whoever holds the lock may delete it
//! <root>/.podstrap/releases/<id>/            tree/, release.json, a list of files and the boot; one rename creates it
//! <root>/.podstrap/current -> releases/<id>  the switch, without --link
//! <root>/<entry> -> .podstrap/current/tree/<entry>
//! <root>/NAME -> .podstrap/releases/<id>/tree  the switch, with --link NAME
//! ```
//!
//! A release directory is complete if it exists. Links are relative, so the volume can be mounted
//! anywhere, even by a subPath that goes through one of them. Several inits may share a root under
//! different links. A release stays while a link names it.
//!
//! A power cut is another matter: see `disk.rs`.
//!
//! Only podstrap's user can write below `.podstrap` and open staging, whatever the root's mode. podstrap refuses a
//! `.podstrap` of another user; see `owner.rs`.
//!
//! | step | if killed during it, the next run finds |
//! |---|---|
//! | lock: create the directories, empty staging | the old release; it empties staging |
//! | prepare: build in staging | the old release; it empties staging |
//! | prepare: rename the release into place | no release, or a complete one, which it reuses |
//! | switch: add top-level links | dangling links until the switch |
//! | switch: rename the link | the old or the new release |
//! | switch: remove links of deleted entries | leftover links, which it removes |
//! | retain: move old releases to staging, delete them | old releases, which it removes |

mod disk;
mod key;
mod layout;
mod list;
mod manifest;
mod notes;
mod owner;
mod release;
mod retain;
mod root;
mod switch;
mod usage;

pub use key::{CopyKey, EnvironmentKey, Key, StepsKey};
pub use manifest::{MANIFEST_VERSION, Manifest, Release, SourceRecord};
pub use notes::Notes;
pub use release::Staging;
pub use root::Volume;
pub use usage::{Meter, Usage};

#[cfg(fuzzing)]
pub use manifest::fuzz;
