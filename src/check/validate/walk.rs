//! Walks a configuration, with the path and the type of the current value.

use crate::check::finding::{Finding, pointer};
use crate::check::schema::{self, INTEGER, NAMES, STRING, Types};
use crate::config::json::{Document, Field, Id, Node};

/// A step of the path from the root: the name of a member, or an index.
#[derive(Clone)]
pub struct PathStep {
    pub name: String,
    /// The offset of the member in the file.
    pub at: usize,
}

pub struct Validator<'a> {
    pub document: &'a Document<'a>,
    pub path: Vec<PathStep>,
    /// Actions to validate later, because they may be nested to any depth.
    pub later: Vec<(Id, Vec<PathStep>)>,
    pub findings: Vec<Finding>,
}

pub fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl<'a> Validator<'a> {
    /// Adds an error that Unit refuses with 400.
    pub fn refuse(&mut self, rule: &'static str, at: usize, message: impl Into<String>) -> &mut Finding {
        let finding = Finding::error(rule, at, message);
        self.add(Finding { refused: true, ..finding })
    }
    pub fn add(&mut self, mut finding: Finding) -> &mut Finding {
        finding.pointer = pointer(self.path.iter().map(|step| step.name.as_str()));
        self.findings.push(finding);
        let last = self.findings.len() - 1;
        &mut self.findings[last]
    }
    pub fn start(&self, id: Id) -> usize {
        self.document.span(id).start
    }
    /// The offset of the current object: that of its name, if it has one.
    pub fn here(&self) -> usize {
        self.path.last().map_or(self.start(self.document.root()), |step| step.at)
    }
    /// The current value as messages name it.
    pub fn subject(&self) -> String {
        self.path.last().map_or("the configuration".into(), |step| format!("\"{}\"", step.name))
    }
    pub fn bytes(&self, id: Id) -> &'a [u8] {
        self.document.bytes(id).unwrap_or_default()
    }

    pub fn below(&mut self, member: &Field, look: impl FnOnce(&mut Self, Id)) {
        self.path.push(PathStep { name: lossy(&member.name), at: member.at });
        look(self, member.value);
        self.path.pop();
    }
    pub fn each_member(&mut self, id: Id, mut look: impl FnMut(&mut Self, &'a Field)) {
        for member in self.document.members(id) {
            self.below(member, |walk, _| look(walk, member));
        }
    }
    /// Calls a function for each element, or for the value itself if it is not an array.
    pub fn each(&mut self, id: Id, mut look: impl FnMut(&mut Self, Id)) {
        let Node::Array(values) = self.document.node(id) else { return look(self, id) };
        for (index, value) in values.iter().enumerate() {
            self.path.push(PathStep { name: index.to_string(), at: self.start(*value) });
            look(self, *value);
            self.path.pop();
        }
    }
    pub fn each_string(&mut self, id: Id, mut look: impl FnMut(&mut Self, Id)) {
        self.each(id, |walk, value| {
            if walk.is("each value", value, STRING) {
                look(walk, value);
            }
        });
    }

    /// Whether a value has one of the types. Adds an error if not.
    pub fn is(&mut self, what: &str, id: Id, types: Types) -> bool {
        let kind = self.document.node(id);
        let found = match kind {
            Node::Null => 0,
            Node::Boolean(_) => 1,
            Node::Number(value) if value.fract() == 0.0 => 2,
            Node::Number(_) => 3,
            Node::String(_) => 4,
            Node::Array(_) => 5,
            Node::Object(_) => 6,
        };
        if types & (1 << found) != 0 {
            return true;
        }
        let number = types & schema::NUMBER == schema::NUMBER;
        let wanted: Vec<_> = (0..7)
            .filter(|bit| types & (1 << bit) != 0 && !(number && *bit == 3))
            .map(|bit| if number && bit == 2 { "a number" } else { NAMES[bit] })
            .collect();
        let quoted = self.document.string(id).filter(|text| {
            let word = matches!(text.as_str(), "true" | "false") && types & schema::BOOLEAN != 0;
            word || (types & INTEGER != 0 && text.parse::<f64>().is_ok())
        });
        let hint = match kind {
            Node::Null if self.path.is_empty() => Some("write {} for an empty configuration".to_owned()),
            Node::Null => Some("remove the member: for Unit, null is a value".to_owned()),
            _ => quoted.map(|text| format!("write {text} without the quotes")),
        };
        let message = format!("{what} must be {}, but is {}", wanted.join(" or "), NAMES[found]);
        self.refuse("wrong-type", self.document.span(id).start, message).hint = hint;
        false
    }
}
