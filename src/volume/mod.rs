//! Build beside, then switch: the shared volume shows the old complete state or the new one.
//!
//! ```text
//! <root>/.podstrap/lock                      held while anything below is changed; never deleted
//! <root>/.podstrap/staging/<random>/         garbage to whoever holds the lock
//! <root>/.podstrap/releases/<id>/            tree/, release.json and files, a list; appears whole, by one rename
//! <root>/.podstrap/current -> releases/<id>  the switch, without --link
//! <root>/<entry> -> .podstrap/current/tree/<entry>
//! <root>/NAME -> .podstrap/releases/<id>/tree  the switch, with --link NAME
//! ```
//!
//! That a release directory exists *is* its completeness marker. Links are relative, so the volume
//! may be mounted anywhere, also by a subPath that goes through one of them. Several inits may
//! share a root under different links; a release stays as long as any link names it.
//!
//! Who may write to the root may use what is in `.podstrap` as well (the group of an fsGroup, say):
//! podstrap's own directories and the lock have the root's write bits, its setgid and sticky bit.
//!
//! | Killed while | the next run finds |
//! |---|---|
//! | building in staging | the old state; staging is cleared |
//! | renaming the release into place | no release, or a whole one that is reused |
//! | adding top-level links | links that dangle until the switch |
//! | switching | old or new |
//! | dropping old links and releases | the rest is tidied |

mod layout;
mod manifest;
mod release;
mod retain;
mod root;
mod switch;
mod usage;

pub use manifest::{MANIFEST_VERSION, Manifest, Release, SourceRecord};
pub use release::Staging;
pub use root::Volume;
pub use usage::{Meter, Usage};

#[cfg(fuzzing)]
pub use manifest::fuzz;
