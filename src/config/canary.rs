//! A configuration with a second copy of another one: the applications of a new release, tried beside those that serve.
//!
//! The copy has its own names. What Unit runs stays the same, so Unit keeps its processes and their requests.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::address::Address;
use super::applications::{applications, listeners};
use super::segments;

/// Ends the names of the copy.
const COPY: &str = "@podstrap";
/// The parts whose members the copy renames.
const NAMED: [&str; 3] = ["applications", "routes", "upstreams"];
/// Begins the paths whose requests start the applications of the copy.
const START: &str = "/.podstrap/start/";
/// The name of a former unnamed list of routes, which cannot stay unnamed beside others.
const UNNAMED: &str = "podstrap";

/// The listener of a trial.
#[derive(Debug, Clone, Copy)]
pub struct Trial<'a> {
    /// Its address: `unix:/run/…`.
    pub listener: &'a str,
    /// The path of requests that get `file`.
    pub uri: &'a str,
    pub file: &'a Path,
    /// All other requests get what this port has in the new configuration; without a port, nothing.
    pub port: Option<u16>,
}

/// `current`, and beside it a copy of `wanted`: every application with at most one process, and the listener.
///
/// A process starts with the first request, so Unit takes the copy even if an application cannot start: Unit 1.35 and
/// FreeUnit 1.36 may lose their listening sockets when they give up a configuration, if a connection of an earlier one
/// ends meanwhile (`keeping_sockets` in `nxt_router.c`). They would serve on, and refuse every later configuration.
///
/// # Errors
/// Why the page of the port cannot be tried: its target is computed for each request, or no listener has the port.
pub fn beside(current: &Value, wanted: &Value, trial: Trial<'_>) -> Result<Value, String> {
    let mut both = match current {
        Value::Object(members) => members.clone(),
        _ => Map::new(),
    };
    if let Some(Value::Array(steps)) = both.get("routes").cloned() {
        both.insert("routes".into(), json!({ UNNAMED: steps }));
        let mut whole = Value::Object(both);
        each_pass(&mut whole, &mut |pass| {
            Ok(if pass == "routes" { format!("routes/{UNNAMED}") } else { pass.to_owned() })
        })?;
        let Value::Object(members) = whole else { return Err("it is no object".to_owned()) };
        both = members;
    }
    let mut copy = wanted.clone();
    let mut steps = vec![json!({"match": {"uri": trial.uri}, "action": {"share": trial.file}})];
    let mut routes = Vec::new();
    if let Some(port) = trial.port {
        each_pass(&mut copy, &mut renamed)?;
        let at = |address: &str| Address::read(address.as_bytes()).and_then(|address| address.port());
        let found = listeners(&copy).find(|(address, _)| at(address) == Some(port));
        let pass = found.and_then(|(_, listener)| listener.get("pass"));
        let pass = pass.ok_or_else(|| format!("no listener has the port {port}"))?;
        steps.push(json!({"action": {"pass": pass}}));
        match copy.get("routes") {
            Some(Value::Array(steps)) => routes.push((named("routes"), Value::Array(steps.clone()))),
            Some(Value::Object(all)) => routes.extend(all.iter().map(|(name, steps)| (named(name), steps.clone()))),
            _ => {}
        }
        let upstreams = copy.get("upstreams").and_then(Value::as_object).into_iter().flatten();
        add(&mut both, "upstreams", upstreams.map(|(name, upstream)| (named(name), upstream.clone())))?;
    }
    let starts = applications(&copy).zip(copies(wanted)).map(|((_, app), (name, uri))| {
        let target = app.get("targets").and_then(Value::as_object).and_then(|targets| targets.keys().next());
        let names = ["applications".to_owned(), name].into_iter().chain(target.cloned());
        let pass = names.map(|name| segments::encoded(&name)).collect::<Vec<_>>().join("/");
        json!({"match": {"uri": uri}, "action": {"pass": pass}})
    });
    steps.splice(1..1, starts);
    routes.push((COPY.to_owned(), Value::Array(steps)));
    add(&mut both, "routes", routes.into_iter())?;
    let apps = applications(&copy).map(|(name, app)| {
        let mut app = app.clone();
        if let Some(members) = app.as_object_mut() {
            members.insert("processes".into(), json!({"max": 1, "spare": 0}));
        }
        (named(name), app)
    });
    add(&mut both, "applications", apps)?;
    let listener = json!({"pass": format!("routes/{}", segments::encoded(COPY))});
    add(&mut both, "listeners", [(trial.listener.to_owned(), listener)].into_iter())?;
    Ok(Value::Object(both))
}

/// The applications of the copy, and for each the path of the trial's listener that starts it.
pub fn copies(wanted: &Value) -> Vec<(String, String)> {
    applications(wanted).enumerate().map(|(number, (name, _))| (named(name), format!("{START}{number}"))).collect()
}

/// The name of the application of which it is a copy.
pub fn original(name: &str) -> &str {
    name.strip_suffix(COPY).unwrap_or(name)
}

/// The JSON Pointer of the value of which it is a copy.
pub fn original_path(pointer: &str) -> String {
    pointer.split('/').map(original).collect::<Vec<_>>().join("/")
}

/// Whether an application belongs to a trial.
pub fn is_of_trial(name: &str) -> bool {
    name.ends_with(COPY)
}

fn named(name: &str) -> String {
    format!("{name}{COPY}")
}

fn add(
    config: &mut Map<String, Value>,
    part: &str,
    members: impl Iterator<Item = (String, Value)>,
) -> Result<(), String> {
    let members: Vec<_> = members.collect();
    if members.is_empty() {
        return Ok(());
    }
    let there = config.entry(part).or_insert_with(|| json!({}));
    there.as_object_mut().ok_or_else(|| format!("{part} is no object"))?.extend(members);
    Ok(())
}

/// The target in the copy.
fn renamed(pass: &str) -> Result<String, String> {
    if pass.contains(['$', '`']) {
        return Err(format!("the target {pass:?} is computed for each request"));
    }
    let names = segments::of_pass(pass.as_bytes()).ok_or_else(|| format!("the target {pass:?} is invalid"))?;
    let mut names: Vec<String> = names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    match &mut names[..] {
        [part] if part == "routes" => names.push(named("routes")),
        [part, name, ..] if NAMED.contains(&part.as_str()) => name.push_str(COPY),
        _ => return Err(format!("the target {pass:?} is unknown")),
    }
    Ok(names.iter().map(|name| segments::encoded(name)).collect::<Vec<_>>().join("/"))
}

/// Replaces every `pass` of listeners and of the actions in routes.
fn each_pass(config: &mut Value, replace: &mut impl FnMut(&str) -> Result<String, String>) -> Result<(), String> {
    let mut actions: Vec<&mut Value> = Vec::new();
    let Some(members) = config.as_object_mut() else { return Ok(()) };
    for (name, value) in members {
        match (name.as_str(), value) {
            ("listeners", Value::Object(listeners)) => actions.extend(listeners.values_mut()),
            ("routes", Value::Array(steps)) => {
                actions.extend(steps.iter_mut().filter_map(|step| step.get_mut("action")));
            }
            ("routes", Value::Object(routes)) => {
                let steps = routes.values_mut().filter_map(Value::as_array_mut).flatten();
                actions.extend(steps.filter_map(|step| step.get_mut("action")));
            }
            _ => {}
        }
    }
    while let Some(action) = actions.pop() {
        let Some(members) = action.as_object_mut() else { continue };
        for (name, value) in members {
            match (name.as_str(), value) {
                ("pass", Value::String(pass)) => *pass = replace(pass)?,
                ("fallback", fallback) => actions.push(fallback),
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "unix:/run/canary.sock";

    fn trial(port: Option<u16>) -> Trial<'static> {
        Trial { listener: AT, uri: "/r", file: Path::new("/f"), port }
    }

    #[test]
    fn the_copy_has_its_own_names_and_what_runs_stays() {
        let step = json!({"match": {"arguments": {"pass": "routes"}},
            "action": {"share": "/x", "fallback": {"pass": "routes"}}});
        let current = json!({"listeners": {"*:8300": {"pass": "routes"}}, "routes": [step],
            "applications": {"a": {"path": "/1"}}});
        let wanted = json!({
            "listeners": {"*:8300": {"pass": "routes", "tls": {}}, "*:1": {"pass": "applications/a/t"}},
            "routes": [
                {"action": {"pass": "applications/a%2Fb/t"}},
                {"action": {"share": "/y", "fallback": {"pass": "upstreams/u"}}},
            ],
            "upstreams": {"u": {}},
            "applications": {"a": {"path": "/2", "targets": {"t": {}}, "processes": {"max": 4}}},
        });
        let app = json!({"path": "/2", "targets": {"t": {}}, "processes": {"max": 1, "spare": 0}});
        let release = json!({"match": {"uri": "/r"}, "action": {"share": "/f"}});
        let both = beside(&current, &wanted, trial(Some(8300))).unwrap();
        let step = json!({"match": {"arguments": {"pass": "routes"}},
            "action": {"share": "/x", "fallback": {"pass": "routes/podstrap"}}});
        assert_eq!(
            both,
            json!({
                "listeners": {"*:8300": {"pass": "routes/podstrap"}, AT: {"pass": "routes/@podstrap"}},
                "routes": {
                    "podstrap": [step],
                    "routes@podstrap": [
                        {"action": {"pass": "applications/a%2Fb@podstrap/t"}},
                        {"action": {"share": "/y", "fallback": {"pass": "upstreams/u@podstrap"}}},
                    ],
                    "@podstrap": [
                        release,
                        {"match": {"uri": "/.podstrap/start/0"}, "action": {"pass": "applications/a@podstrap/t"}},
                        {"action": {"pass": "routes/routes@podstrap"}},
                    ],
                },
                "applications": {"a": {"path": "/1"}, "a@podstrap": app},
                "upstreams": {"u@podstrap": {}},
            })
        );
        let first = beside(&json!({}), &wanted, trial(Some(1))).unwrap();
        assert_eq!(first["routes"]["@podstrap"][2], json!({"action": {"pass": "applications/a@podstrap/t"}}));
        let alone = beside(&json!({}), &wanted, trial(None)).unwrap();
        assert_eq!(alone["routes"]["@podstrap"].as_array().unwrap().len(), 2);
        assert_eq!(copies(&wanted), [("a@podstrap".to_owned(), "/.podstrap/start/0".to_owned())]);
        assert!(is_of_trial("a@podstrap") && !is_of_trial("a"));
    }

    #[test]
    fn what_cannot_be_copied_is_named() {
        let wanted = |pass: &str| json!({"listeners": {"*:80": {"pass": pass}}});
        for (pass, why) in [
            ("applications/$host", "computed for each request"),
            ("`applications/${host}`", "computed for each request"),
            ("nowhere/a", "unknown"),
            ("", "invalid"),
        ] {
            assert!(beside(&json!({}), &wanted(pass), trial(Some(80))).unwrap_err().contains(why), "{pass}");
        }
        assert!(
            beside(&json!({}), &wanted("routes"), trial(Some(81))).unwrap_err().contains("no listener has the port 81")
        );
    }
}
