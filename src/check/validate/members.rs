//! Validates the members of an object against their table in the schema: names, types, and rules.
//!
//! Each rule is one arm of `rule`.

use super::text;
use super::walk::{Validator, lossy};
use crate::check::finding::{Finding, Upload};
use crate::check::schema::{self, Member, OBJECT, Rule, STRING, Table};
use crate::check::spelling::meant;
use crate::config::address::address_pattern;
use crate::config::applications::applications_in;
use crate::config::json::{Field, Id, Node};
use crate::config::segments;

/// The page size in bytes: of x86-64, and of most kernels for 64-bit Arm.
const PAGE: f64 = 4096.0;
/// The minimum thread stack in bytes on x86-64 and on 64-bit Arm: `sysconf(_SC_THREAD_STACK_MIN)` of glibc.
const LEAST_STACK: f64 = 16384.0;
const LEAST_STACK_ARM: f64 = 131_072.0;

/// Limit of a path below `/sys/fs/cgroup` in bytes, from `NXT_MAX_PATH_LEN`.
const CGROUP_PATH: usize = 4096 - 22 - 1;

impl Validator<'_> {
    pub fn object(&mut self, id: Id, table: &'static Table) {
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

    /// Whether a missing member exists under a misspelt name, which [`unknown`](Self::unknown) reports.
    pub fn misspelt(&self, id: Id, name: &'static str) -> bool {
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
            (!titles.is_empty()).then(|| format!("move it to {}, or remove it", titles.join(" or ")))
        });
        let hint = hint.unwrap_or_else(|| match free[..] {
            [] => "remove it: all possible members are set".to_owned(),
            _ => format!("use one of {}", free.join(", ")),
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
                    // Unit accepts it and truncates it there.
                    let message = format!("{} contains a null character", self.subject());
                    self.add(Finding::error("value", start, message));
                }
            }
            Rule::Strings => self.each_string(id, |_, _| {}),
            Rule::Arguments => self.each_string(id, |walk, id| {
                if walk.bytes(id).contains(&0) {
                    walk.refuse("value", walk.start(id), "it must not contain a null character");
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
                // Unit mistakes a table of members for a function and calls it.
                _ => {
                    let message = "Unit 1.35 crashes if \"compressors\" is an object with members";
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
                    self.refuse("pass", start, format!("unknown application \"{name}\"")).hint = Some(hint);
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
                    self.refuse("value", start, "the array must contain a certificate");
                }
                self.each_string(id, |walk, id| {
                    let name = walk.document.string(id).unwrap_or_default();
                    let message = format!("Unit refuses this until you upload the certificate \"{name}\"");
                    let finding = Finding {
                        needs: Some(Upload::Certificate(name)),
                        ..Finding::warning("certificate", walk.start(id), message)
                    };
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
                    let message = "Unit accepts this, but the address before / is missing";
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
                    self.refuse("value", start, "the array must contain a path");
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
                    let message = format!("{} must be a multiple of {PAGE} and at least {LEAST_STACK}", self.subject());
                    self.refuse("range", start, message);
                } else if size < LEAST_STACK_ARM {
                    let message = format!("{} must be at least {LEAST_STACK_ARM} on arm64", self.subject());
                    self.add(Finding::warning("range", start, message));
                }
            }
            Rule::Targets(table) => {
                if self.document.members(id).len() > 254 {
                    self.refuse("range", self.here(), "\"targets\" may have at most 254 members");
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
                let message = format!("{} cannot be combined with \"targets\"", self.subject());
                self.refuse("conflict", self.here(), message).hint = Some("move it into each target".to_owned());
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
                    self.refuse("value", start, "the path must be below the root of cgroups and must not contain ..");
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
                    format!("Unit refuses this until you upload the script \"{name}\"; without njs it always does");
                let finding = Finding {
                    needs: Some(Upload::Script(name)),
                    ..Finding::warning("script", walk.start(id), message)
                };
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

    pub fn number(&self, id: Id) -> f64 {
        if let Node::Number(value) = self.document.node(id) { *value } else { 0.0 }
    }

    #[expect(clippy::cast_precision_loss, reason = "bounds are exact in a float, or beyond what Unit reads")]
    pub fn within(&mut self, id: Id, least: i64, most: i64) {
        let value = self.number(id).trunc();
        if value >= least as f64 && value <= most as f64 {
            return;
        }
        let bounds = if most == i64::MAX { format!("{least} or more") } else { format!("{least} to {most}") };
        self.refuse("range", self.start(id), format!("{} must be {bounds}", self.subject()));
    }
}
