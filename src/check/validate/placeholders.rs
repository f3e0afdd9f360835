//! Finds the placeholders of unrendered templates.

use std::collections::HashSet;

use super::walk::{Validator, lossy};
use crate::check::finding::Finding;
use crate::config::json::{Id, Node};

impl Validator<'_> {
    /// Warns of each placeholder without another finding.
    pub fn templates(&mut self, id: Id, variables: bool, complained: &HashSet<usize>) {
        let found = |walk: &mut Self, at: usize, text: &[u8], variables: bool| {
            let text = lossy(text);
            if unrendered(&text, !variables) && !complained.contains(&at) {
                walk.add(Finding::warning("template", at, "this looks like an unrendered template")).hint =
                    text.contains("${").then(|| "Unit supports variables only for requests, not here".to_owned());
            }
        };
        match self.document.node(id) {
            Node::String(text) => found(self, self.start(id), text, variables),
            Node::Array(_) => self.each(id, |walk, value| walk.templates(value, variables, complained)),
            Node::Object(_) => self.each_member(id, |walk, member| {
                found(walk, member.at, &member.name, false);
                // Unit's own variables, such as ${uri}, are valid in these members.
                let own = ["pass", "share", "chroot", "rewrite", "location", "response_headers", "format", "if"];
                let variables = variables || own.iter().any(|name| name.as_bytes() == member.name);
                walk.templates(member.value, variables, complained);
            }),
            _ => {}
        }
    }
}

/// Whether the text has `{{ value }}`, or, with `braces`, `${value}`.
pub fn unrendered(text: &str, braces: bool) -> bool {
    let encloses = |open: &str, close: &str| text.split_once(open).is_some_and(|(_, rest)| rest.contains(close));
    encloses("{{", "}}") || (braces && encloses("${", "}"))
}
