//! Checks a Python application's `home`: it must be an environment of one Python that matches `type`.

use std::path::{Path, PathBuf};

use super::files::{There, at, is_a, names, near, read};
use super::look::{Look, Named};
use super::search::Search;
use crate::config::language::{language, version_matches};

const REBUILD: &str = "build the environment again with `podstrap init --refresh`";

impl Look<'_> {
    /// Checks that the environment exists, has the right Python, and is readable.
    pub fn home(&mut self, home: &Named, kind: &Named, search: &mut Search) {
        let Some(here) = self.here(&home.text) else {
            search.elsewhere = true;
            return;
        };
        match at(&here) {
            There::Directory => {}
            There::Unknown => {
                search.elsewhere = true;
                return;
            }
            There::File | There::Nothing => {
                // A checkout has no environment yet.
                let built = at(&self.tree.dir.join(&self.tree.venv)) == There::Directory;
                let message = format!("no environment at {} in the tree", home.text);
                let hint = near(&here).map(|name| format!("did you mean {name}?"));
                if built {
                    let other = format!("use the environment at {}", self.tree.venv.display());
                    self.error("home", home, message).hint = hint.or(Some(other));
                } else {
                    let none =
                        "run `podstrap init` to build it; until then, podstrap does not check its packages".to_owned();
                    self.warn("home", home, message).hint = hint.or(Some(none));
                }
                search.elsewhere = true;
                return;
            }
        }
        let pyvenv = here.join("pyvenv.cfg");
        let config = read(&pyvenv);
        let libraries = libraries(&here);
        if config.is_some() {
            self.readable(home, &pyvenv);
        } else if !libraries.iter().any(|(_, library)| at(&library.join("os.py")) == There::File) {
            self.error("home", home, format!("{} is not an environment: it has no pyvenv.cfg", home.text)).hint =
                Some("use an environment: Unit needs pyvenv.cfg and lib/pythonX.Y/site-packages".to_owned());
            search.elsewhere = true;
            return;
        }
        let version = config.as_deref().and_then(version).or_else(|| libraries.last().map(|(name, _)| name.clone()));
        let minor = version.as_deref().map(minor_of);
        if libraries.is_empty() {
            self.error("home", home, format!("{} has no lib/pythonX.Y", home.text)).hint = Some(REBUILD.to_owned());
        } else if let Some(minor) = &minor
            && !libraries.iter().any(|(name, _)| name == minor)
        {
            let has: Vec<_> = libraries.iter().map(|(name, _)| format!("lib/python{name}")).collect();
            let message = format!("{} is for Python {minor}, but has {}", home.text, has.join(", "));
            self.error("home", home, message).hint = Some(REBUILD.to_owned());
        }
        for (_, library) in &libraries {
            let packages = library.join("site-packages");
            // Such a file may add the path of an editable installation.
            search.elsewhere |= names(&packages).iter().any(|name| is_a(name, "pth"));
            if at(&packages) == There::Directory {
                self.readable(home, &packages);
                search.dirs.push(packages);
            }
        }
        if let (Some(version), Some(minor)) = (version, minor) {
            self.type_and_version(kind, &version, &minor);
        }
    }

    /// Checks that a Unit with this `type` can use the environment.
    ///
    /// Unit's own Python is unknown here. It must have the environment's X.Y; the patch version may differ.
    fn type_and_version(&mut self, kind: &Named, version: &str, minor: &str) {
        let wanted = language(&kind.text).1;
        if version_matches(version, wanted) {
            return;
        }
        if minor_of(wanted) == minor {
            let message =
                format!("the environment is for Python {version}, but \"type\" needs a Unit with exactly {wanted}");
            self.warn("type", kind, message).hint = Some(format!("use \"python {minor}\""));
            return;
        }
        let why =
            if version.starts_with(wanted) { format!(": {wanted} does not include {minor}") } else { String::new() };
        let message = format!("the environment is for Python {version}, which \"{}\" does not match{why}", kind.text);
        self.error("type", kind, message).hint = Some(format!(
            "use \"python {minor}\" and a Unit image with Python {minor}, or build the environment with Python {wanted}"
        ));
    }
}

/// `lib/pythonX.Y`, each with its X.Y.
fn libraries(home: &Path) -> Vec<(String, PathBuf)> {
    let lib = home.join("lib");
    let version = |name: &String| name.strip_prefix("python").filter(|rest| rest.contains('.')).map(str::to_owned);
    names(&lib).iter().filter_map(|name| Some((version(name)?, lib.join(name)))).collect()
}

/// The version: `version = 3.11.2` from venv, `version_info = 3.11.2` from uv and virtualenv.
fn version(pyvenv: &str) -> Option<String> {
    pyvenv.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        let digits: Vec<_> =
            value.trim().split('.').take_while(|part| part.chars().all(|c| c.is_ascii_digit())).collect();
        (matches!(name.trim(), "version" | "version_info") && digits.len() > 1).then(|| digits.join("."))
    })
}

fn minor_of(version: &str) -> String {
    version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
}
