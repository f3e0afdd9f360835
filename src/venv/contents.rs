//! Finds the files that determine an environment, and identifies them by their contents: requirements files and the
//! files that they name, local projects, --find-links locations, the engines' configuration files.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::form::{Form, PYPROJECT};
use super::identity::{Identities, Identity};
use super::inputs::Inputs;
use super::lock;
use super::requirements::{Meaning, Requirement, RequirementsFile, RequirementsReader};
use super::settings::Settings;
use crate::error::{Error, Kind, Result};
use crate::files::{self, WRITTEN};
use crate::redact;
use crate::retry::Deadline;
use crate::runtime::hex;
use crate::source;
use crate::walk::walk;

/// The identity of an input: only its contents, without path, time and owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Content {
    /// A requirements or lock file: hash of its text without credentials.
    Text(String),
    /// A configuration file: the same hash.
    Configuration(String),
    /// A local project, or a directory in the tree.
    Directory(String),
    /// An archive, or another file to install.
    File(Identity),
    /// The files in a --find-links directory, by name.
    Archives(Vec<(String, Identity)>),
}

/// Follows requirements, and collects the contents of the files that they name.
pub(super) struct Contents<'a> {
    files: RequirementsReader<'a>,
    identities: &'a Identities,
    found: Vec<Content>,
    tree: Option<&'a Path>,
    seen: HashSet<PathBuf>,
    /// An input may depend on any file in the tree.
    pub(super) is_opaque: bool,
    /// Skips files in the tree.
    elsewhere: bool,
    /// The first file that neither podstrap nor an engine can read.
    failed: Option<Error>,
    deadline: Deadline,
}

impl<'a> Contents<'a> {
    pub(super) fn new(
        settings: &'a Settings,
        identities: &'a Identities,
        tree: Option<&'a Path>,
        deadline: Deadline,
    ) -> Self {
        let files = RequirementsReader::new(settings);
        let (found, seen) = (Vec::new(), HashSet::new());
        Self { files, identities, found, tree, seen, is_opaque: false, elsewhere: false, failed: None, deadline }
    }

    /// Skips files in the tree.
    pub(super) fn elsewhere(self) -> Self {
        Self { elsewhere: true, ..self }
    }

    /// Returns the contents that were added since the last call.
    ///
    /// # Errors
    /// An added file exists, but is not readable or not a regular file. An engine must not open it.
    pub(super) fn take(&mut self) -> Result<Vec<Content>> {
        self.failed.take().map_or_else(|| Ok(std::mem::take(&mut self.found)), Err)
    }

    /// Remembers why a path could not be read. An engine reports a missing one.
    fn unread(&mut self, path: &Path, error: &io::Error) {
        self.is_opaque = true;
        if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::TimedOut) {
            let shown = self.tree.and_then(|tree| path.strip_prefix(tree).ok()).unwrap_or(path).display();
            self.fail(
                files::unreadable(Kind::Environment, format!("cannot read {shown}"), error)
                    .hint("the requirements name it: give a regular file that podstrap's user can read"),
            );
        }
    }

    fn fail(&mut self, error: Error) {
        self.is_opaque = true;
        self.failed.get_or_insert(error);
    }

    fn metadata(&mut self, path: &Path) -> Option<Metadata> {
        files::metadata(path).unwrap_or_else(|error| {
            self.fail(error);
            None
        })
    }

    /// Adds the inputs that are in the tree.
    pub(super) fn inputs(&mut self, inputs: &Inputs) {
        let Some(tree) = self.tree else { return };
        for file in inputs.requirements.iter().chain(&inputs.constraints).filter(|file| file.starts_with(tree)) {
            self.file(file);
        }
        for found in inputs.packages.iter().filter_map(|package| Requirement::read(package)) {
            if found.is_relative() {
                self.requirement(&found, None);
            }
        }
        for place in inputs.find_links.iter().map(Path::new).filter(|place| place.starts_with(tree)) {
            self.links(place);
        }
    }

    /// Whether the path is in the tree, after following links and `..`.
    fn inside(&self, place: &Path) -> bool {
        self.tree.is_some_and(|tree| match (place.canonicalize(), tree.canonicalize()) {
            (Ok(place), Ok(tree)) => place.starts_with(tree),
            _ => place.starts_with(tree),
        })
    }

    /// Adds a requirements file without its credentials, and all files that it names.
    pub(super) fn file(&mut self, path: &Path) {
        // A path through `x/..` would be new each time.
        let known = match files::real(path) {
            Ok(known) => known.unwrap_or_else(|| path.to_owned()),
            Err(error) => return self.fail(error),
        };
        if !self.seen.insert(known) {
            return;
        }
        let file = self.files.get(path);
        if let Some(error) = &file.unread {
            self.unread(path, error);
        }
        // An engine may be able to read it, but podstrap does not know its contents.
        self.is_opaque |= !file.is_decoded;
        let text = &file.text;
        if !self.elsewhere || *text != file.written || !self.inside(path) {
            self.found.push(Content::Text(hash(text)));
        }
        if file.form != Form::Requirements {
            for named in lock::paths(text) {
                self.named(&file.beside(&named));
            }
        }
        // uv reads the projects of a workspace and of its sources, wherever they are.
        if let Some(tree) = self.tree.filter(|tree| file.form != Form::Requirements && path.starts_with(tree)) {
            self.links_lead_out(tree, &PROJECT);
        }
        match file.form {
            Form::Requirements => self.lines(&file),
            Form::Pyproject => {
                // It names a path in the tree, or a build determines its dependencies.
                self.is_opaque |= ["tool.uv", "file:", "dynamic"].iter().any(|word| text.contains(word));
            }
            Form::Pylock => {
                self.is_opaque |= ["path", "directory"].iter().any(|word| text.contains(word));
            }
            Form::UvLock => {
                self.is_opaque |= !lock::is_all_remote(text);
                self.file(&path.with_file_name(PYPROJECT));
            }
        }
    }

    fn lines(&mut self, file: &RequirementsFile) {
        for line in &file.lines {
            match &line.meaning {
                Meaning::Index(_) | Meaning::Option { .. } => {}
                Meaning::Include { location, .. } => {
                    if let Some(path) = location.path() {
                        self.file(&file.beside(path));
                    }
                }
                Meaning::Requirement(found) | Meaning::Editable(found) => self.requirement(found, Some(file)),
                Meaning::FindLinks(location) => {
                    let Some(links) = location.path() else { continue };
                    let mut places = self.candidates(links, Some(file));
                    places.retain(|place| self.metadata(place).is_some());
                    // The path is relative to the tree, which does not exist yet.
                    self.is_opaque |= places.is_empty();
                    for place in places {
                        self.links(&place);
                    }
                }
                Meaning::Unknown => self.is_opaque = true,
            }
        }
    }

    /// Adds a configuration file (pip's INI, uv's TOML), and the constraints files and --find-links locations in it.
    pub(super) fn configuration(&mut self, text: &str) {
        self.found.push(Content::Configuration(hash(text)));
        let mut option = String::new();
        for line in text.lines() {
            let values = match line.split_once('=') {
                // An indented line continues the option before it.
                Some((name, values)) if !line.starts_with(char::is_whitespace) => {
                    option = name.trim().replace('_', "-");
                    values
                }
                _ => line,
            };
            let words = values.split(|c: char| c.is_whitespace() || "\"',[]".contains(c));
            for word in words.filter(|word| !word.is_empty()) {
                let is_file = option.contains("constraint") || option.contains("override");
                if !is_file && option != "find-links" {
                    continue;
                }
                // The engine decides what a relative path is relative to.
                match local(word) {
                    Some(path) if path.is_absolute() && is_file => self.file(path),
                    Some(path) if path.is_absolute() => self.links(path),
                    Some(_) => self.is_opaque = true,
                    None => {}
                }
            }
        }
    }

    /// Adds a requirement if it is a local file or project.
    pub(super) fn requirement(&mut self, requirement: &Requirement, named_in: Option<&RequirementsFile>) {
        let Some(path) = requirement.path() else { return };
        let mut places = self.candidates(path, named_in);
        places.retain(|place| self.metadata(place).is_some());
        self.is_opaque |= places.is_empty();
        for place in places {
            self.path(&place);
        }
    }

    /// The possible targets of a path. pip resolves relative paths in the working directory, uv next to the file that
    /// names them.
    fn candidates(&self, path: &str, named_in: Option<&RequirementsFile>) -> Vec<PathBuf> {
        let mut places: Vec<PathBuf> = self.tree.map(|tree| tree.join(path)).into_iter().collect();
        places.extend(named_in.map(|file| file.beside(path)));
        if Path::new(path).is_absolute() {
            places = vec![path.into()];
        }
        places.dedup();
        places
    }

    /// Adds a --find-links location.
    pub(super) fn links(&mut self, place: &Path) {
        let is_dir = self.metadata(place).is_some_and(|meta| meta.is_dir());
        let mut archives = Vec::new();
        for name in files::names(place).map_err(|error| self.fail(error)).unwrap_or_default().iter().filter(|_| is_dir)
        {
            let path = place.join(name);
            if self.metadata(&path).is_some_and(|meta| meta.is_dir()) {
                continue;
            }
            match self.identities.of(&path, self.deadline) {
                Ok(identity) => archives.push((text_of(Path::new(name)), identity)),
                Err(error) if is_archive(name) => self.unread(&path, &error),
                Err(_) => self.is_opaque = true,
            }
        }
        if !is_dir || self.inside(place) {
            self.path(place);
        } else {
            self.found.push(Content::Archives(archives));
        }
    }

    /// Refuses a link of the tree that leads to a file outside. An engine, or the build of a project, would read that
    /// file: its text would appear in an error or in the installed package.
    fn leads_out(&mut self, path: &Path) {
        let Some(tree) = self.tree.filter(|tree| path.starts_with(tree)) else { return };
        match (files::real(path), files::real(tree)) {
            (Ok(Some(real)), Ok(Some(root))) if !real.starts_with(&root) => {
                let shown = path.strip_prefix(tree).unwrap_or(path).display();
                self.fail(
                    Error::environment(format!("{shown} is a link to a file outside the tree"))
                        .because("the repository must not read other files of this container")
                        .hint("commit the file itself"),
                );
            }
            (Err(error), _) | (_, Err(error)) => self.fail(error),
            _ => {}
        }
    }

    /// Refuses such links below a directory: of files with these names, or of all files.
    fn links_lead_out(&mut self, dir: &Path, names: &[&str]) {
        for entry in walk(dir) {
            let entry = match entry {
                Ok(entry) if entry.is_symlink() => entry,
                Ok(_) => continue,
                Err(error) => return self.fail(error.on_volume()),
            };
            let known = entry.name.file_name().and_then(OsStr::to_str).is_some_and(|name| names.contains(&name));
            if !(known || names.is_empty()) {
                continue;
            }
            match files::metadata_if_allowed(&entry.path) {
                Ok(Some(meta)) if meta.is_file() => self.leads_out(&entry.path),
                // A link that leads nowhere, or around in a circle, is no file for an engine either.
                _ => {}
            }
        }
    }

    /// Adds the contents of a file or directory.
    fn path(&mut self, path: &Path) {
        if !self.seen.insert(path.to_owned()) {
            return;
        }
        self.leads_out(path);
        if self.tree.is_some_and(|tree| path.starts_with(tree)) {
            self.links_lead_out(path, &[]);
        }
        let leave_out = self.elsewhere && self.inside(path);
        if !self.metadata(path).is_some_and(|meta| meta.is_dir()) {
            match self.identities.of(path, self.deadline) {
                Ok(_) if leave_out => {}
                Ok(identity) => self.found.push(Content::File(identity)),
                Err(error) => self.unread(path, &error),
            }
            return;
        }
        self.project(path);
        if leave_out {
            return;
        }
        match source::digest(path, self.deadline) {
            Ok((digest, links)) => {
                self.found.push(Content::Directory(digest));
                // A link may lead to any other file in the tree. So may uv's sources and workspaces, and the paths
                // that a build reads in parent directories.
                self.is_opaque |= links;
            }
            Err(error) if error.kind() == Kind::Volume => self.fail(error),
            Err(_) => self.is_opaque = true,
        }
    }

    /// Checks a path that a project or a lock file names: uv opens it.
    fn named(&mut self, path: &Path) {
        match self.metadata(path) {
            Some(meta) if meta.is_dir() => self.project(path),
            Some(_) => drop(files::open(path).map_err(|error| self.unread(path, &error))),
            None => {}
        }
    }

    /// Checks the files of a project that the engines read.
    fn project(&mut self, path: &Path) {
        for name in PROJECT {
            let file = path.join(name);
            self.leads_out(&file);
            match files::read_if_there(&file, WRITTEN) {
                Ok(text) => {
                    let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
                    let words = ["tool.uv", "..", "file:", "backend-path"];
                    self.is_opaque |= words.iter().any(|word| text.contains(word));
                }
                Err(error) => self.unread(&file, &error),
            }
        }
    }
}

/// The files of a project that the engines read.
const PROJECT: [&str; 4] = ["pyproject.toml", "setup.cfg", "setup.py", "uv.toml"];

/// Whether an engine takes a file of this name for a package.
fn is_archive(name: &OsStr) -> bool {
    let suffixes = ["whl", "zip", "gz", "tgz", "bz2", "xz", "tar", "html"];
    Path::new(name).extension().is_some_and(|found| suffixes.iter().any(|suffix| found == *suffix))
}

/// The path in a setting. `None` for a URL.
pub(super) fn local(place: &str) -> Option<&Path> {
    let path = place.strip_prefix("file://").unwrap_or(place);
    (!path.contains("://")).then(|| Path::new(path))
}

/// A path as text. Escapes other bytes than ASCII.
pub(super) fn text_of(path: &Path) -> String {
    path.as_os_str().as_encoded_bytes().escape_ascii().to_string()
}

/// Hash of a text without its credentials.
fn hash(text: &str) -> String {
    hex(&Sha256::digest(redact::clean(text)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_a_configuration_file_names_counts() {
        let dir = tempfile::tempdir().unwrap();
        let (settings, deadline) = (Settings::from_env([]), Deadline::after(std::time::Duration::from_secs(10)));
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        for config in [
            "[install]\nconstraint =\n    DIR/gone.txt\n    DIR/pins.txt\n[global]\nfind_links = DIR/w file://DIR/v\n",
            "find-links = [\n  \"DIR/w\",\n  'DIR/v',\n]\n[pip]\nbuild-constraint = 'DIR/pins.txt'\n",
        ] {
            let text = config.replace("DIR", dir.path().to_str().unwrap());
            let found = || {
                let identities = Identities::default();
                let mut contents = Contents::new(&settings, &identities, None, deadline);
                contents.configuration(&text);
                contents.take().unwrap()
            };
            for name in ["w", "v"] {
                let _ = fs::remove_dir_all(dir.path().join(name));
                fs::create_dir(dir.path().join(name)).unwrap();
            }
            let mut seen = vec![found()];
            for name in ["pins.txt", "w/x.whl", "v/x.whl"] {
                write(name, config);
                assert!(!seen.contains(&found()), "{name}");
                seen.push(found());
            }
            write("other.txt", "");
            assert!(seen.contains(&found()));
            fs::remove_file(dir.path().join("pins.txt")).unwrap();
        }
    }
}
