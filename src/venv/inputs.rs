//! What is to be installed: files known by their names, as uv knows them, and those that a tree has
//! when nothing is named.

use std::path::{Path, PathBuf};

use super::pyproject::{self, Pyproject};
use crate::error::{Error, Result};
use crate::tree;

/// What to install, all of it resolved: absolute paths of files that exist.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    pub packages: Vec<String>,
    /// Requirements files, and what else can be named as one: see `Form`.
    pub requirements: Vec<PathBuf>,
    pub constraints: Vec<PathBuf>,
    /// Of the pyproject.toml and uv.lock files among the requirements.
    pub extras: Vec<String>,
    pub groups: Vec<String>,
    /// Places with archives, besides those that variables name: absolute paths and URLs.
    pub find_links: Vec<String>,
    /// Take the newest versions allowed, past every cache.
    pub refresh: bool,
}

/// What a file that was named with -r is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// pip's format.
    Requirements,
    /// The dependencies of a project, without the project.
    Pyproject,
    /// <https://packaging.python.org/en/latest/specifications/pylock-toml/>
    Pylock,
    /// <https://docs.astral.sh/uv/concepts/projects/layout/#the-lockfile>
    UvLock,
}

/// Looked for in a tree, the first that is there counts.
const DEFAULTS: [&str; 4] = ["uv.lock", "pylock.toml", "requirements.txt", pyproject::NAME];

/// Files of tools that are no engine here, and how to say the same in a requirements file. Poetry's command
/// is the plug-in poetry-plugin-export's, which Poetry 2 does not bring along.
const FOREIGN: &[(&str, &str)] = &[
    ("poetry.lock", POETRY),
    ("Pipfile.lock", PIPENV),
    ("Pipfile", PIPENV),
    ("pdm.lock", "commit what `pdm export -o requirements.txt` writes, or `pdm export -f pylock -o pylock.toml`"),
    ("setup.py", PROJECT),
    ("setup.cfg", PROJECT),
    ("environment.yml", "conda is no engine here: commit a requirements.txt"),
];
const POETRY: &str = "commit what `poetry export -f requirements.txt -o requirements.txt` writes \
    (`poetry self add poetry-plugin-export` adds the command)";
const PIPENV: &str = "commit what `pipenv requirements > requirements.txt` writes";
const PROJECT: &str = "a project is a package: name its directory, `.` for the tree itself, instead of -r";

impl Form {
    pub(super) fn of(file: &Path) -> Self {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match name {
            "uv.lock" => Self::UvLock,
            pyproject::NAME => Self::Pyproject,
            // pylock.NAME.toml as well.
            _ if name.starts_with("pylock.") && file.extension().is_some_and(|kind| kind == "toml") => Self::Pylock,
            _ => Self::Requirements,
        }
    }
}

impl Inputs {
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty() && self.requirements.is_empty()
    }

    /// The requirements files of one form.
    pub(super) fn of(&self, form: Form) -> impl Iterator<Item = &PathBuf> {
        self.requirements.iter().filter(move |file| Form::of(file) == form)
    }

    /// Refuses what no engine could install, in the same words whichever it is.
    ///
    /// # Errors
    /// A file that is missing, or another tool's; an extra or a group that nobody has.
    pub(super) fn check(&self) -> Result<()> {
        for file in &self.requirements {
            if let Some(error) = foreign(file) {
                return Err(error);
            }
        }
        if let Some(file) = self.requirements.iter().chain(&self.constraints).find(|file| !file.is_file()) {
            return Err(missing_file(file));
        }
        if let Some(lock) = self.of(Form::UvLock).find(|lock| !lock.with_file_name(pyproject::NAME).is_file()) {
            return Err(Error::environment(format!("there is no {} beside {}", pyproject::NAME, lock.display()))
                .hint("a uv.lock is one half of a project: commit both"));
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
                error.hint("name a file that lists what to install").hint(PROJECT)
            });
        }
        if self.extras.is_empty() && self.groups.is_empty() || self.of(Form::Pylock).next().is_some() {
            return Ok(());
        }
        let files: Vec<PathBuf> = self
            .of(Form::Pyproject)
            .cloned()
            .chain(self.of(Form::UvLock).map(|lock| lock.with_file_name(pyproject::NAME)))
            .collect();
        let (Some(first), projects) = (files.first(), files.iter().map(|file| Pyproject::read(file))) else {
            return Err(Error::environment(
                "--extra and --group are for a pyproject.toml or uv.lock, and none is named",
            )
            .hint("name one with -r; the extra of a package is written behind its name: package[extra]"));
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

/// Requirements files must be there before anything starts.
fn missing_file(path: &Path) -> Error {
    Error::environment(format!("the requirements file {} is not there", path.display()))
        .hint("paths are relative to the repository's top; commit the file, or fix -r or -c")
}

/// The error of a file that is another tool's.
fn foreign(file: &Path) -> Option<Error> {
    let name = file.file_name()?.to_str()?;
    let (_, hint) = FOREIGN.iter().find(|(known, _)| *known == name)?;
    Some(Error::environment(format!("neither pip nor uv reads {}", file.display())).hint(*hint))
}

/// What a tree itself has to install: a path in it.
///
/// # Errors
/// There is only what no engine reads, or a file that cannot be read.
pub fn find(tree: &Path) -> Result<Option<PathBuf>> {
    let is_there = |name: &str| std::fs::symlink_metadata(tree.join(name)).is_ok_and(|meta| !meta.is_dir());
    let project = if is_there(pyproject::NAME) {
        Some(Pyproject::read(&tree::file("-r", tree, Path::new(pyproject::NAME))?)?)
    } else {
        None
    };
    let is_project = project.as_ref().is_some_and(|project| project.is_project);
    let found = DEFAULTS.into_iter().find(|name| is_there(name) && (*name != pyproject::NAME || is_project));
    let lock = ["poetry.lock", "Pipfile.lock", "pdm.lock"].into_iter().find(|name| is_there(name));
    match (found, lock) {
        (Some(pyproject::NAME), Some(lock)) => {
            tracing::warn!("{lock} is not read: the versions are what {} allows", pyproject::NAME);
        }
        (Some(_), _) => {}
        (None, lock) => {
            let poetry = project.is_some_and(|project| project.is_poetry).then_some("poetry.lock");
            let pipenv = is_there("Pipfile").then_some("Pipfile");
            let Some(name) = lock.or(pipenv).or(poetry) else { return Ok(None) };
            let (_, hint) = FOREIGN.iter().find(|(known, _)| *known == name).unwrap_or(&FOREIGN[0]);
            let shown = if is_there(name) { name } else { "[tool.poetry] in pyproject.toml" };
            return Err(Error::environment(format!(
                "the tree says what to install only in {shown}, which neither pip nor uv reads"
            ))
            .hint(*hint)
            .hint("or say that no environment is wanted: --venv none"));
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
            [("[tool.poetry.dependencies]\nx = '1'", "poetry export"), ("[tool.black]", "name its directory")]
        {
            std::fs::write(&file, text).unwrap();
            let named = Inputs { requirements: vec![file.clone()], ..Inputs::default() };
            let text = named.check().unwrap_err().to_string();
            assert!(text.contains("has no [project]") && text.contains(hint), "{text}");
        }
    }
}
