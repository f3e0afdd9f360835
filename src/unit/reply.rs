//! Turns Unit's refusals into errors that show the line to change.
//!
//! A 400 concerns the text. It has a `location` for invalid JSON, and a `detail` for an invalid
//! configuration; FreeUnit 1.36 adds the path of the value to the latter, also as `location`. A 500 says
//! only that Unit failed to apply the configuration. Only Unit's log has the reason.

use serde::Deserialize;
use serde_json::Value;

use super::channel::Reply;
use super::diagnose::Explanation;
use crate::check::check;
use crate::config::applications::destinations;
use crate::config::position::{caret, line_and_column, without_bom};
use crate::config::{Config, canary, json, places};
use crate::error::{Error, Kind};

/// Most lines to list if the place is ambiguous.
const NAMED_LINES: usize = 8;

/// The body of Unit's error answers.
#[derive(Debug, Deserialize)]
struct Complaint {
    error: String,
    detail: Option<String>,
    /// The known member that is most similar to an unknown one; FreeUnit after 1.36.1.
    suggestion: Option<String>,
    location: Option<Location>,
}

/// A place in the text, or the path of a value.
///
/// For invalid JSON: `line` and `column` start at 1; columns are characters. Both are missing if the
/// line is not UTF-8 up to the place. `offset` is in bytes, starts at 0, and excludes a byte order mark.
///
/// For a value (FreeUnit): `path` is a JSON Pointer (RFC 6901) in the whole configuration. An empty one
/// means the root or nothing (`nxt_conf_validation.c`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Location {
    offset: Option<usize>,
    line: Option<usize>,
    column: Option<usize>,
    path: Option<String>,
}

/// Facts about the Unit that refused.
#[derive(Debug, Default)]
pub(super) struct About {
    /// `python 3.11.2`, …; empty if unknown.
    pub(super) modules: Vec<String>,
    /// The path of the PUT: `/config` or a part of it.
    pub(super) at: String,
    /// The hint for reading its log.
    pub(super) log: String,
    /// The lines of its log since the PUT.
    pub(super) lines: Option<String>,
    /// The cause that podstrap found, if Unit gives none.
    pub(super) explanation: Option<Explanation>,
}

/// Whether Unit's list of modules would explain the reply.
pub(super) fn asks_for_modules(reply: &Reply) -> bool {
    reply.status == 400 && String::from_utf8_lossy(&reply.body).contains("The module to run")
}

/// Whether the reply gives no reason.
pub(super) fn is_untold(reply: &Reply) -> bool {
    let complaint = serde_json::from_slice::<Complaint>(&reply.body);
    reply.status == 500 && complaint.is_ok_and(|complaint| complaint.detail.is_none())
}

/// `python 3.11.2`, … from `GET /status` (Unit 1.34 and later).
pub(super) fn modules(status: &[u8]) -> Vec<String> {
    let status: Value = serde_json::from_slice(status).unwrap_or_default();
    let Some(modules) = status.get("modules").and_then(Value::as_object) else { return Vec::new() };
    let versions = |module: &Value| match module {
        // An array if Unit has several versions of the language.
        Value::Array(all) => all.iter().filter_map(|one| one["version"].as_str().map(str::to_owned)).collect(),
        one => vec![one["version"].as_str().unwrap_or_default().to_owned()],
    };
    modules
        .iter()
        .flat_map(|(name, module)| versions(module).into_iter().map(move |v| format!("{name} {v}").trim().to_owned()))
        .collect()
}

/// Turns a reply other than 200 to `PUT /config` into an error.
pub(super) fn refused(config: &Config, at: &str, reply: &Reply, about: &About) -> Error {
    let path = config.path.display();
    let Ok(complaint) = serde_json::from_slice::<Complaint>(&reply.body) else {
        let first = String::from_utf8_lossy(&reply.body).lines().next().unwrap_or_default().to_owned();
        return Error::new(Kind::UnitRefused, format!("cannot apply {path} to {at}"))
            .because(format!("{} answered {}: {first:?}", reply.server, reply.status))
            .hint("use the address of unitd's --control option: this may not be Unit's control API");
    };
    let location = complaint.location.as_ref();
    if let Some((line, column)) = location.and_then(|location| location.place(config.written())) {
        return Error::new(Kind::UnitRefused, format!("{path}:{line}:{column}: {}", invalid(&complaint)))
            .excerpt(caret(config.written(), line, column));
    }
    let error =
        Error::new(Kind::UnitRefused, format!("Unit at {at} did not apply {path}")).because(match &complaint.detail {
            Some(detail) => format!("{} {detail}", complaint.error),
            None => complaint.error.clone(),
        });
    let error = match &complaint.detail {
        Some(detail) => {
            let pointer = location.and_then(|location| location.path.as_deref());
            // The pointer is relative to the whole configuration. The file may be a part of it.
            let part = about.at.strip_prefix("/config").unwrap_or_default().trim_end_matches('/');
            let pointer = pointer.and_then(|pointer| pointer.strip_prefix(part)).map(canary::original_path);
            located(error, detail, pointer.as_deref(), config)
        }
        None => error,
    };
    match (reply.status, &complaint.detail) {
        (500, None) => failed_to_apply(error, about),
        (400, Some(_)) if let Some(meant) = &complaint.suggestion => error.hint(format!("did you mean \"{meant}\"?")),
        (400, Some(detail)) => match detail_hint(detail, config, about) {
            Some(hint) => error.hint(hint),
            None => error,
        },
        (404, None) if about.at != "/config" => error.hint(format!(
            "apply the whole configuration first: Unit's configuration has no parent object for {} yet",
            about.at
        )),
        _ => error,
    }
}

/// Adds the place in the file: from FreeUnit's pointer, else from a search for the names in Unit's detail.
fn located(error: Error, detail: &str, pointer: Option<&str>, config: &Config) -> Error {
    let path = config.path.display();
    let quoted = || detail.split('"').skip(1).step_by(2);
    let place = |offset: usize| line_and_column(without_bom(config.written()), offset);
    if let Some(at) = pointer.and_then(|pointer| places::at(config.written(), pointer, quoted().next())) {
        let (line, column) = place(at);
        return error.because(format!("{path}:{line}:{column}")).excerpt(caret(config.written(), line, column));
    }
    // A missing name is not in the file. If it does occur, it is correct there.
    if detail.contains("is missing") || detail.contains("must have") {
        return error;
    }
    let quoted = quoted();
    let found = quoted.map(|name| places::of(config.written(), name)).filter(|places| !places.is_empty());
    // The rarest of the quoted names identifies the place best.
    let Some(places) = found.min_by_key(Vec::len) else { return error };
    if let [only] = places[..] {
        let (line, column) = place(only);
        return error.because(format!("{path}:{line}:{column}")).excerpt(caret(config.written(), line, column));
    }
    let lines: Vec<_> = places.iter().take(NAMED_LINES).map(|offset| place(*offset).0.to_string()).collect();
    let more = if places.len() > NAMED_LINES { ", …" } else { "" };
    error.because(format!("{path}, one of the lines {}{more}", lines.join(", ")))
}

fn invalid(complaint: &Complaint) -> String {
    let detail = complaint.detail.as_deref().unwrap_or(&complaint.error);
    format!("invalid JSON: {}", detail.trim_end_matches('.').replace("  ", " "))
}

fn failed_to_apply(error: Error, about: &About) -> Error {
    if let Some(Explanation { why, excerpt, hint }) = &about.explanation {
        let error = error.because(why.clone());
        let error = match excerpt.as_ref().or(about.lines.as_ref()) {
            Some(text) => error.excerpt(text),
            None => error,
        };
        return error.hint(hint);
    }
    let error = match &about.lines {
        Some(lines) => error.excerpt(lines),
        None => error,
    };
    error.hint(&about.log).hint(
        "run `podstrap check CONFIG --tree DIR` to find a missing module, callable, \"home\" or \
         \"working_directory\"; other usual causes are an error in the module, a missing \"path\", a \"home\" for \
         another Python X.Y than Unit's, an unknown \"user\" or \"group\", and a port in use",
    )
}

fn detail_hint(detail: &str, config: &Config, about: &About) -> Option<String> {
    if detail.starts_with("The module to run") {
        let has = match &about.modules[..] {
            [] => "Unit's log lists its modules".to_owned(),
            all => format!("this Unit has {}", all.join(", ")),
        };
        return Some(format!(
            "{has}; set \"type\" to a language, alone (\"python\") or with the first numbers of its version \
             (\"python 3\", \"python 3.11\"; 3.1 does not match 3.11), or use another image for another language"
        ));
    }
    if detail.starts_with("Request \"pass\"") {
        let names = json::parse(config.written()).map(|document| destinations(&document)).unwrap_or_default();
        let names = if names.is_empty() { "(none)".into() } else { names.join(", ") };
        return Some(format!("set \"pass\" to a target in this configuration: {names}"));
    }
    if detail.starts_with("The listener address") {
        return Some(if detail.contains("{{") || detail.contains("${") {
            "render the template first: the file still has its placeholders".into()
        } else {
            "use \"*:PORT\", \"IP:PORT\", \"[IPv6]:PORT\" or \"unix:PATH\"; Unit does not accept host names".into()
        });
    }
    if !detail.starts_with("Unknown parameter") {
        return None;
    }
    // podstrap knows the members of a whole configuration only.
    let name = detail.split('"').nth(1).filter(|_| about.at == "/config");
    let findings = name.map(|_| check(config.written(), None).findings).unwrap_or_default();
    let unknown = findings.into_iter().find(|finding| {
        finding.rule == "unknown-member" && name.is_some_and(|name| finding.message.ends_with(&format!("\"{name}\"")))
    });
    let hint = unknown.and_then(|finding| finding.hint);
    hint.or_else(|| Some("check the spelling of the name, the object that contains it, and the version of Unit".into()))
}

impl Location {
    /// Line and column of invalid JSON, calculated from the offset if Unit gives none.
    fn place(&self, bytes: &[u8]) -> Option<(usize, usize)> {
        let offset = self.offset?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            return Some((line, column));
        }
        Some(line_and_column(without_bom(bytes), offset))
    }
}

/// For any answer and configuration: the message has no control characters.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let Some((status, rest)) = data.split_first() else { return };
    let mut halves = rest.splitn(2, |byte| *byte == b'|');
    let mut half = || halves.next().unwrap_or_default().to_vec();
    let reply = Reply { status: u16::from(*status) * 4, server: "Unit".into(), body: half().into() };
    let config = Config::new("c.json".into(), half());
    let about = About { modules: modules(&reply.body), ..About::default() };
    asks_for_modules(&reply);
    places::fuzz(data);
    let text = refused(&config, "unix:/x", &reply, &about).to_string();
    assert!(!text.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{text:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_unit_does_not_count_is_counted_here() {
        let location = Location { offset: Some(6), line: None, column: None, path: None };
        assert_eq!(location.place(b"\xef\xbb\xbfa\n\xff\xfebc"), Some((2, 5)));
    }

    /// Bodies as FreeUnit 1.36.0 sent them.
    #[test]
    fn where_freeunit_says_the_value_is_the_caret_stands() {
        let said = |text: &str, at: &str, body: &'static str| {
            let config = Config::new("c.json".into(), text.into());
            let reply = Reply { status: 400, server: "Unit/1.36.0".into(), body: body.into() };
            refused(&config, "unix:/x", &reply, &About { at: at.into(), ..About::default() }).to_string()
        };
        let app = "{\"type\": \"python\",\n \"module\": \"x\", \"bad\": 1}";
        let unknown = r#"{"error": "Invalid configuration.", "detail": "Unknown parameter \"bad\".",
            "location": {"path": "/applications/a"}}"#;
        let whole = format!("{{\"bad\": {{}}, \"applications\":\n{{\"b\": {app}, \"a\": {app}}}}}");
        let text = said(&whole, "/config", unknown);
        assert!(text.contains("because: c.json:4:17\n  |  \"module\": \"x\", \"bad\": 1}}}"), "{text}");
        // Places are those of the user's text, also if Unit got another, such as a trial.
        let config = Config::new("c.json".into(), whole.clone().into()).derived(b"{}".into());
        let trial = unknown.replace("/applications/a", "/applications/a@podstrap").into_bytes();
        let reply = Reply { status: 400, server: "Unit/1.36.0".into(), body: trial.into() };
        let about = About { at: "/config".into(), ..About::default() };
        let text = refused(&config, "unix:/x", &reply, &about).to_string();
        assert!(text.contains("because: c.json:4:17\n  |  \"module\": \"x\", \"bad\": 1}}}"), "{text}");
        let text = said(app, "/config/applications/a", unknown);
        assert!(text.contains("because: c.json:2:17\n"), "{text}");
        // FreeUnit after 1.36.1 suggests a name; for others, podstrap does.
        let suggested = unknown.replacen("\"detail\"", "\"suggestion\": \"path\", \"detail\"", 1).leak();
        assert!(said(&whole, "/config", suggested).ends_with("hint: did you mean \"path\"?"));
        let misspelt = r#"{"applications": {"a": {"type": "python", "modul": "wsgi"}}}"#;
        let plain = r#"{"error": "Invalid configuration.", "detail": "Unknown parameter \"modul\"."}"#;
        assert!(said(misspelt, "/config", plain).ends_with("hint: did you mean \"module\"?"));
        // An empty pointer, the root, is not a place.
        let root = r#"{"error": "Invalid configuration.", "detail": "Required parameter \"x\" is missing.",
            "location": {"path": ""}}"#;
        assert!(!said(&whole, "/config", root).contains('^'));
        let json = r#"{"error": "Invalid JSON.", "detail": "Unexpected end of JSON payload.",
            "location": {"offset": 5, "line": 1, "column": 6}}"#;
        assert!(said("{\"a\":", "/config", json).starts_with("error: c.json:1:6: invalid JSON"));
    }

    #[test]
    fn modules_of_one_and_of_several_versions() {
        let status =
            br#"{"modules": {"python": {"version": "3.11.2"}, "php": [{"version": "8.2"}, {"version": "8.3"}]}}"#;
        assert_eq!(modules(status), ["python 3.11.2", "php 8.2", "php 8.3"]);
        assert!(modules(b"{}").is_empty() && modules(b"x").is_empty());
    }
}
