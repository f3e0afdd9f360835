//! Finds the applications, listeners and `pass` targets of a configuration.
//!
//! Only this file knows their paths. A configuration is a [`Value`], or a [`Document`] where positions
//! matter. For a value, `at` is its path in the control API: `/config`, or that of a part, such as
//! `/config/applications/blog`.

use serde_json::Value;

use super::json::{Document, Field, Id, Node};
use super::segments;

const APPLICATIONS: &str = "applications";
const LISTENERS: &str = "listeners";

/// The parts whose members a `pass` can name.
const DESTINATIONS: [&str; 3] = [APPLICATIONS, "upstreams", "routes"];

/// The applications of a configuration, by name.
pub fn applications(config: &Value) -> impl Iterator<Item = (&String, &Value)> {
    section(config, APPLICATIONS)
}

/// The listeners of a configuration, by address.
pub fn listeners(config: &Value) -> impl Iterator<Item = (&String, &Value)> {
    section(config, LISTENERS)
}

pub fn listeners_mut(config: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    section_mut(config, LISTENERS)
}

pub fn applications_mut(config: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    section_mut(config, APPLICATIONS)
}

/// The applications of a configuration, or of the part at the path `at`.
pub fn applications_at<'v>(at: &str, part: &'v Value) -> Vec<(String, &'v Value)> {
    section_at(at, part, APPLICATIONS)
}

/// The same for listeners.
pub fn listeners_at<'v>(at: &str, part: &'v Value) -> Vec<(String, &'v Value)> {
    section_at(at, part, LISTENERS)
}

/// The parts of an application that name code: each of its `targets`, or the application itself.
pub fn entries(app: &Value) -> Vec<&Value> {
    match app.get("targets").and_then(Value::as_object) {
        Some(targets) => targets.values().collect(),
        None => vec![app],
    }
}

fn section<'v>(config: &'v Value, name: &str) -> impl Iterator<Item = (&'v String, &'v Value)> + use<'v> {
    config.get(name).and_then(Value::as_object).into_iter().flatten()
}

fn section_mut<'v>(config: &'v mut Value, name: &str) -> impl Iterator<Item = (&'v String, &'v mut Value)> + use<'v> {
    config.get_mut(name).and_then(Value::as_object_mut).into_iter().flatten()
}

fn section_at<'v>(at: &str, part: &'v Value, wanted: &str) -> Vec<(String, &'v Value)> {
    let owned = |(name, value): (&String, &'v Value)| (name.clone(), value);
    let names = segments::of_place(at).unwrap_or_default();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    match names[..] {
        ["config"] => section(part, wanted).map(owned).collect(),
        ["config", name] if name == wanted => part.as_object().into_iter().flatten().map(owned).collect(),
        ["config", part_of, name] if part_of == wanted => vec![(name.to_owned(), part)],
        _ => Vec::new(),
    }
}

/// The applications of a document.
pub fn applications_in<'d>(document: &'d Document) -> &'d [Field] {
    section_in(document, APPLICATIONS)
}

/// The listeners of a document.
pub fn listeners_in<'d>(document: &'d Document) -> &'d [Field] {
    section_in(document, LISTENERS)
}

/// The targets of an application; None if it has no `targets`.
pub fn targets_in<'d>(document: &'d Document, app: Id) -> Option<&'d [Field]> {
    document.get(app, "targets").map(|targets| document.members(targets))
}

/// Whether the target of a `pass` exists in the document.
pub fn leads_somewhere(document: &Document, names: &[Vec<u8>]) -> bool {
    let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
    let named = |part: &str, name: &[u8]| {
        section_in(document, part).iter().find(|field| field.name == name).map(|field| field.value)
    };
    match names[..] {
        [b"applications", app] => named(APPLICATIONS, app).is_some(),
        [b"applications", app, target] => named(APPLICATIONS, app)
            .and_then(|app| targets_in(document, app))
            .is_some_and(|targets| targets.iter().any(|field| field.name == target)),
        [b"upstreams", name] => named("upstreams", name).is_some(),
        [b"routes"] => has_unnamed_routes(document),
        [b"routes", name] => named("routes", name).is_some(),
        _ => false,
    }
}

/// All possible targets of a `pass` in the document, in its syntax.
pub fn destinations(document: &Document) -> Vec<String> {
    let text = |bytes: &[u8]| segments::encoded(&String::from_utf8_lossy(bytes));
    let mut all = Vec::new();
    for part in DESTINATIONS {
        if part == "routes" && has_unnamed_routes(document) {
            all.push(part.to_owned());
        }
        for field in section_in(document, part) {
            let name = text(&field.name);
            match targets_in(document, field.value).filter(|_| part == APPLICATIONS) {
                Some(targets) => {
                    all.extend(targets.iter().map(|target| format!("{part}/{name}/{}", text(&target.name))));
                }
                None => all.push(format!("{part}/{name}")),
            }
        }
    }
    all
}

fn section_in<'d>(document: &'d Document, name: &str) -> &'d [Field] {
    document.get(document.root(), name).map(|id| document.members(id)).unwrap_or_default()
}

fn has_unnamed_routes(document: &Document) -> bool {
    document.get(document.root(), "routes").is_some_and(|id| matches!(document.node(id), Node::Array(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::json::parse;
    use serde_json::json;

    #[test]
    fn applications_are_found_at_any_place() {
        let config = json!({"applications": {"a": {}, "b": {"type": "php"}}, "listeners": {"*:80": {}}});
        let apps = &config["applications"];
        for (at, part, found) in [
            ("/config", &config, &["a", "b"][..]),
            ("/config/applications/", apps, &["a", "b"]),
            ("/config/applications/x%2Fy", &apps["b"], &["x/y"]),
            ("/config/routes", &json!([]), &[]),
            ("/config", &json!([]), &[]),
            ("/config/listeners", &config["listeners"], &[]),
        ] {
            let names: Vec<_> = applications_at(at, part).into_iter().map(|(name, _)| name).collect();
            assert_eq!(names, found, "{at}");
        }
        for (at, part) in
            [("/config", &config), ("/config/listeners", &config["listeners"]), ("/config/listeners/*:80", &json!({}))]
        {
            assert_eq!(listeners_at(at, part), [("*:80".to_owned(), &json!({}))], "{at}");
        }
    }

    #[test]
    fn destinations_are_what_a_pass_can_name() {
        let text = br#"{"applications": {"a/b": {}, "t": {"targets": {"x": {}}}}, "upstreams": {"u": {}}, "routes": [], "listeners": {}}"#;
        let document = parse(text).unwrap();
        let all = destinations(&document);
        assert_eq!(all, ["applications/a%2Fb", "applications/t/x", "upstreams/u", "routes"]);
        let leads = |pass: &str| leads_somewhere(&document, &segments::of_pass(pass.as_bytes()).unwrap());
        assert!(all.iter().all(|pass| leads(pass)) && leads("applications/t"));
        for pass in ["applications/c", "applications/t/y", "routes/a", "upstreams", "listeners", "x/y/z"] {
            assert!(!leads(pass), "{pass}");
        }
    }
}
