//! Checks the files that a configuration names, in the tree as the app's container will see it.
//!
//! Runs no code of the tree.

mod applications;
mod files;
mod home;
mod look;
mod python;
mod search;
mod shares;
mod source;

use std::collections::HashSet;

use super::finding::{Finding, pointer};
use crate::config::json::Document;
use crate::plan::Tree;
use look::Look;

#[cfg(fuzzing)]
pub use source::fuzz as python_source;

/// Checks every application and static share.
pub fn look(document: &Document, tree: &Tree) -> Vec<Finding> {
    let mut look = Look {
        document,
        tree,
        mapping: None,
        pointer: String::new(),
        user: None,
        unreadable: HashSet::new(),
        findings: Vec::new(),
    };
    look.find_place();
    for (name, app) in look.applications() {
        look.pointer = pointer(["applications", &name]);
        look.application(app);
    }
    look.pointer.clear();
    look.user = None;
    if let Some(routes) = document.get(document.root(), "routes") {
        look.shares(routes);
    }
    look.findings
}
