//! Where podstrap publishes a tree.

use std::path::PathBuf;

/// Where podstrap publishes the tree.
#[derive(Debug, Clone)]
pub struct Target {
    /// The shared volume, absolute.
    pub root: PathBuf,
    /// `Some(NAME)` publishes at `<root>/NAME`, `None` puts the entries into the root itself.
    pub link: Option<String>,
    /// Whether releases must be on disk before they are published.
    pub durable: bool,
}

impl Target {
    /// The path of the tree in any container that mounts the volume at the same path.
    pub fn public(&self) -> PathBuf {
        match &self.link {
            Some(link) => self.root.join(link),
            None => self.root.clone(),
        }
    }
}
