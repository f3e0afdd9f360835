//! Validates applications. The language decides the table.

use super::placeholders::unrendered;
use super::walk::{PathStep, Validator};
use crate::check::schema::{self, STRING, Table};
use crate::check::spelling::meant;
use crate::config::json::{Field, Id, Node};
use crate::config::language::language;

/// The languages and the tables of their applications; `nxt_app_parse_type` (`nxt_application.c`).
const LANGUAGES: [(&str, &Table); 9] = [
    ("external", &schema::EXTERNAL),
    ("go", &schema::EXTERNAL),
    ("python", &schema::PYTHON_NO_TARGETS),
    ("php", &schema::PHP_NO_TARGETS),
    ("perl", &schema::PERL),
    ("ruby", &schema::RUBY),
    ("java", &schema::JAVA),
    ("wasm", &schema::WASM),
    ("wasm-wasi-component", &schema::WASM_WC),
];

impl Validator<'_> {
    pub fn application(&mut self, id: Id) {
        let Some(kind) = self.document.get(id, "type") else {
            self.refuse("missing-member", self.here(), "an application must have \"type\"").hint =
                Some("set it to a language, such as \"python\" or \"php\", or to \"external\"".to_owned());
            return;
        };
        if !self.is("\"type\"", kind, STRING) {
            return;
        }
        let said = self.document.string(kind).unwrap_or_default();
        let (language, version) = language(&said);
        self.path.push(PathStep { name: "type".into(), at: self.start(kind) });
        let known = LANGUAGES.iter().find(|(name, _)| *name == language);
        // The version of a module starts with a digit. External applications have no version.
        let unversioned = matches!(language, "external" | "go");
        let possible = if unversioned {
            version.is_empty()
        } else {
            version.chars().next().is_none_or(|c| c.is_ascii_digit()) && !version.contains(char::is_whitespace)
        };
        if known.is_none() {
            let hint = match meant(language, LANGUAGES.iter().map(|(name, _)| *name)) {
                _ if unrendered(&said, true) => {
                    "render the template first: the file still has its placeholders".to_owned()
                }
                Some(name) => format!("did you mean \"{name}\"?"),
                None => format!("use one of {}", LANGUAGES.map(|(name, _)| name).join(", ")),
            };
            self.refuse("type", self.start(kind), format!("Unit has no module for \"{said}\"")).hint = Some(hint);
        } else if !possible {
            let hint = format!("use \"{language}\", or add the start of a version, as in \"{language} 3\"");
            let hint = if unversioned { format!("use \"{language}\"") } else { hint };
            self.refuse("type", self.start(kind), format!("Unit has no module with the version \"{version}\"")).hint =
                Some(hint);
        }
        self.path.pop();
        let targets = self.document.get(id, "targets").is_some();
        match known {
            Some(("python", _)) if targets => self.object(id, &schema::PYTHON),
            Some(("php", _)) if targets => self.object(id, &schema::PHP),
            Some((_, table)) => self.object(id, table),
            None => {}
        }
    }

    pub fn processes(&mut self, id: Id) {
        if matches!(self.document.node(id), Node::Number(_)) {
            return self.within(id, 1, i32::MAX.into());
        }
        self.object(id, &schema::PROCESSES);
        let value = |name: &str, default: f64| match self.document.get(id, name).map(|id| self.document.node(id)) {
            Some(Node::Number(value)) => value.trunc(),
            _ => default,
        };
        let (spare, max) = (value("spare", 0.0), value("max", 1.0));
        if max >= 1.0 && spare > max {
            self.refuse("range", self.here(), format!("\"spare\" ({spare}) must not be more than \"max\" ({max})"))
                .hint = self.document.get(id, "max").is_none().then(|| "set \"max\"; the default is 1".to_owned());
        }
    }

    pub fn variable(&mut self, found: &Field) {
        if found.name.is_empty() {
            self.refuse("value", found.at, "a variable's name must not be empty");
        }
        if found.name.iter().any(|byte| matches!(byte, 0 | b'=')) {
            self.refuse("value", found.at, "a variable's name must not contain = or a null character");
        }
        if !self.is(&self.subject(), found.value, STRING) {
            if matches!(self.document.node(found.value), Node::Number(_) | Node::Boolean(_)) {
                let last = self.findings.last_mut();
                last.expect("the type has a finding").hint = Some("write it in double quotes".to_owned());
            }
        } else if self.bytes(found.value).contains(&0) {
            self.refuse("value", self.start(found.value), "a variable's value must not contain a null character");
        }
    }
}
