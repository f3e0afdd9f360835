//! Checks the static files: each `share` of the routes.

use super::files::There;
use super::look::{Look, Named};
use crate::check::finding;
use crate::config::json::{Id, Node};

impl Look<'_> {
    /// Checks every `share`, at any depth of the routes.
    pub fn shares(&mut self, routes: Id) {
        let mut left = vec![(routes, "/routes".to_owned())];
        while let Some((id, pointer)) = left.pop() {
            match self.document.node(id) {
                Node::Array(values) => {
                    left.extend(values.iter().enumerate().map(|(i, id)| (*id, format!("{pointer}/{i}"))));
                }
                Node::Object(members) => left.extend(members.iter().map(|found| {
                    let name = String::from_utf8_lossy(&found.name);
                    (found.value, format!("{pointer}{}", finding::pointer([&*name])))
                })),
                Node::String(_) => self.share(id, pointer),
                _ => {}
            }
        }
    }

    fn share(&mut self, id: Id, pointer: String) {
        let end = pointer.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('/');
        if !pointer.ends_with("/share") && !end.ends_with("/share") {
            return;
        }
        let Some(text) = self.document.string(id) else { return };
        let named = Named { at: self.document.span(id).start, pointer, text };
        // With a variable, check only the directory before it.
        match named.text.split_once(['$', '`']) {
            None => {
                let wanted = if named.text.ends_with('/') { There::Directory } else { There::File };
                self.expect("share", &named, &named.text, wanted, false);
            }
            Some((fixed, variable)) => {
                // The path of a request starts with a slash, so the fixed part is a whole directory.
                let path =
                    ["uri", "{uri}", "request_uri", "{request_uri}"].iter().any(|name| variable.starts_with(name));
                let directory = if path { fixed } else { fixed.rfind('/').map_or("", |at| &fixed[..at]) };
                if !directory.is_empty() {
                    self.expect("share", &named, directory, There::Directory, false);
                }
            }
        }
    }
}
