//! Validates the configuration as `nxt_conf_validation.c` of Unit 1.35 does.
//!
//! Unlike Unit, it reports all errors, each with its place.

mod application;
mod members;
mod placeholders;
mod routing;
mod strings;
mod text;
mod walk;

use super::finding::Finding;
use super::schema::{self, OBJECT};
use crate::config::json::Document;
use walk::Validator;

/// Validates a whole configuration.
pub fn validate(document: &Document) -> Vec<Finding> {
    let mut walk = Validator { document, path: Vec::new(), later: Vec::new(), findings: Vec::new() };
    let root = document.root();
    if walk.is("the configuration", root, OBJECT) {
        walk.object(root, &schema::ROOT);
        while let Some((id, path)) = walk.later.pop() {
            walk.path = path;
            walk.action(id);
        }
        walk.path.clear();
        walk.listeners_clash();
    }
    let complained = walk.findings.iter().map(|finding| finding.offset).collect();
    walk.templates(root, false, &complained);
    walk.findings
}
