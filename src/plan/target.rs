//! Where a tree is published.

use std::path::PathBuf;

/// Where the tree is published.
#[derive(Debug, Clone)]
pub struct Target {
    /// The shared volume, absolute.
    pub root: PathBuf,
    /// `Some(NAME)`: at `<root>/NAME`; None: its entries in the root itself.
    pub link: Option<String>,
}

impl Target {
    /// The path under which the app finds the tree when it mounts the volume at the same place.
    pub fn public(&self) -> PathBuf {
        match &self.link {
            Some(link) => self.root.join(link),
            None => self.root.clone(),
        }
    }
}
