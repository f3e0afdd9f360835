//! Extracts the application that a WSGI server can serve instead of Unit.

use std::collections::BTreeMap;

use serde_json::Value;

use super::listener::listener;
use crate::config::language::{language, version_matches};
use crate::config::segments;
use crate::error::{Error, Result};

/// The members of a Python application that a WSGI server supports.
#[derive(Debug, PartialEq, Eq)]
pub struct Wsgi {
    /// The version after `python` in `type`.
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
    /// Warns if Unit would use another Python than the environment's.
    pub fn warn_of_version(&self, python: &str) {
        if !version_matches(python, &self.version) {
            tracing::warn!(
                "the configuration's type needs Python {}, but the environment has {python}: Unit would refuse \
                 the application or not find its packages",
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
    let (address, passes) = listener(config).unwrap_or_default();
    let pass = passes["pass"].as_str().unwrap_or_default();
    let elsewhere = || needs_unit(&format!("\"{address}\" passes to \"{pass}\""));
    let names = segments::of_pass(pass.as_bytes()).ok_or_else(elsewhere)?;
    let names: Vec<_> = names.iter().map(|name| String::from_utf8_lossy(name)).collect();
    let (name, target) = match &names[..] {
        [part, name] if part == "applications" => (name, None),
        [part, name, target] if part == "applications" => (name, Some(target)),
        _ => return Err(elsewhere()),
    };
    let application = &config["applications"][&**name];
    let kind = application["type"].as_str().unwrap_or_default();
    let ("python", version) = language(kind) else {
        return Err(needs_unit(&format!("application \"{name}\" has type \"{kind}\"")));
    };
    if application["protocol"] == "asgi" {
        return Err(needs_unit(&format!("application \"{name}\" speaks ASGI")));
    }
    let entry = target.map_or(application, |target| &application["targets"][&**target]);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let module = text(&entry["module"])
        .ok_or_else(|| Error::usage(format!("application \"{name}\" has no module")).hint("add \"module\" to it"))?;
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

/// For any configuration: the error has no control characters.
#[cfg(fuzzing)]
pub fn fuzz(config: &Value) {
    if let Err(error) = wsgi(config) {
        let text = error.to_string();
        assert!(!text.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{text:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_only_unit_can_do_is_refused() {
        let routes = json!({"listeners": {"*:1": {"pass": "routes"}}, "routes": []});
        assert!(wsgi(&routes).unwrap_err().to_string().contains("only Unit"));
        let asgi = json!({"listeners": {"*:1": {"pass": "applications/a"}},
            "applications": {"a": {"type": "python", "module": "m", "protocol": "asgi"}}});
        assert!(wsgi(&asgi).unwrap_err().to_string().contains("ASGI"));
    }

    #[test]
    fn the_application_is_the_one_that_the_listener_passes_to() {
        let config = |pass: &str| {
            json!({"listeners": {"*:1": {"pass": pass}}, "applications": {
                "a/b": {"type": "python 3.5", "module": "index", "path": "/app"},
                "t": {"type": "python3", "targets": {"x": {"module": "m", "callable": "c"}}},
            }})
        };
        let served = |pass| {
            let found = wsgi(&config(pass)).unwrap();
            (found.version, found.module, found.callable)
        };
        let wanted = |version: &str, module: &str, callable: &str| (version.into(), module.into(), callable.into());
        assert_eq!(served("applications/a%2Fb"), wanted("3.5", "index", "application"));
        assert_eq!(served("applications/t/x"), wanted("3", "m", "c"));
    }
}
