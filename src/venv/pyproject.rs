//! Reads the dependencies in a `pyproject.toml`, for an engine that does not read it itself. Also distinguishes a
//! project from a file that only configures tools.
//!
//! Sources: <https://packaging.python.org/en/latest/specifications/pyproject-toml/>,
//! <https://packaging.python.org/en/latest/specifications/dependency-groups/>.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use toml::{Table, Value};

use super::requirements::name_of;
use crate::error::{Error, Kind, Result};
use crate::files::{self, WRITTEN};

/// The parts of the file that determine the packages.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pyproject {
    /// Whether the file has a `[project]`.
    pub(super) is_project: bool,
    /// Whether the file has dependencies that only Poetry reads.
    pub(super) is_poetry: bool,
    name: Option<String>,
    dependencies: Vec<String>,
    dynamic: Vec<String>,
    /// By normalized name, like the groups.
    extras: BTreeMap<String, Vec<String>>,
    groups: BTreeMap<String, Vec<Entry>>,
    /// Normalized names of the packages with a source in [tool.uv.sources].
    sources: BTreeSet<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Entry {
    Requirement(String),
    Include(String),
}

/// The cause if a file gives no requirements.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// The file is invalid: the cause.
    Wrong(String),
    /// An unknown extra or group (`extra web`), and the known ones.
    Unknown(String, Vec<String>),
    /// The project's build determines these.
    Dynamic(&'static str),
    /// This package has a source in [tool.uv.sources].
    Source(String),
}

impl Pyproject {
    /// # Errors
    /// The file is unreadable or invalid.
    pub(super) fn read(file: &Path) -> Result<Self> {
        let text = files::read_text(file, WRITTEN)
            .map_err(|error| files::unreadable(Kind::Environment, format!("cannot read {}", file.display()), &error))?;
        Self::parse(&text).map_err(|why| Self::error(file, Problem::Wrong(why)))
    }

    /// Whether the file lists requirements.
    pub(super) fn is_input(&self) -> bool {
        self.is_project || !self.groups.is_empty()
    }

    /// The error of a problem with this file.
    pub(super) fn error(file: &Path, problem: Problem) -> Error {
        let shown = file.display();
        match problem {
            Problem::Wrong(why) => Error::environment(format!("{shown} is invalid")).because(why).hint(
                "write TOML with dependencies as lists of strings: \
                 https://packaging.python.org/specifications/pyproject-toml/",
            ),
            Problem::Unknown(what, known) => {
                let error = Error::environment(format!("{shown} has no {what}"));
                if known.is_empty() { error } else { error.hint(format!("choose one of: {}", known.join(", "))) }
            }
            Problem::Dynamic(what) => Error::environment(format!(
                "{shown} declares its {what} as dynamic, and pip reads dynamic {what} only when it installs the project"
            ))
            .hint("install the project itself as the package `.`, or use uv (--engine uv)"),
            Problem::Source(name) => Error::environment(format!(
                "{shown} gives {name} a source in [tool.uv.sources], which pip does not read"
            ))
            .hint("use uv (--engine uv): put its static binary next to podstrap"),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        // The parser counts offsets without the byte order mark.
        let text = text.trim_start_matches('\u{feff}');
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().and_then(|span| Some(text.get(..span.start)?.matches('\n').count() + 1));
            let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
            format!("{place}{}", error.message())
        })?;
        let mut found = Self::default();
        let tool = |names: &[&str]| {
            let tool = table.get("tool").and_then(Value::as_table);
            names.iter().try_fold(tool?, |table, name| table.get(*name)?.as_table())
        };
        found.is_poetry = tool(&["poetry", "dependencies"]).is_some();
        found.sources = tool(&["uv", "sources"]).into_iter().flat_map(Table::keys).map(|name| normal(name)).collect();
        if let Some(project) = table.get("project") {
            let project = project.as_table().ok_or("project is not a table")?;
            found.is_project = true;
            found.name = project.get("name").and_then(Value::as_str).map(normal);
            found.dependencies = strings("project.dependencies", project.get("dependencies"))?;
            found.dynamic = strings("project.dynamic", project.get("dynamic"))?;
            for (name, list) in section("project.optional-dependencies", project.get("optional-dependencies"))? {
                let list = strings(&format!("project.optional-dependencies.{name}"), Some(list))?;
                if found.extras.insert(normal(name), list).is_some() {
                    return Err(format!("duplicate extra {name}"));
                }
            }
        }
        for (name, list) in section("dependency-groups", table.get("dependency-groups"))? {
            let what = format!("dependency-groups.{name}");
            let list = list.as_array().ok_or_else(|| format!("{what} is not a list"))?;
            let entries = list.iter().map(|entry| match entry {
                Value::String(text) => Ok(Entry::Requirement(line(&what, text)?)),
                Value::Table(table) => match (table.get("include-group").and_then(Value::as_str), table.len()) {
                    (Some(name), 1) => Ok(Entry::Include(normal(name))),
                    _ => Err(format!("{what}: a table is neither a requirement nor an include-group")),
                },
                _ => Err(format!("{what}: an entry is neither a string nor a table")),
            });
            let entries = entries.collect::<Result<Vec<_>, _>>()?;
            if found.groups.insert(normal(name), entries).is_some() {
                return Err(format!("duplicate group {name}"));
            }
        }
        Ok(found)
    }

    /// Whether the file has this extra, or lets the build determine the extras.
    pub(super) fn has_extra(&self, name: &str) -> bool {
        self.extras.contains_key(&normal(name)) || self.is_dynamic("optional-dependencies")
    }
    pub(super) fn has_group(&self, name: &str) -> bool {
        self.groups.contains_key(&normal(name))
    }
    pub(super) fn unknown_extra(&self, name: &str) -> Problem {
        Problem::Unknown(format!("extra {name}"), self.extras.keys().cloned().collect())
    }
    pub(super) fn unknown_group(&self, name: &str) -> Problem {
        Problem::Unknown(format!("dependency group {name}"), self.groups.keys().cloned().collect())
    }

    fn is_dynamic(&self, field: &str) -> bool {
        self.dynamic.iter().any(|dynamic| dynamic == field)
    }

    /// The same as lines of a requirements file: the project's dependencies, and those of the given extras and groups
    /// that it has.
    pub(super) fn requirements(&self, extras: &[String], groups: &[String]) -> Result<Vec<String>, Problem> {
        if self.is_dynamic("dependencies") {
            return Err(Problem::Dynamic("dependencies"));
        }
        if !extras.is_empty() && self.is_dynamic("optional-dependencies") {
            return Err(Problem::Dynamic("extras"));
        }
        let mut out = Vec::new();
        let mut seen = BTreeSet::new();
        self.expand(&self.dependencies, &mut seen, &mut out)?;
        for extra in extras.iter().map(|name| normal(name)) {
            self.extra(&extra, &mut seen, &mut out)?;
        }
        for group in groups.iter().map(|name| normal(name)).filter(|name| self.groups.contains_key(name)) {
            self.group(&group, &mut Vec::new(), &mut seen, &mut out)?;
        }
        match out.iter().map(|line| normal(name_of(line))).find(|name| self.sources.contains(name)) {
            Some(name) => Err(Problem::Source(name)),
            None => Ok(out),
        }
    }

    fn extra(&self, name: &str, seen: &mut BTreeSet<String>, out: &mut Vec<String>) -> Result<(), Problem> {
        let Some(list) = self.extras.get(name) else { return Ok(()) };
        if seen.insert(name.to_owned()) { self.expand(list, seen, out) } else { Ok(()) }
    }

    /// Copies requirements. Replaces `this-project[extra]` by the requirements of the extra, because the project is in
    /// no index.
    fn expand(&self, list: &[String], seen: &mut BTreeSet<String>, out: &mut Vec<String>) -> Result<(), Problem> {
        for requirement in list {
            let name = name_of(requirement);
            if self.name.as_deref() != Some(&*normal(name)) {
                out.push(requirement.clone());
                continue;
            }
            let rest = requirement[name.len()..].trim();
            let extras = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            let Some(extras) = extras else {
                return Err(Problem::Wrong(format!("{requirement}: the project can require only its own extras")));
            };
            for extra in extras.split(',').map(|extra| normal(extra.trim())) {
                if !self.extras.contains_key(&extra) {
                    return Err(self.unknown_extra(&extra));
                }
                self.extra(&extra, seen, out)?;
            }
        }
        Ok(())
    }

    fn group(
        &self,
        name: &str,
        path: &mut Vec<String>,
        seen: &mut BTreeSet<String>,
        out: &mut Vec<String>,
    ) -> Result<(), Problem> {
        let Some(entries) = self.groups.get(name) else { return Err(self.unknown_group(name)) };
        if path.iter().any(|above| above == name) {
            return Err(Problem::Wrong(format!("the dependency groups include each other: {}", path.join(" → "))));
        }
        path.push(name.to_owned());
        for entry in entries {
            match entry {
                Entry::Requirement(text) => self.expand(std::slice::from_ref(text), seen, out)?,
                Entry::Include(name) => self.group(name, path, seen, out)?,
            }
        }
        path.pop();
        Ok(())
    }
}

/// A table's entries. Empty if the table is missing.
fn section<'a>(what: &str, value: Option<&'a Value>) -> Result<Vec<(&'a String, &'a Value)>, String> {
    match value {
        None => Ok(Vec::new()),
        Some(Value::Table(table)) => Ok(table.iter().collect()),
        Some(_) => Err(format!("{what} is not a table")),
    }
}

fn strings(what: &str, value: Option<&Value>) -> Result<Vec<String>, String> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let list = value.as_array().ok_or_else(|| format!("{what} is not a list"))?;
    list.iter()
        .map(|entry| line(what, entry.as_str().ok_or_else(|| format!("{what}: an entry is not a string"))?))
        .collect()
}

/// Checks that a requirement is one line and not an option.
fn line(what: &str, text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.starts_with(['-', '#', '.', '/']) || text.contains(['\n', '\r', '\\']) {
        return Err(format!("{what}: {text:?} is not a requirement"));
    }
    Ok(text.to_owned())
}

/// The normalized name. Names are equal if their normalized names are equal (PEP 503, PEP 685).
pub(super) fn normal(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if out.ends_with('-') => {}
            '-' | '_' | '.' => out.push('-'),
            c => out.push(c.to_ascii_lowercase()),
        }
    }
    out
}

/// For any file, each requirement is one line and not an option, and extras only add requirements.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let Ok(found) = Pyproject::parse(&String::from_utf8_lossy(data)) else { return };
    let (extras, groups): (Vec<_>, Vec<_>) =
        (found.extras.keys().cloned().collect(), found.groups.keys().cloned().collect());
    let Ok(few) = found.requirements(&[], &[]) else { return };
    assert!(few.iter().all(|line| !line.starts_with('-') && !line.contains('\n')), "{few:?}");
    if let Ok(all) = found.requirements(&extras, &groups) {
        assert!(all.starts_with(&few), "{all:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: &str = r#"
        [project]
        name = "My.App"
        dependencies = ["flask>=3", "x @ https://host/x.whl#sha256=ab ; python_version > '3'"]
        [project.optional-dependencies]
        Web_Server = ["gunicorn"]
        all = ["my-app[web-server]", "redis"]
        [dependency-groups]
        test = ["pytest"]
        dev = [{include-group = "Test"}, "ruff"]
    "#;

    fn requirements(text: &str, extras: &[&str], groups: &[&str]) -> Result<Vec<String>, Problem> {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        Pyproject::parse(text).map_err(Problem::Wrong)?.requirements(&own(extras), &own(groups))
    }

    #[test]
    fn dependencies_extras_and_groups_become_lines() {
        let base = ["flask>=3", "x @ https://host/x.whl#sha256=ab ; python_version > '3'"];
        let with = |more: &[&str]| Ok(base.iter().chain(more).map(|line| (*line).to_owned()).collect());
        assert_eq!(requirements(APP, &[], &[]), with(&[]));
        assert_eq!(requirements(APP, &["web.server"], &[]), with(&["gunicorn"]));
        assert_eq!(requirements(APP, &["all", "web-server"], &["dev"]), with(&["gunicorn", "redis", "pytest", "ruff"]));
        assert!(Pyproject::parse(APP).unwrap().has_extra("WEB-server"));
    }

    #[test]
    fn what_cannot_be_lines_is_refused() {
        let refused = |text: &str, group: &str| requirements(text, &["a"], &[group]).unwrap_err();
        let groups = "[dependency-groups]\na = [{include-group = 'b'}]\nb = [{include-group = 'a'}]";
        assert_eq!(refused(groups, "a"), Problem::Wrong("the dependency groups include each other: a → b".into()));
        let unknown = "[dependency-groups]\na = [{include-group = 'z'}]";
        assert_eq!(refused(unknown, "a"), Problem::Unknown("dependency group z".into(), vec!["a".into()]));
        assert_eq!(refused("[project]\ndynamic = ['dependencies']", "a"), Problem::Dynamic("dependencies"));
        let sources = "[project]\ndependencies = ['B_b']\n[tool.uv.sources]\nb-b = {git = 'https://host/b'}";
        assert_eq!(refused(sources, "a"), Problem::Source("b-b".into()));
        for (text, why) in [
            ("[project]\ndependencies = ['a\\n-r b']\nx", "line 3"),
            ("[project]\ndependencies = [\"a\\n--index-url x\"]", "is not a requirement"),
            ("[project]\ndependencies = ['--index-url x']", "is not a requirement"),
            ("[project]\ndependencies = 'a'", "project.dependencies is not a list"),
            ("[dependency-groups]\na = [{x = 1}]", "neither a requirement nor an include-group"),
            ("[dependency-groups]\na = []\nA = []", "duplicate group"),
        ] {
            let Problem::Wrong(problem) = refused(text, "a") else { panic!("{text}") };
            assert!(problem.contains(why), "{problem}");
        }
    }

    /// A case from fuzzing.
    #[test]
    fn an_error_behind_a_byte_order_mark_has_its_line() {
        let error = Pyproject::parse("\u{feff}a = \"\u{fffd}\"\nb = [{\"\"x").unwrap_err();
        assert!(error.starts_with("line 2: "), "{error}");
    }

    #[test]
    fn a_file_that_only_configures_tools_is_no_project() {
        let found = Pyproject::parse("[tool.black]\nline-length = 1\n[tool.poetry.dependencies]\nx = '1'").unwrap();
        assert_eq!((found.is_project, found.is_poetry), (false, true));
    }

    #[test]
    fn a_file_without_a_project_is_no_input() {
        let is_input = |text: &str| Pyproject::parse(text).unwrap().is_input();
        assert!(!is_input("[tool.poetry.dependencies]\niniconfig = '*'"));
        assert!(!is_input("[tool.black]\nline-length = 9"));
        assert!(is_input("[project]\nname = 'x'\nversion = '1'"));
        assert!(is_input("[dependency-groups]\ndev = ['x']"));
    }
}
