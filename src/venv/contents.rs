//! Finds the files that determine an environment, and identifies them by their contents: requirements files and the
//! files that they name, local projects, --find-links locations, the engines' configuration files.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::form::{Form, PYPROJECT};
use super::identity::{Identities, Identity};
use super::inputs::Inputs;
use super::lock;
use super::requirements::{Meaning, Requirement, RequirementsFile, RequirementsReader};
use super::settings::Settings;
use crate::redact;
use crate::retry::Deadline;
use crate::runtime::hex;
use crate::source;

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
        Self { files, identities, found, tree, seen, is_opaque: false, elsewhere: false, deadline }
    }

    /// Skips files in the tree.
    pub(super) fn elsewhere(self) -> Self {
        Self { elsewhere: true, ..self }
    }

    /// Returns the contents that were added since the last call.
    pub(super) fn take(&mut self) -> Vec<Content> {
        std::mem::take(&mut self.found)
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
        if !self.seen.insert(path.to_owned()) {
            return;
        }
        let file = self.files.get(path);
        // An engine may be able to read it, but podstrap does not know its contents.
        self.is_opaque |= !file.is_read || !file.is_decoded;
        let text = &file.text;
        if !self.elsewhere || *text != file.written || !self.inside(path) {
            self.found.push(Content::Text(hash(text)));
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
                    let places = self.candidates(links, Some(file));
                    // The path is relative to the tree, which does not exist yet.
                    self.is_opaque |= !places.iter().any(|place| place.exists());
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
        places.retain(|place| fs::metadata(place).is_ok());
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
        if place.is_file() || self.inside(place) {
            self.path(place);
            return;
        }
        let mut archives = Vec::new();
        for entry in fs::read_dir(place).into_iter().flatten().flatten().filter(|entry| entry.path().is_file()) {
            match self.identities.of(&entry.path(), self.deadline) {
                Ok(identity) => archives.push((text_of(Path::new(&entry.file_name())), identity)),
                Err(_) => self.is_opaque = true,
            }
        }
        archives.sort_by(|(one, _), (other, _)| one.cmp(other));
        self.found.push(Content::Archives(archives));
    }

    /// Adds the contents of a file or directory.
    fn path(&mut self, path: &Path) {
        if !self.seen.insert(path.to_owned()) || self.elsewhere && self.inside(path) {
            return;
        }
        if !path.is_dir() {
            match self.identities.of(path, self.deadline) {
                Ok(identity) => self.found.push(Content::File(identity)),
                Err(_) => self.is_opaque = true,
            }
            return;
        }
        match source::digest(path, self.deadline) {
            Ok((digest, links)) => {
                self.found.push(Content::Directory(digest));
                // A link may lead to any other file in the tree. So may uv's sources and workspaces, and the paths
                // that a build reads in parent directories.
                self.is_opaque |= links;
            }
            Err(_) => self.is_opaque = true,
        }
        self.is_opaque |= ["pyproject.toml", "setup.cfg", "setup.py"].iter().any(|name| {
            let text = fs::read_to_string(path.join(name)).unwrap_or_default();
            ["tool.uv", "..", "file:", "backend-path"].iter().any(|word| text.contains(word))
        });
    }
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
                contents.take()
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
