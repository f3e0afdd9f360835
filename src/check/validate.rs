//! The configuration as `nxt_conf_validation.c` of Unit 1.35 looks at it, with all that is wrong
//! instead of the first, and where each stands.

use std::collections::{HashMap, HashSet};

use crate::config::address::{Address, address_pattern};
use crate::config::applications::{applications_in, destinations, leads_somewhere, listeners_in};
use crate::config::json::{Document, Field, Id, Node};
use crate::config::language::language;
use crate::config::segments;

use super::Finding;
use super::schema::{self, INTEGER, Member, NAMES, OBJECT, Rule, STRING, Table, Types};
use super::text::{self, Variable};

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

/// The size of a page and the least stack of a thread where Unit mostly runs (x86-64, and 64-bit
/// Arm with pages of 4 KiB; `sysconf(_SC_THREAD_STACK_MIN)` of glibc).
const PAGE: f64 = 4096.0;
const LEAST_STACK: f64 = 16384.0;

/// A path below `/sys/fs/cgroup`, within `NXT_MAX_PATH_LEN`.
const CGROUP_PATH: usize = 4096 - 22 - 1;

/// Looks at a whole configuration.
pub fn validate(document: &Document) -> Vec<Finding> {
    let mut walk = Walk { document, path: Vec::new(), later: Vec::new(), findings: Vec::new() };
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

/// A step on the way from the root: a member's name, or an index.
#[derive(Clone)]
struct Step {
    name: String,
    /// Where the member begins.
    at: usize,
}

struct Walk<'a> {
    document: &'a Document<'a>,
    path: Vec<Step>,
    /// Actions that are still to be looked at: they stand in each other, as deep as one likes.
    later: Vec<(Id, Vec<Step>)>,
    findings: Vec<Finding>,
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl<'a> Walk<'a> {
    /// What Unit refuses with 400.
    fn refuse(&mut self, rule: &'static str, at: usize, message: impl Into<String>) -> &mut Finding {
        let finding = Finding::error(rule, at, message);
        self.add(Finding { refused: true, ..finding })
    }
    fn add(&mut self, mut finding: Finding) -> &mut Finding {
        finding.pointer = super::pointer(self.path.iter().map(|step| step.name.as_str()));
        self.findings.push(finding);
        let last = self.findings.len() - 1;
        &mut self.findings[last]
    }
    fn start(&self, id: Id) -> usize {
        self.document.span(id).start
    }
    /// Where the object that is looked at begins: its name, if it has one.
    fn here(&self) -> usize {
        self.path.last().map_or(self.start(self.document.root()), |step| step.at)
    }
    /// How messages call the value that is looked at.
    fn subject(&self) -> String {
        self.path.last().map_or("the configuration".into(), |step| format!("\"{}\"", step.name))
    }
    fn bytes(&self, id: Id) -> &'a [u8] {
        self.document.bytes(id).unwrap_or_default()
    }

    fn below(&mut self, member: &Field, look: impl FnOnce(&mut Self, Id)) {
        self.path.push(Step { name: lossy(&member.name), at: member.at });
        look(self, member.value);
        self.path.pop();
    }
    fn each_member(&mut self, id: Id, mut look: impl FnMut(&mut Self, &'a Field)) {
        for member in self.document.members(id) {
            self.below(member, |walk, _| look(walk, member));
        }
    }
    /// Each element, or the value itself if it is no array.
    fn each(&mut self, id: Id, mut look: impl FnMut(&mut Self, Id)) {
        let Node::Array(values) = self.document.node(id) else { return look(self, id) };
        for (index, value) in values.iter().enumerate() {
            self.path.push(Step { name: index.to_string(), at: self.start(*value) });
            look(self, *value);
            self.path.pop();
        }
    }
    fn each_string(&mut self, id: Id, mut look: impl FnMut(&mut Self, Id)) {
        self.each(id, |walk, value| {
            if walk.is("each of them", value, STRING) {
                look(walk, value);
            }
        });
    }

    /// Whether a value has one of the types.
    fn is(&mut self, what: &str, id: Id, types: Types) -> bool {
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
            Node::Null => Some("null is a value for Unit: take the member out".to_owned()),
            _ => quoted.map(|text| format!("write {text} without the quotes")),
        };
        let message = format!("{what} must be {}, but is {}", wanted.join(" or "), NAMES[found]);
        self.refuse("wrong-type", self.document.span(id).start, message).hint = hint;
        false
    }

    fn object(&mut self, id: Id, table: &'static Table) {
        for member in table.all().filter(|member| member.required) {
            if self.document.get(id, member.name).is_none() && !self.misspelt(id, member.name) {
                self.refuse("missing-member", self.here(), format!("{} must have \"{}\"", table.title, member.name));
            }
        }
        self.each_member(id, |walk, found| match table.all().find(|member| member.name.as_bytes() == found.name) {
            Some(member) => walk.member(found.value, member),
            None => walk.unknown(id, found, table),
        });
    }

    /// Whether a missing member is there under a name that [`unknown`](Self::unknown) puts right.
    fn misspelt(&self, id: Id, name: &'static str) -> bool {
        self.document.members(id).iter().any(|found| meant(&lossy(&found.name), [name]).is_some())
    }

    fn unknown(&mut self, id: Id, found: &Field, table: &'static Table) {
        let name = lossy(&found.name);
        let free: Vec<_> = table.all().map(|m| m.name).filter(|name| self.document.get(id, name).is_none()).collect();
        let homes = || schema::TABLES.iter().map(|(_, table)| *table).filter(|other| other.title != table.title);
        let hint = meant(&name, free.iter().copied()).map(|meant| format!("did you mean \"{meant}\"?")).or_else(|| {
            let mut titles: Vec<_> =
                homes().filter(|t| t.members.iter().any(|m| m.name == name)).map(|t| t.title).collect();
            titles.dedup();
            (!titles.is_empty()).then(|| format!("a member of this name belongs in {}", titles.join(" or ")))
        });
        let hint = hint.unwrap_or_else(|| match free[..] {
            [] => "it has all its members already".to_owned(),
            _ => format!("it can have {}", free.join(", ")),
        });
        self.refuse("unknown-member", found.at, format!("{} has no member \"{name}\"", table.title)).hint = Some(hint);
    }

    fn member(&mut self, id: Id, member: &'static Member) {
        if member.template && self.document.bytes(id).is_some_and(text::is_template) {
            return self.variables(id);
        }
        if self.is(&format!("\"{}\"", member.name), id, member.types) {
            self.rule(id, &member.rule);
        }
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each rule")]
    fn rule(&mut self, id: Id, rule: &Rule) {
        let start = self.start(id);
        match *rule {
            Rule::Anything => {}
            Rule::Object(table) => self.object(id, table),
            Rule::Within(least, most) => self.within(id, least, most),
            Rule::OneOf(words) => {
                if !words.iter().any(|word| word.as_bytes() == self.bytes(id)) {
                    let words: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
                    self.refuse("value", start, format!("{} must be {}", self.subject(), words.join(" or ")));
                }
            }
            Rule::Path => {
                if self.bytes(id).contains(&0) {
                    // Unit takes it, and cuts it there.
                    let message = format!("{} has a null character in it", self.subject());
                    self.add(Finding::error("value", start, message));
                }
            }
            Rule::Strings => self.each_string(id, |_, _| {}),
            Rule::Arguments => self.each_string(id, |walk, id| {
                if walk.bytes(id).contains(&0) {
                    walk.refuse("value", walk.start(id), "it must not have a null character in it");
                }
            }),
            Rule::Listeners => self.each_member(id, Self::listener),
            Rule::Routes => match self.document.node(id) {
                Node::Array(_) => self.each(id, Self::route),
                _ => self.each_member(id, |walk, found| {
                    if walk.is(&walk.subject(), found.value, schema::ARRAY) {
                        walk.each(found.value, Self::route);
                    }
                }),
            },
            Rule::Applications => self.each_member(id, |walk, found| {
                if walk.is(&walk.subject(), found.value, OBJECT) {
                    walk.application(found.value);
                }
            }),
            Rule::Upstreams => self.each_member(id, |walk, found| {
                if walk.is(&walk.subject(), found.value, OBJECT) {
                    walk.object(found.value, &schema::UPSTREAM);
                    if walk.document.get(found.value, "servers").is_none() {
                        walk.refuse("missing-member", found.at, "an upstream must have \"servers\"");
                    }
                }
            }),
            Rule::Servers => self.each_member(id, |walk, found| {
                walk.address("server", found.at, &found.name);
                if walk.is(&walk.subject(), found.value, OBJECT) {
                    walk.object(found.value, &schema::SERVER);
                }
            }),
            Rule::AccessLog => {
                if self.document.bytes(id).is_some() {
                    return;
                }
                self.object(id, &schema::ACCESS_LOG);
                match self.document.get(id, "path") {
                    None => {
                        self.refuse("missing-member", self.here(), "\"access_log\" must have \"path\"");
                    }
                    Some(path) if self.document.bytes(path).is_some_and(<[u8]>::is_empty) => {
                        self.refuse("value", self.start(path), "\"path\" must not be empty");
                    }
                    Some(_) => {}
                }
            }
            Rule::LogFormat => match self.document.node(id) {
                Node::String(_) => self.variables(id),
                _ => self.each_member(id, |walk, found| {
                    if found.name.is_empty() {
                        walk.refuse("value", found.at, "a field's name must not be empty");
                    }
                    if walk.is(&walk.subject(), found.value, STRING) {
                        walk.variables(found.value);
                    }
                }),
            },
            Rule::MimeTypes => self.mime_types(id),
            Rule::Compressors => match self.document.node(id) {
                Node::Array(_) => self.each(id, |walk, value| {
                    if walk.is("a compressor", value, OBJECT) {
                        walk.object(value, &schema::COMPRESSOR);
                    }
                }),
                _ if self.document.members(id).is_empty() => {}
                // It takes a table of members for a function and calls it.
                _ => {
                    let message = "Unit 1.35 crashes when \"compressors\" is an object that has members";
                    self.refuse("value", start, message).hint = Some("write an array: [{…}]".to_owned());
                }
            },
            Rule::Encoding => match self.bytes(id) {
                b"identity" => {}
                b"deflate" | b"gzip" | b"zstd" | b"br" => {
                    let message = format!("a Unit without {} refuses this", lossy(self.bytes(id)));
                    self.add(Finding::warning("build", start, message));
                }
                _ => {
                    let message = "\"encoding\" must be \"identity\", \"deflate\", \"gzip\", \"zstd\" or \"br\"";
                    self.refuse("value", start, message);
                }
            },
            Rule::Pass => self.pass(id),
            Rule::Application => {
                if !applications_in(self.document).iter().any(|app| app.name == self.bytes(id)) {
                    let name = lossy(self.bytes(id));
                    let hint = self.targets_hint(&format!("applications/{name}"));
                    self.refuse("pass", start, format!("there is no application \"{name}\"")).hint = Some(hint);
                }
            }
            Rule::Forwarded => {
                if self.document.get(id, "client_ip").or(self.document.get(id, "protocol")).is_none() {
                    let message = "\"forwarded\" must have \"client_ip\" or \"protocol\"";
                    self.refuse("missing-member", self.here(), message);
                }
                self.object(id, &schema::FORWARDED);
            }
            Rule::Certificate => {
                if matches!(self.document.node(id), Node::Array(values) if values.is_empty()) {
                    self.refuse("value", start, "the array must name a certificate");
                }
                self.each_string(id, |walk, id| {
                    let name = walk.document.string(id).unwrap_or_default();
                    let message = format!("Unit refuses this until the certificate \"{name}\" is uploaded");
                    let finding =
                        Finding { names: Some(name), ..Finding::warning("certificate", walk.start(id), message) };
                    walk.add(finding);
                });
            }
            Rule::StringMembers => self.each_member(id, |walk, found| {
                walk.is(&walk.subject(), found.value, STRING);
            }),
            Rule::Tickets => {
                if matches!(self.document.node(id), Node::Boolean(_)) {
                    return;
                }
                self.each_string(id, |walk, id| {
                    if !matches!(text::base64_length(walk.bytes(id)), Some(48 | 80)) {
                        walk.refuse("value", walk.start(id), "a ticket's key must be 48 or 80 bytes in Base64");
                    }
                });
            }
            Rule::Patterns => self.each_string(id, Self::pattern),
            Rule::EncodedPatterns => self.each_string(id, Self::encoded_pattern),
            Rule::EncodedSets => self.pattern_sets(id, |walk, found| {
                if segments::decode_uri(&found.name).is_none() {
                    walk.refuse("value", found.at, "the name has a % that does not begin an escape");
                }
                walk.each_string(found.value, Self::encoded_pattern);
            }),
            Rule::PatternSets => {
                self.pattern_sets(id, |walk, found| walk.each_string(found.value, Self::pattern));
            }
            Rule::Addresses => self.each_string(id, |walk, id| match address_pattern(walk.bytes(id)) {
                Ok(true) => {}
                Ok(false) => {
                    let message = "Unit takes this, but there is no address before /";
                    walk.add(Finding::warning("address", walk.start(id), message));
                }
                Err(what) => {
                    walk.refuse("address", walk.start(id), what);
                }
            }),
            Rule::Scheme => {
                if !["http", "https"].iter().any(|scheme| self.bytes(id).eq_ignore_ascii_case(scheme.as_bytes())) {
                    self.refuse("value", start, "\"scheme\" must be \"http\" or \"https\"");
                }
            }
            Rule::Condition => {
                let text = self.bytes(id);
                self.variables_of(start, text.strip_prefix(b"!").unwrap_or(text));
            }
            Rule::Action => self.later.push((id, self.path.clone())),
            Rule::Share => {
                if matches!(self.document.node(id), Node::Array(values) if values.is_empty()) {
                    self.refuse("value", start, "the array must name a path");
                }
                self.each_string(id, Self::variables);
            }
            Rule::ResponseHeaders => self.each_member(id, |walk, found| {
                match &found.name[..] {
                    b"" => {
                        walk.refuse("value", found.at, "a header's name must not be empty");
                    }
                    b"Content-Length" => {
                        walk.refuse("value", found.at, "Unit sets Content-Length itself");
                    }
                    _ => {}
                }
                if walk.is(&walk.subject(), found.value, STRING | schema::NULL) {
                    walk.variables(found.value);
                }
            }),
            Rule::Proxy => match self.bytes(id).strip_prefix(b"http://") {
                Some(address) => self.address("proxy", start, address),
                None => {
                    self.refuse("address", start, "\"proxy\" must be http://ADDRESS:PORT");
                }
            },
            Rule::Prefix => {
                if !self.bytes(id).starts_with(b"/") {
                    self.refuse("value", start, "\"prefix\" must begin with /");
                }
            }
            Rule::StackSize => {
                let size = self.number(id);
                if size < LEAST_STACK || size % PAGE != 0.0 {
                    let message = format!("{} must be a multiple of {PAGE}, and {LEAST_STACK} or more", self.subject());
                    self.refuse("range", start, message);
                }
            }
            Rule::Targets(table) => {
                if self.document.members(id).len() > 254 {
                    self.refuse("range", self.here(), "\"targets\" may have 254 members");
                }
                self.each_member(id, |walk, found| {
                    if found.name.is_empty() {
                        walk.refuse("value", found.at, "a target's name must not be empty");
                    }
                    if walk.is(&walk.subject(), found.value, OBJECT) {
                        walk.object(found.value, table);
                    }
                });
            }
            Rule::WithTargets => {
                let message = format!("{} does not go with \"targets\"", self.subject());
                self.refuse("conflict", self.here(), message).hint =
                    Some("move it into each of the targets".to_owned());
            }
            Rule::Options => self.each_member(id, |walk, found| {
                if found.name.is_empty() {
                    walk.refuse("value", found.at, "an option's name must not be empty");
                }
                walk.is(&walk.subject(), found.value, STRING);
            }),
            Rule::Processes => self.processes(id),
            Rule::Environment => self.each_member(id, Self::variable),
            Rule::IdMap => self.each(id, |walk, value| {
                if walk.is("a map of ids", value, OBJECT) {
                    walk.object(value, &schema::ID_MAP);
                }
            }),
            Rule::Cgroup => {
                let path = self.bytes(id);
                let parent = path.split(|byte| *byte == b'/').any(|part| part == b"..");
                if path.is_empty() || parent || path.len() >= CGROUP_PATH {
                    self.refuse("value", start, "the path must be one below the root of cgroups, without ..");
                }
            }
            Rule::Weight => {
                if !(0.0..=1_000_000.0).contains(&self.number(id)) {
                    self.refuse("range", start, "\"weight\" must be 0 to 1,000,000");
                }
            }
            Rule::JsModule => self.each_string(id, |walk, id| {
                let name = walk.document.string(id).unwrap_or_default();
                let message =
                    format!("Unit refuses this until the script \"{name}\" is uploaded, and without njs always");
                let finding = Finding { names: Some(name), ..Finding::warning("script", walk.start(id), message) };
                walk.add(finding);
            }),
            Rule::Telemetry => {
                let message = "a Unit without OpenTelemetry refuses this";
                self.add(Finding::warning("build", self.here(), message));
                self.object(id, &schema::TELEMETRY);
            }
            Rule::Ratio => {
                if !(0.0..=1.0).contains(&self.number(id)) {
                    self.refuse("range", start, format!("{} must be 0 to 1", self.subject()));
                }
            }
        }
    }

    fn number(&self, id: Id) -> f64 {
        if let Node::Number(value) = self.document.node(id) { *value } else { 0.0 }
    }

    #[expect(clippy::cast_precision_loss, reason = "bounds are exact in a float, or beyond what Unit reads")]
    fn within(&mut self, id: Id, least: i64, most: i64) {
        let value = self.number(id).trunc();
        if value >= least as f64 && value <= most as f64 {
            return;
        }
        let bounds = if most == i64::MAX { format!("{least} or more") } else { format!("{least} to {most}") };
        self.refuse("range", self.start(id), format!("{} must be {bounds}", self.subject()));
    }

    fn listener(&mut self, found: &Field) {
        self.address("listener", found.at, &found.name);
        if !self.is(&self.subject(), found.value, OBJECT) {
            return;
        }
        self.object(found.value, &schema::LISTENER);
        let has = |name: &str| self.document.get(found.value, name).is_some();
        if !has("pass") && !has("application") && !self.misspelt(found.value, "pass") {
            // Unit takes it, fails to apply it and does not say why.
            self.add(Finding::error("missing-member", found.at, "a listener must have \"pass\"")).hint =
                Some(self.targets_hint(""));
        }
    }

    fn address(&mut self, what: &str, at: usize, text: &[u8]) {
        if Address::read(text).is_some() {
            return;
        }
        let hint = match lossy(text) {
            text if unrendered(&text, true) => {
                "the template was not rendered: the file still has its placeholders".to_owned()
            }
            _ => "give *:PORT, IP:PORT, [IPv6]:PORT or unix:PATH; host names are not accepted".to_owned(),
        };
        let message = format!("\"{}\" is no address for a {what}", lossy(text));
        self.refuse("address", at, message).hint = Some(hint);
    }

    /// Two listeners on one port, which Unit cannot open.
    fn listeners_clash(&mut self) {
        let addresses: Vec<_> =
            listeners_in(self.document).iter().filter_map(|found| Some((found, Address::read(&found.name)?))).collect();
        for (index, (found, address)) in addresses.iter().enumerate() {
            let Some((other, _)) = addresses[..index].iter().find(|(_, other)| clash(address, other)) else { continue };
            let message = format!("\"{}\" and \"{}\" clash", lossy(&found.name), lossy(&other.name));
            self.path.extend(["listeners".into(), lossy(&found.name)].map(|name: String| Step { name, at: found.at }));
            self.add(Finding::error("listener-clash", found.at, message)).hint =
                Some("a port can be listened on once: * is every IPv4 address".to_owned());
            self.path.clear();
        }
    }

    fn route(&mut self, id: Id) {
        if self.is("a route", id, OBJECT) {
            self.object(id, &schema::ROUTE);
        }
    }

    fn action(&mut self, id: Id) {
        let kinds: [(&str, &Table); 4] = [
            ("pass", &schema::PASS_ACTION),
            ("return", &schema::RETURN_ACTION),
            ("share", &schema::SHARE_ACTION),
            ("proxy", &schema::PROXY_ACTION),
        ];
        let found: Vec<_> = kinds.iter().filter(|(name, _)| self.document.get(id, name).is_some()).collect();
        match found[..] {
            [(_, table)] => self.object(id, table),
            [] => {
                let members = self.document.members(id);
                let names = kinds.iter().map(|(name, _)| *name);
                let near = members.iter().find_map(|found| meant(&lossy(&found.name), names.clone()));
                self.refuse(
                    "missing-member",
                    self.here(),
                    "an action must have \"pass\", \"return\", \"share\" or \"proxy\"",
                )
                .hint = near.map(|name| format!("did you mean \"{name}\"?"));
            }
            _ => {
                let names: Vec<_> = found.iter().map(|(name, _)| format!("\"{name}\"")).collect();
                self.refuse("conflict", self.here(), format!("an action must have one of {}", names.join(" and ")));
            }
        }
    }

    fn application(&mut self, id: Id) {
        let Some(kind) = self.document.get(id, "type") else {
            self.refuse("missing-member", self.here(), "an application must have \"type\"").hint =
                Some("the language, such as \"python\" or \"php\", or \"external\"".to_owned());
            return;
        };
        if !self.is("\"type\"", kind, STRING) {
            return;
        }
        let said = self.document.string(kind).unwrap_or_default();
        let (language, version) = language(&said);
        self.path.push(Step { name: "type".into(), at: self.start(kind) });
        let known = LANGUAGES.iter().find(|(name, _)| *name == language);
        // A module's version begins with a digit; external applications have none.
        let possible = if matches!(language, "external" | "go") {
            version.is_empty()
        } else {
            version.chars().next().is_none_or(|c| c.is_ascii_digit()) && !version.contains(char::is_whitespace)
        };
        if known.is_none() {
            let hint = match meant(language, LANGUAGES.iter().map(|(name, _)| *name)) {
                _ if unrendered(&said, true) => {
                    "the template was not rendered: the file still has its placeholders".to_owned()
                }
                Some(name) => format!("did you mean \"{name}\"?"),
                None => format!("Unit knows {}", LANGUAGES.map(|(name, _)| name).join(", ")),
            };
            self.refuse("type", self.start(kind), format!("no module of Unit runs \"{said}\"")).hint = Some(hint);
        } else if !possible {
            let hint = format!("write \"{language}\", or with the beginning of a version, \"{language} 3\"");
            let hint = if possible_external(language) { format!("write \"{language}\"") } else { hint };
            self.refuse("type", self.start(kind), format!("no module of Unit has the version \"{version}\"")).hint =
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

    fn pass(&mut self, id: Id) {
        let pass = self.bytes(id);
        let shown = lossy(pass);
        let Some(names) = segments::of_pass(pass) else {
            let message = format!("\"{shown}\" is no place to pass to");
            self.refuse("pass", self.start(id), message).hint = Some(self.targets_hint(&shown));
            return;
        };
        if !leads_somewhere(self.document, &names) {
            let message = format!("\"{shown}\" does not exist in this configuration");
            self.refuse("pass", self.start(id), message).hint = Some(self.targets_hint(&shown));
        }
    }

    /// What a `pass` could have meant, or could name.
    fn targets_hint(&self, pass: &str) -> String {
        if unrendered(pass, true) {
            return "the template was not rendered: the file still has its placeholders".to_owned();
        }
        let all = destinations(self.document);
        match meant(pass, all.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None if all.is_empty() => "this configuration has no application, upstream or route to pass to".to_owned(),
            None => format!("it has {}", all.join(", ")),
        }
    }

    fn variables(&mut self, id: Id) {
        if let Some(text) = self.document.bytes(id) {
            self.variables_of(self.start(id), text);
        }
    }

    fn variables_of(&mut self, at: usize, text: &[u8]) {
        if text::is_script(text) {
            self.add(Finding::warning("build", at, "a Unit without njs refuses this script"));
            return;
        }
        match text::variables(text) {
            Ok(()) => {}
            Err(Variable::Malformed) => {
                let message = format!("{} has a $ that does not begin a variable", self.subject());
                self.refuse("variable", at, message).hint =
                    Some("variables are $name or ${name}; a $ itself is ${dollar}".to_owned());
            }
            Err(Variable::Unknown(name)) => {
                let hint = match meant(&name, text::VARIABLES) {
                    Some(meant) => format!("did you mean ${meant}?"),
                    None => {
                        "a name is one of Unit's, or header_NAME, response_header_NAME, arg_NAME, cookie_NAME; if a \
                             template was to replace it, it was not rendered"
                            .to_owned()
                    }
                };
                self.refuse("variable", at, format!("Unit has no variable ${name}")).hint = Some(hint);
            }
        }
    }

    fn pattern(&mut self, id: Id) {
        if let Err(what) = text::pattern(self.bytes(id)) {
            self.refuse("pattern", self.start(id), what);
        }
    }

    fn encoded_pattern(&mut self, id: Id) {
        self.pattern(id);
        if segments::decode_uri(self.bytes(id)).is_none() {
            self.refuse("pattern", self.start(id), "it has a % that does not begin an escape").hint =
                Some("a % itself is %25".to_owned());
        }
    }

    fn pattern_sets(&mut self, id: Id, mut look: impl FnMut(&mut Self, &Field)) {
        self.each(id, |walk, value| {
            if walk.is("each of them", value, OBJECT) {
                walk.each_member(value, |walk, found| {
                    if found.name.is_empty() {
                        walk.refuse("value", found.at, "a name must not be empty");
                    }
                    look(walk, found);
                });
            }
        });
    }

    fn mime_types(&mut self, id: Id) {
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
                    let message = format!("\"{}\" is an extension of \"{other}\" already", lossy(extension));
                    walk.refuse("conflict", walk.start(id), message);
                } else {
                    seen.insert(extension.to_ascii_lowercase(), lossy(&found.name));
                }
            });
        });
    }

    fn processes(&mut self, id: Id) {
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
                .hint = self.document.get(id, "max").is_none().then(|| "\"max\" is 1 unless it is given".to_owned());
        }
    }

    fn variable(&mut self, found: &Field) {
        if found.name.is_empty() {
            self.refuse("value", found.at, "a variable's name must not be empty");
        }
        if found.name.iter().any(|byte| matches!(byte, 0 | b'=')) {
            self.refuse("value", found.at, "a variable's name must not have = or a null character in it");
        }
        if !self.is(&self.subject(), found.value, STRING) {
            if matches!(self.document.node(found.value), Node::Number(_) | Node::Boolean(_)) {
                let last = self.findings.last_mut();
                last.expect("there is one for the type").hint = Some("write it in double quotes".to_owned());
            }
        } else if self.bytes(found.value).contains(&0) {
            self.refuse("value", self.start(found.value), "a variable's value must not have a null character in it");
        }
    }

    /// Placeholders of templates that nobody filled in, where nothing else complains.
    fn templates(&mut self, id: Id, variables: bool, complained: &HashSet<usize>) {
        let found = |walk: &mut Self, at: usize, text: &[u8], variables: bool| {
            let text = lossy(text);
            if unrendered(&text, !variables) && !complained.contains(&at) {
                walk.add(Finding::warning("template", at, "this looks like a template that was not rendered")).hint =
                    text.contains("${").then(|| "Unit has variables in requests only, not here".to_owned());
            }
        };
        match self.document.node(id) {
            Node::String(text) => found(self, self.start(id), text, variables),
            Node::Array(_) => self.each(id, |walk, value| walk.templates(value, variables, complained)),
            Node::Object(_) => self.each_member(id, |walk, member| {
                found(walk, member.at, &member.name, false);
                // ${uri} is Unit's own there.
                let own = ["pass", "share", "chroot", "rewrite", "location", "response_headers", "format", "if"];
                let variables = variables || own.iter().any(|name| name.as_bytes() == member.name);
                walk.templates(member.value, variables, complained);
            }),
            _ => {}
        }
    }
}

fn possible_external(language: &str) -> bool {
    matches!(language, "external" | "go")
}

/// `{{ value }}`, and `${value}` where that means nothing to Unit.
fn unrendered(text: &str, braces: bool) -> bool {
    let encloses = |open: &str, close: &str| text.split_once(open).is_some_and(|(_, rest)| rest.contains(close));
    encloses("{{", "}}") || (braces && encloses("${", "}"))
}

/// Whether the second of two sockets cannot be opened: * is any address of IPv4. Of IPv6 Unit sets
/// `IPV6_V6ONLY`, so that [::] and * are apart.
fn clash(a: &Address, b: &Address) -> bool {
    match (a, b) {
        (Address::Unix(a), Address::Unix(b)) => a == b,
        (Address::V4(a, port), Address::V4(b, other)) => port == other && (a == b || *a == [0; 4] || *b == [0; 4]),
        (Address::V6(a, port), Address::V6(b, other)) => port == other && (a == b || *a == [0; 16] || *b == [0; 16]),
        _ => false,
    }
}

/// The candidate that a name is likely to be a slip for.
pub fn meant<'n>(name: &str, candidates: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let within = |candidate: &str| (candidate.len().max(name.len()) / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= within(candidate) && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
