//! The part of a pack that has arrived. Git sends a directory before its files, so files can be written while the rest is
//! on its way.

use std::collections::HashMap;

use git2::{ObjectType, Oid};

/// The commits, tags, directories and first files of a pack that arrives.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    pub(super) numbers: HashMap<Oid, u32>,
    /// By the objects' numbers in the pack.
    pub(super) kept: HashMap<u32, (ObjectType, Vec<u8>)>,
}

impl Arrived {
    /// The kind and the contents of an object, if it is here.
    pub(crate) fn get(&self, id: Oid) -> Option<(ObjectType, &[u8])> {
        self.kept.get(self.numbers.get(&id)?).map(|(kind, contents)| (*kind, contents.as_slice()))
    }

    #[cfg(test)]
    pub(crate) fn add(&mut self, id: Oid, kind: ObjectType, contents: &[u8]) {
        let number = u32::try_from(self.kept.len()).unwrap();
        self.numbers.insert(id, number);
        self.kept.insert(number, (kind, contents.to_owned()));
    }
}

/// Uses objects while their pack arrives.
pub(crate) trait Taker: Send {
    /// A commit, a tag or a directory is here.
    fn note(&mut self, id: Oid, arrived: &Arrived);

    /// A file is here. Returns its contents if somebody else may have a use for them.
    fn take(&mut self, id: Oid, contents: Vec<u8>) -> Option<Vec<u8>>;
}
