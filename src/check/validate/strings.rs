//! Validates strings with their own syntax: addresses, variables, patterns, MIME types.

use std::collections::HashMap;

use super::placeholders::unrendered;
use super::text::{self, Variable};
use super::walk::{Validator, lossy};
use crate::check::finding::Finding;
use crate::check::schema::{self, OBJECT, STRING};
use crate::check::spelling::meant;
use crate::config::address::Address;
use crate::config::json::{Field, Id};
use crate::config::segments;

impl Validator<'_> {
    pub fn address(&mut self, what: &str, at: usize, text: &[u8]) {
        if Address::read(text).is_some() {
            return;
        }
        let hint = match lossy(text) {
            text if unrendered(&text, true) => {
                "render the template first: the file still has its placeholders".to_owned()
            }
            _ => "use *:PORT, IP:PORT, [IPv6]:PORT or unix:PATH; Unit does not accept host names".to_owned(),
        };
        let message = format!("\"{}\" is not a valid address for a {what}", lossy(text));
        self.refuse("address", at, message).hint = Some(hint);
    }

    pub fn variables(&mut self, id: Id) {
        if let Some(text) = self.document.bytes(id) {
            self.variables_of(self.start(id), text);
        }
    }

    pub fn variables_of(&mut self, at: usize, text: &[u8]) {
        if text::is_script(text) {
            self.add(Finding::warning("build", at, "a Unit without njs refuses this script"));
            return;
        }
        match text::variables(text) {
            Ok(()) => {}
            Err(Variable::Malformed) => {
                let message = format!("{} has a $ that does not start a variable", self.subject());
                self.refuse("variable", at, message).hint =
                    Some("write a variable as $name or ${name}, and a $ as ${dollar}".to_owned());
            }
            Err(Variable::Unknown(name)) => {
                let hint = match meant(&name, text::VARIABLES) {
                    Some(meant) => format!("did you mean ${meant}?"),
                    None => {
                        "use a variable of Unit, or header_NAME, response_header_NAME, arg_NAME, cookie_NAME; if this \
                             is a placeholder, render the template first"
                            .to_owned()
                    }
                };
                self.refuse("variable", at, format!("Unit has no variable ${name}")).hint = Some(hint);
            }
        }
    }

    pub fn pattern(&mut self, id: Id) {
        if let Err(what) = text::pattern(self.bytes(id)) {
            self.refuse("pattern", self.start(id), what);
        }
    }

    pub fn encoded_pattern(&mut self, id: Id) {
        self.pattern(id);
        if segments::decode_uri(self.bytes(id)).is_none() {
            self.refuse("pattern", self.start(id), "it has a % that does not begin an escape").hint =
                Some("write a % as %25".to_owned());
        }
    }

    pub fn pattern_sets(&mut self, id: Id, mut look: impl FnMut(&mut Self, &Field)) {
        self.each(id, |walk, value| {
            if walk.is("each value", value, OBJECT) {
                walk.each_member(value, |walk, found| {
                    if found.name.is_empty() {
                        walk.refuse("value", found.at, "a name must not be empty");
                    }
                    look(walk, found);
                });
            }
        });
    }

    pub fn mime_types(&mut self, id: Id) {
        let mut seen: HashMap<Vec<u8>, String> = HashMap::new();
        self.each_member(id, |walk, found| {
            if !walk.is(&walk.subject(), found.value, STRING | schema::ARRAY) {
                return;
            }
            walk.each_string(found.value, |walk, id| {
                let extension = walk.bytes(id);
                let other = seen.get(&extension.to_ascii_lowercase());
                if extension.is_empty() {
                    walk.refuse("value", walk.start(id), "an extension must not be empty");
                } else if let Some(other) = other {
                    let message = format!("\"{}\" is already an extension of \"{other}\"", lossy(extension));
                    walk.refuse("conflict", walk.start(id), message);
                } else {
                    seen.insert(extension.to_ascii_lowercase(), lossy(&found.name));
                }
            });
        });
    }
}
