//! An application that Unit tried to start.

use std::path::Path;

use serde_json::Value;

use super::scene::Scene;
use crate::config::language::{language, version_matches};

/// An application of the configuration.
#[derive(Debug)]
pub(super) struct NewApp<'v> {
    pub(super) name: String,
    pub(super) members: &'v Value,
}

impl<'v> NewApp<'v> {
    pub(super) fn text(&self, member: &str) -> Option<&'v str> {
        self.members.get(member)?.as_str()
    }

    pub(super) fn path(&self, member: &str) -> Option<&'v Path> {
        self.text(member).map(Path::new)
    }

    /// The language, and its module in Unit's status.
    pub(super) fn language_module<'s>(&self, scene: &'s Scene) -> Option<(&'v str, &'s Value)> {
        let (language, version) = language(self.text("type")?);
        let module = scene.status.get("modules")?.get(language)?;
        let all = match module {
            Value::Array(all) => &all[..],
            one => std::slice::from_ref(one),
        };
        let fits = |one: &&Value| one["version"].as_str().is_some_and(|has| version_matches(has, version));
        Some((language, all.iter().find(fits)?))
    }

    /// `X.Y` of the Python that will run the application.
    pub(super) fn python(&self, scene: &Scene) -> Option<String> {
        let ("python", module) = self.language_module(scene)? else { return None };
        let mut numbers = module.get("version")?.as_str()?.split('.');
        Some(format!("{}.{}", numbers.next()?, numbers.next()?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{dir, scene};
    use super::*;
    use serde_json::json;

    #[test]
    fn the_python_is_the_one_that_the_type_asks_for() {
        let dir = dir();
        let modules = json!({"python": [{"version": "3.11.2"}, {"version": "3.1.4"}], "php": {"version": "8.2"}});
        let scene = Scene { status: json!({ "modules": modules }), ..scene(dir.path()) };
        for (kind, python) in [
            ("python", Some("3.11")),
            ("python 3.1", Some("3.1")),
            ("python3.11", Some("3.11")),
            ("python 2", None),
            ("php", None),
        ] {
            let members = json!({ "type": kind });
            let app = NewApp { name: "a".into(), members: &members };
            assert_eq!(app.python(&scene).as_deref(), python, "{kind}");
        }
    }
}
