//! Maps paths of the app's container to paths of this machine.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::applications::{applications, applications_mut};

/// Members that concern requests. Their paths are not files of the tree.
const OF_REQUESTS: [&str; 6] = ["match", "prefix", "rewrite", "location", "proxy", "response_headers"];
/// Members whose own members have names that the user chose.
const NAMED: [&str; 4] = ["applications", "routes", "upstreams", "environment"];

/// A directory in the app's container, and the same one on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    there: PathBuf,
    here: PathBuf,
    /// The only names below the directory that are mapped; `None` for all.
    names: Option<Vec<OsString>>,
}

impl Mapping {
    pub fn new(there: PathBuf, here: PathBuf) -> Self {
        Self { there, here, names: None }
    }

    /// Leaves out paths with another first name below the directory: other programs made them.
    #[must_use]
    pub fn only(self, names: Vec<OsString>) -> Self {
        Self { names: Some(names), ..self }
    }

    /// Derives the mapping from the environment: its path in the container, and its directory in the tree.
    ///
    /// Removes their common ending. `/app/python/venv` and `python/venv` map `/app` to the tree itself.
    /// `/venv` and `python/venv` map `/` to `python` in the tree.
    pub fn by_environment(home: &Path, venv: &Path, tree: &Path) -> Self {
        let (mut there, mut inside) = (home, venv);
        while ends_alike(there, inside) {
            there = there.parent().unwrap_or(Path::new("/"));
            inside = inside.parent().unwrap_or(Path::new(""));
        }
        Self::new(there.to_owned(), joined(tree, inside))
    }

    /// Maps a path of the container to this machine; None outside the directory.
    pub fn here(&self, path: &Path) -> Option<PathBuf> {
        let rest = path.strip_prefix(&self.there).ok()?;
        let first = rest.iter().next();
        let is_known = |first: &OsStr| self.names.as_ref().is_none_or(|names| names.iter().any(|name| name == first));
        first.is_none_or(is_known).then(|| joined(&self.here, rest))
    }

    /// Maps the paths in a value: one path, a path with Unit's variables (`/app$uri`, `/app/static$uri`), also in a
    /// template literal of njs, a list of paths with colons, or a flag with a path (`--dir=/app/lib`).
    fn text(&self, text: &str) -> String {
        let mapped = |part: &str| {
            let flag = || part.split_once('=').and_then(|(name, value)| Some(format!("{name}={}", self.path(value)?)));
            self.path(part).or_else(flag)
        };
        let part = |(number, part): (usize, &str)| {
            // `http://app/lib` has a host.
            let is_host = number > 0 && part.starts_with("//") && !part.starts_with("///");
            mapped(part).filter(|_| !is_host).unwrap_or_else(|| part.to_owned())
        };
        text.split(':').enumerate().map(part).collect::<Vec<_>>().join(":")
    }

    /// Maps a path that may begin a template literal, and end with variables.
    fn path(&self, text: &str) -> Option<String> {
        let start = usize::from(text.starts_with('`'));
        // A URL has more slashes: `sqlite:////app/db`.
        let start = start + (text[start..].len() - text[start..].trim_start_matches('/').len()).saturating_sub(1);
        let end = text[start..].find(['$', '`']).map_or(text.len(), |at| start + at);
        let path = &text[start..end];
        let here = self.here(Path::new(path))?;
        // `/app/$uri` keeps its slash.
        let slash = if path.len() > 1 && path.ends_with('/') { "/" } else { "" };
        Some(format!("{}{}{slash}{}", &text[..start], here.to_string_lossy(), &text[end..]))
    }
}

/// Whether two paths have the same last name.
pub fn ends_alike(a: &Path, b: &Path) -> bool {
    a.file_name().is_some_and(|name| b.file_name() == Some(name))
}

/// Joins without a trailing slash if the rest is empty.
fn joined(dir: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() { dir.to_owned() } else { dir.join(rest) }
}

/// Adapts a configuration for the app's container to this machine.
///
/// Paths below the tree in the container become paths in `tree`. Removes `user` and `group`. The path of
/// the tree in the container follows from that of the environment: `final_path`, or the `home` of the
/// first application that has one.
pub fn localize(config: &mut Value, final_path: Option<&Path>, venv: &Path, tree: &Path) {
    let home = applications(config).find_map(|(_, app)| app.get("home")?.as_str().map(PathBuf::from));
    if let Some(home) = final_path.map(Path::to_owned).or(home) {
        remap(config, &Mapping::by_environment(&home, venv, tree));
    }
    for (_, application) in applications_mut(config) {
        let Some(members) = application.as_object_mut() else { continue };
        for name in ["user", "group"] {
            if members.shift_remove(name).is_some() {
                tracing::info!("the configuration's \"{name}\" is ignored on this machine");
            }
        }
    }
}

/// Maps every path below the directory in the container, wherever the configuration names it: except for the members
/// that concern requests.
pub fn remap(value: &mut Value, mapping: &Mapping) {
    remap_members(value, mapping, false);
}

fn remap_members(value: &mut Value, mapping: &Mapping, are_named: bool) {
    match value {
        Value::String(text) => {
            *text = mapping.text(text);
        }
        Value::Array(values) => values.iter_mut().for_each(|value| remap(value, mapping)),
        Value::Object(members) => members
            .iter_mut()
            .filter(|(name, _)| are_named || !OF_REQUESTS.contains(&name.as_str()))
            .for_each(|(name, value)| {
                remap_members(value, mapping, !are_named && NAMED.contains(&name.as_str()));
            }),
        _ => {}
    }
}

/// For any configuration: the adapted one has no user or group.
#[cfg(fuzzing)]
pub fn fuzz(config: &mut Value) {
    localize(config, None, Path::new("python/venv"), Path::new("/here"));
    assert!(applications(config).all(|(_, app)| app.get("user").is_none() && app.get("group").is_none()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn where_the_tree_is_follows_from_the_environment() {
        for (home, venv, there, here) in [
            ("/app/python/venv", "python/venv", "/app", "/t"),
            ("/venv", "python/venv", "/", "/t/python"),
            ("/other", "venv", "/other", "/t/venv"),
        ] {
            let mapping = Mapping::by_environment(Path::new(home), Path::new(venv), Path::new("/t"));
            assert_eq!(mapping, Mapping::new(there.into(), here.into()), "{home}");
            assert_eq!(mapping.here(Path::new(home)), Some(Path::new("/t").join(venv)), "{home}");
        }
        let mapping = Mapping::new("/app".into(), "/t".into());
        assert_eq!(mapping.here(Path::new("/appendix")), None);
    }

    #[test]
    fn only_what_the_tree_has_is_mapped_in_lists_and_before_variables_too() {
        let mapping = Mapping::new("/app".into(), "/t".into()).only(vec!["lib".into(), "static".into()]);
        for (text, mapped) in [
            ("/app", "/t"),
            ("/app/lib/x", "/t/lib/x"),
            ("/app/data/x", "/app/data/x"),
            ("/app$uri", "/t$uri"),
            ("/app/$uri", "/t/$uri"),
            ("/app/static$uri", "/t/static$uri"),
            ("/app/static/$host$uri", "/t/static/$host$uri"),
            ("/app/log$uri", "/app/log$uri"),
            ("/app/lib:/usr/lib:/app/data:/app", "/t/lib:/usr/lib:/app/data:/t"),
            ("lib", "lib"),
            ("/", "/"),
            ("", ""),
            ("a:b::c", "a:b::c"),
            ("`/app/static${uri}`", "`/t/static${uri}`"),
            ("`/app`", "`/t`"),
            ("--dir=/app/lib", "--dir=/t/lib"),
            ("--dir=/app/data", "--dir=/app/data"),
            ("A=/app/lib:/app/lib/x=y", "A=/t/lib:/t/lib/x=y"),
            ("sqlite:////app/lib/db", "sqlite:////t/lib/db"),
            ("file:///app/lib", "file:///t/lib"),
            ("http://app/lib", "http://app/lib"),
        ] {
            assert_eq!(mapping.text(text), mapped);
        }
    }

    #[test]
    fn names_that_the_user_chose_exclude_nothing() {
        let mapping = Mapping::new("/app".into(), "/t".into());
        let mut config = json!({
            "applications": {"proxy": {"path": "/app", "environment": {"match": "/app/x", "prefix": "/app"}, "prefix": "/app"}},
            "routes": {"rewrite": [{"match": {"uri": "/app/*"}, "action": {"share": "/app$uri",
                "response_headers": {"Location": "/app/x"}, "rewrite": "/app/y"}}]},
        });
        remap(&mut config, &mapping);
        assert_eq!(
            config,
            json!({
                "applications": {"proxy": {"path": "/t", "environment": {"match": "/t/x", "prefix": "/t"}, "prefix": "/app"}},
                "routes": {"rewrite": [{"match": {"uri": "/app/*"}, "action": {"share": "/t$uri",
                    "response_headers": {"Location": "/app/x"}, "rewrite": "/app/y"}}]},
            })
        );
    }

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
}
