//! What `up` reads in, and changes of, an app's Unit configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};

/// Makes a configuration that was written for the app's container right for this machine: paths
/// below the tree's place there become paths in `tree`; `user` and `group` go.
///
/// Where the tree is in the container follows from where the environment is: `final_path`, or
/// else the `home` of the first application that has one.
pub fn localize(config: &mut Value, final_path: Option<&Path>, venv: &Path, tree: &Path) {
    let home = applications(config).find_map(|app| app.get("home")?.as_str().map(PathBuf::from));
    if let Some((there, here)) = final_path.map(Path::to_owned).or(home).map(|home| split(&home, venv)) {
        let here = if here.as_os_str().is_empty() { tree.to_owned() } else { tree.join(here) };
        remap(config, &there, &here);
    }
    for application in
        config.get_mut("applications").and_then(Value::as_object_mut).into_iter().flat_map(|apps| apps.values_mut())
    {
        if let Some(members) = application.as_object_mut() {
            for name in ["user", "group"] {
                if members.shift_remove(name).is_some() {
                    tracing::info!("the configuration's \"{name}\" is left out here");
                }
            }
        }
    }
}

/// The first `home` that does not exist.
pub fn missing_home(config: &Value) -> Option<&str> {
    applications(config).filter_map(|app| app.get("home")?.as_str()).find(|home| !Path::new(home).is_dir())
}

/// Removes what the two paths end in alike: `/app/python/venv` and `python/venv` are `/app` there
/// and the tree itself here; `/venv` and `python/venv` are `/` and `python`.
pub(crate) fn split(final_path: &Path, venv: &Path) -> (PathBuf, PathBuf) {
    let (mut there, mut here) = (final_path, venv);
    while let (Some(a), Some(b)) = (there.file_name(), here.file_name()) {
        if a != b {
            break;
        }
        there = there.parent().unwrap_or(Path::new("/"));
        here = here.parent().unwrap_or(Path::new(""));
    }
    (there.to_owned(), here.to_owned())
}

/// Members that are about requests, whose paths are no files.
const OF_REQUESTS: [&str; 4] = ["match", "prefix", "rewrite", "location"];

/// Replaces `from` at the start of every string by `to`.
fn remap(value: &mut Value, from: &Path, to: &Path) {
    match value {
        Value::String(text) => {
            if let Ok(rest) = Path::new(text.as_str()).strip_prefix(from) {
                // A joined empty path would get a slash at its end.
                let mapped = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
                *text = mapped.to_string_lossy().into_owned();
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| remap(value, from, to)),
        Value::Object(members) => members
            .iter_mut()
            .filter(|(name, _)| !OF_REQUESTS.contains(&name.as_str()))
            .for_each(|(_, value)| remap(value, from, to)),
        _ => {}
    }
}

/// The address of the first TCP listener.
pub fn listener(config: &Value) -> Option<&str> {
    config.get("listeners")?.as_object()?.keys().map(String::as_str).find(|address| url_of(address).is_some())
}

/// `*:8300` → `http://127.0.0.1:8300/`
pub fn url_of(address: &str) -> Option<reqwest::Url> {
    let (host, port) = address.rsplit_once(':')?;
    let host = match host {
        "*" | "0.0.0.0" => "127.0.0.1",
        "[::]" => "[::1]",
        "unix" => return None,
        host => host,
    };
    reqwest::Url::parse(&format!("http://{host}:{port}/")).ok()
}

fn applications(config: &Value) -> impl Iterator<Item = &Value> {
    config.get("applications").and_then(Value::as_object).into_iter().flat_map(|apps| apps.values())
}

/// A Python application's members, as far as a WSGI server can honour them.
#[derive(Debug, PartialEq, Eq)]
pub struct Wsgi {
    /// What follows `python` in `type`.
    version: String,
    pub path: Vec<String>,
    pub module: String,
    pub callable: String,
    pub factory: bool,
    pub working_directory: Option<String>,
    pub environment: BTreeMap<String, String>,
    pub prefix: Option<String>,
}

impl Wsgi {
    /// Says if Unit would look for another Python than the environment's.
    pub fn warn_of_version(&self, python: &str) {
        let wanted: Vec<_> = self.version.split('.').filter(|part| !part.is_empty()).collect();
        let has: Vec<_> = python.split('.').collect();
        if !has.starts_with(&wanted) {
            tracing::warn!(
                "the configuration's type asks for Python {}, the environment has {python}: Unit would refuse it or not \
                 find its packages",
                self.version
            );
        }
    }
}

/// The Python application that the first listener passes to.
pub fn wsgi(config: &Value) -> Result<Wsgi> {
    let needs_unit = |what: &str| {
        Error::usage(format!("only Unit can serve this: {what}")).hint("put unitd on PATH and run `podstrap up` again")
    };
    let address = listener(config).unwrap_or_default();
    let pass = config["listeners"][address]["pass"].as_str().unwrap_or_default();
    let name =
        pass.strip_prefix("applications/").ok_or_else(|| needs_unit(&format!("\"{address}\" passes to \"{pass}\"")))?;
    let (name, target) = name.split_once('/').map_or((name, None), |(name, target)| (name, Some(target)));
    let application = &config["applications"][name];
    let kind = application["type"].as_str().unwrap_or_default();
    let version = kind
        .strip_prefix("python")
        .ok_or_else(|| needs_unit(&format!("application \"{name}\" has type \"{kind}\"")))?;
    if application["protocol"] == "asgi" {
        return Err(needs_unit(&format!("application \"{name}\" speaks ASGI")));
    }
    let entry = target.map_or(application, |target| &application["targets"][target]);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let module = text(&entry["module"])
        .ok_or_else(|| Error::usage(format!("application \"{name}\" names no module")).hint("add \"module\" to it"))?;
    Ok(Wsgi {
        version: version.trim().to_owned(),
        path: match &application["path"] {
            Value::Array(paths) => paths.iter().filter_map(text).collect(),
            path => path.as_str().map(str::to_owned).into_iter().collect(),
        },
        module,
        callable: text(&entry["callable"]).unwrap_or_else(|| "application".to_owned()),
        factory: entry["factory"] == true,
        working_directory: text(&application["working_directory"]),
        environment: application["environment"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some((name.clone(), text(value)?)))
            .collect(),
        prefix: text(&entry["prefix"]),
    })
}

/// A configuration made local names nothing below the container's tree, and no user or group.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let Ok(mut config) = serde_json::from_slice::<Value>(data) else { return };
    localize(&mut config, None, Path::new("python/venv"), Path::new("/here"));
    assert!(applications(&config).all(|app| app.get("user").is_none() && app.get("group").is_none()));
    let _ = (missing_home(&config), listener(&config).and_then(url_of));
    if let Err(error) = wsgi(&config) {
        let text = error.to_string();
        assert!(!text.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{text:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn container_paths_become_paths_in_the_tree() {
        let mut config = json!({
            "listeners": {"*:8300": {"pass": "applications/flask"}},
            "applications": {"flask": {
                "type": "python 3.5", "user": "root", "working_directory": "/app/python",
                "path": ["/app/python/flask", "/appendix"], "home": "/app/python/venv", "module": "index",
            }},
        });
        localize(&mut config, None, Path::new("python/venv"), Path::new("/t"));
        let app = &config["applications"]["flask"];
        assert_eq!(app["working_directory"], "/t/python");
        assert_eq!(app["path"], json!(["/t/python/flask", "/appendix"]));
        assert_eq!(app["home"], "/t/python/venv");
        assert_eq!(app.get("user"), None);
        let wsgi = wsgi(&config).unwrap();
        assert_eq!(
            (wsgi.version.as_str(), wsgi.module.as_str(), wsgi.callable.as_str()),
            ("3.5", "index", "application")
        );
    }

    #[test]
    fn paths_of_requests_stay() {
        let routes =
            json!([{"match": {"uri": ["/app/*", "!/app"]}, "action": {"rewrite": "/app/x", "location": "/app"}}]);
        let mut config = json!({"routes": routes, "applications": {"a": {"home": "/app/venv", "prefix": "/app"}}});
        localize(&mut config, None, Path::new("venv"), Path::new("/t"));
        assert_eq!((&config["routes"], &config["applications"]["a"]["prefix"]), (&routes, &json!("/app")));
    }

    #[test]
    fn the_tree_itself_gets_no_slash() {
        let mut config = json!({"applications": {"a": {"working_directory": "/app", "home": "/app/venv"}}});
        localize(&mut config, None, Path::new("venv"), Path::new("/t"));
        assert_eq!(config["applications"]["a"]["working_directory"], "/t");
    }

    #[test]
    fn listeners_become_urls() {
        assert_eq!(url_of("*:80").unwrap().as_str(), "http://127.0.0.1/");
        assert_eq!(url_of("[::]:8300").unwrap().as_str(), "http://[::1]:8300/");
        assert_eq!(url_of("unix:/x.sock"), None);
    }

    #[test]
    fn what_only_unit_can_do_is_refused() {
        let routes = json!({"listeners": {"*:1": {"pass": "routes"}}, "routes": []});
        assert!(wsgi(&routes).unwrap_err().to_string().contains("only Unit"));
        let asgi = json!({"listeners": {"*:1": {"pass": "applications/a"}},
            "applications": {"a": {"type": "python", "module": "m", "protocol": "asgi"}}});
        assert!(wsgi(&asgi).unwrap_err().to_string().contains("ASGI"));
    }
}
