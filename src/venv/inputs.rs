//! The packages and files to install. The name of a file decides its format, as with uv. Without packages and files,
//! podstrap looks for a default file in the tree.

use std::path::{Path, PathBuf};

use super::form::{Form, PYPROJECT};
use super::pyproject::Pyproject;
use crate::error::{Error, Result};
use crate::files;
use crate::plan::remote;
use crate::tree;

/// The packages and files to install, with absolute paths of existing files, or URLs.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    pub packages: Vec<String>,
    /// Requirements files and the other formats that `-r` takes: see `Form`.
    pub requirements: Vec<PathBuf>,
    pub constraints: Vec<PathBuf>,
    /// Extras of the pyproject.toml and uv.lock files among the requirements.
    pub extras: Vec<String>,
    pub groups: Vec<String>,
    /// --find-links locations, in addition to those in variables: absolute paths and URLs.
    pub find_links: Vec<String>,
    /// Install the newest permitted versions, and ignore every cache.
    pub refresh: bool,
}

/// The default files of a tree, in order of precedence.
pub(super) const DEFAULTS: [&str; 4] = ["uv.lock", "pylock.toml", "requirements.txt", PYPROJECT];

/// Lock files of other tools that list an app's requirements.
const LOCKS: [&str; 3] = ["poetry.lock", "Pipfile.lock", "pdm.lock"];

/// Files of tools that podstrap does not support, each with a hint to export a requirements file. Poetry 2 needs the
/// plug-in poetry-plugin-export for its command.
const FOREIGN: &[(&str, &str)] = &[
    ("poetry.lock", POETRY),
    ("Pipfile.lock", PIPENV),
    ("Pipfile", PIPENV),
    ("pdm.lock", "commit the output of `pdm export -o requirements.txt` or `pdm export -f pylock -o pylock.toml`"),
    ("setup.py", PROJECT),
    ("setup.cfg", PROJECT),
    ("environment.yml", "commit a requirements.txt: podstrap does not support conda"),
];
const POETRY: &str = "commit the output of `poetry export -f requirements.txt -o requirements.txt` \
    (`poetry self add poetry-plugin-export` adds the command)";
const PIPENV: &str = "commit the output of `pipenv requirements > requirements.txt`";
const PROJECT: &str = "give the project's directory as a package, such as `.` for the tree itself, instead of -r";

impl Inputs {
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty() && self.requirements.is_empty()
    }

    /// The requirements files of one form.
    pub(super) fn of(&self, form: Form) -> impl Iterator<Item = &PathBuf> {
        self.requirements.iter().filter(move |file| Form::of(file) == form)
    }

    /// Checks the files, extras and groups, so that the errors do not depend on the engine.
    ///
    /// # Errors
    /// A file is missing or belongs to another tool, or no file has an extra or group.
    pub(super) fn check(&self) -> Result<()> {
        for file in &self.requirements {
            if let Some(error) = foreign(file) {
                return Err(error);
            }
        }
        for file in self.requirements.iter().chain(&self.constraints).filter(|file| remote(file).is_none()) {
            if !files::exists(file)? {
                return Err(missing_file(file));
            }
        }
        for lock in self.of(Form::UvLock) {
            if !files::exists(&lock.with_file_name(PYPROJECT))? {
                return Err(Error::environment(format!("missing {} next to {}", PYPROJECT, lock.display()))
                    .hint("commit both files: a uv.lock is valid only together with its project"));
            }
        }
        for file in self.of(Form::Pyproject) {
            let project = Pyproject::read(file)?;
            if project.is_input() {
                continue;
            }
            let error = Error::environment(format!("{} has no [project]", file.display()));
            return Err(if project.is_poetry {
                error.because("its dependencies are in [tool.poetry], which neither pip nor uv reads").hint(POETRY)
            } else {
                error.hint("give a file that lists requirements").hint(PROJECT)
            });
        }
        if self.extras.is_empty() && self.groups.is_empty() || self.of(Form::Pylock).next().is_some() {
            return Ok(());
        }
        let files: Vec<PathBuf> = self
            .of(Form::Pyproject)
            .cloned()
            .chain(self.of(Form::UvLock).map(|lock| lock.with_file_name(PYPROJECT)))
            .collect();
        let (Some(first), projects) = (files.first(), files.iter().map(|file| Pyproject::read(file))) else {
            return Err(Error::environment(
                "--extra and --group require a pyproject.toml or uv.lock, but none is given",
            )
            .hint("give one with -r, or write the extra of a package after its name: package[extra]"));
        };
        let projects = projects.collect::<Result<Vec<_>>>()?;
        for extra in &self.extras {
            if !projects.iter().any(|project| project.has_extra(extra)) {
                return Err(Pyproject::error(first, projects[0].unknown_extra(extra)));
            }
        }
        for group in &self.groups {
            if !projects.iter().any(|project| project.has_group(group)) {
                return Err(Pyproject::error(first, projects[0].unknown_group(group)));
            }
        }
        Ok(())
    }
}

/// The error of a missing requirements file.
fn missing_file(path: &Path) -> Error {
    Error::environment(format!("the requirements file {} does not exist", path.display()))
        .hint("commit the file, or correct -r or -c: paths are relative to the top of the repository")
}

/// The error of a file that belongs to another tool.
fn foreign(file: &Path) -> Option<Error> {
    let name = file.file_name()?.to_str()?;
    let (_, hint) = FOREIGN.iter().find(|(known, _)| *known == name)?;
    Some(Error::environment(format!("neither pip nor uv reads {}", file.display())).hint(*hint))
}

/// Finds the default file in a tree, and returns its path.
///
/// # Errors
/// The tree has only files that neither engine reads, or its pyproject.toml is invalid.
pub fn find(tree: &Path) -> Result<Option<PathBuf>> {
    // Ask once for each name: an unreadable file is not a missing one.
    let mut there = Vec::new();
    for name in DEFAULTS.into_iter().chain(LOCKS).chain(["Pipfile"]) {
        if files::entry(&tree.join(name))?.is_some_and(|meta| !meta.is_dir()) {
            there.push(name);
        }
    }
    let is_there = |name: &str| there.contains(&name);
    let project =
        if is_there(PYPROJECT) { Some(Pyproject::read(&tree::file("-r", tree, Path::new(PYPROJECT))?)?) } else { None };
    let is_project = project.as_ref().is_some_and(|project| project.is_project);
    let found = DEFAULTS.into_iter().find(|name| is_there(name) && (*name != PYPROJECT || is_project));
    let lock = LOCKS.into_iter().find(|name| is_there(name));
    match (found, lock) {
        (Some(PYPROJECT), Some(lock)) => {
            tracing::warn!("ignoring {lock}: the versions in {} apply", PYPROJECT);
        }
        (Some(_), _) => {}
        (None, lock) => {
            let poetry = project.is_some_and(|project| project.is_poetry).then_some("poetry.lock");
            let pipenv = is_there("Pipfile").then_some("Pipfile");
            let Some(name) = lock.or(pipenv).or(poetry) else { return Ok(None) };
            let (_, hint) = FOREIGN.iter().find(|(known, _)| *known == name).unwrap_or(&FOREIGN[0]);
            let shown = if is_there(name) { name } else { "[tool.poetry] in pyproject.toml" };
            return Err(Error::environment(format!(
                "the tree lists requirements only in {shown}, which neither pip nor uv reads"
            ))
            .hint(*hint)
            .hint("or build no environment: --venv none"));
        }
    }
    found.map(|name| tree::file("-r", tree, Path::new(name))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Result<Option<String>, String> {
        let tree = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(tree.path().join(name), text).unwrap();
        }
        let found = find(tree.path()).map_err(|error| error.to_string())?;
        Ok(found.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()))
    }

    #[test]
    fn a_file_is_known_by_its_name() {
        for (name, form) in [
            ("uv.lock", Form::UvLock),
            ("pylock.toml", Form::Pylock),
            ("pylock.web.toml", Form::Pylock),
            ("pyproject.toml", Form::Pyproject),
            ("requirements.in", Form::Requirements),
            ("deps", Form::Requirements),
            ("my-uv.lock", Form::Requirements),
        ] {
            assert_eq!(Form::of(&Path::new("/x").join(name)), form, "{name}");
        }
    }

    #[test]
    fn the_first_of_what_a_tree_has_counts() {
        let project = ("pyproject.toml", "[project]\nname = 'x'");
        let all = [("uv.lock", ""), ("pylock.toml", ""), ("requirements.txt", ""), project, ("poetry.lock", "")];
        for (skip, name) in ["uv.lock", "pylock.toml", "requirements.txt", "pyproject.toml"].iter().enumerate() {
            assert_eq!(found(&all[skip..]), Ok(Some((*name).to_owned())));
        }
        assert_eq!(found(&[("pyproject.toml", "[tool.black]"), ("index.py", "")]), Ok(None));
        assert_eq!(found(&[]), Ok(None));
    }

    #[test]
    fn what_only_another_tool_reads_is_refused_with_its_export() {
        for (files, name, command) in [
            (&[("poetry.lock", "")][..], "poetry.lock", "poetry export"),
            (&[("pyproject.toml", "[tool.poetry.dependencies]\nx = '1'")], "[tool.poetry]", "poetry export"),
            (&[("Pipfile.lock", ""), ("Pipfile", "")], "Pipfile.lock", "pipenv requirements > requirements.txt"),
            (&[("Pipfile", ""), ("pyproject.toml", "[tool.black]")], "Pipfile", "pipenv requirements"),
        ] {
            let text = found(files).unwrap_err();
            assert!(text.contains(&format!("only in {name}")) && text.contains(command), "{text}");
        }
        let named = Inputs { requirements: vec!["/x/poetry.lock".into()], ..Inputs::default() };
        assert!(named.check().unwrap_err().to_string().contains("neither pip nor uv reads /x/poetry.lock"));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pyproject.toml");
        for (text, hint) in
            [("[tool.poetry.dependencies]\nx = '1'", "poetry export"), ("[tool.black]", "give the project's directory")]
        {
            std::fs::write(&file, text).unwrap();
            let named = Inputs { requirements: vec![file.clone()], ..Inputs::default() };
            let text = named.check().unwrap_err().to_string();
            assert!(text.contains("has no [project]") && text.contains(hint), "{text}");
        }
    }
}
