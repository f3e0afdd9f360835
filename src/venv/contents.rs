//! What decides an environment by its contents, wherever it is: requirements files and all that they lead to, local
//! projects, places with archives, the engines' configuration files.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::identity::{Identities, Identity};
use super::inputs::{Form, Inputs};
use super::requirements::{Meaning, Requirement, RequirementsFile, RequirementsReader};
use super::settings::Settings;
use super::{lock, pyproject};
use crate::redact;
use crate::retry::Deadline;
use crate::runtime::hex;
use crate::source;

/// What was found, by its contents alone: no path, no time, no owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Content {
    /// A file that says what to install: a hash of its text without credentials.
    Text(String),
    /// A configuration file, the same way.
    Configuration(String),
    /// A local project, or a directory of the tree.
    Directory(String),
    /// An archive, or another file that is installed.
    File(Identity),
    /// Files by their names.
    Archives(Vec<(String, Identity)>),
}

/// Walks what requirements lead to, and collects what it finds.
pub(super) struct Contents<'a> {
    files: RequirementsReader<'a>,
    identities: &'a Identities,
    found: Vec<Content>,
    tree: Option<&'a Path>,
    seen: HashSet<PathBuf>,
    /// There is something that may depend on any file of the tree.
    pub(super) is_opaque: bool,
    /// What the tree holds is left out.
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

    /// Leaves out what the tree holds.
    pub(super) fn elsewhere(self) -> Self {
        Self { elsewhere: true, ..self }
    }

    /// What was found since this was asked last.
    pub(super) fn take(&mut self) -> Vec<Content> {
        std::mem::take(&mut self.found)
    }

    /// What is named in the tree.
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

    /// Whether the tree holds it: not what a link or `..` leads to.
    fn inside(&self, place: &Path) -> bool {
        self.tree.is_some_and(|tree| match (place.canonicalize(), tree.canonicalize()) {
            (Ok(place), Ok(tree)) => place.starts_with(tree),
            _ => place.starts_with(tree),
        })
    }

    /// A requirements file, but for credentials, and all that it leads to.
    pub(super) fn file(&mut self, path: &Path) {
        if !self.seen.insert(path.to_owned()) {
            return;
        }
        let file = self.files.get(path);
        // Where an engine finds something all the same, it is not known what.
        self.is_opaque |= !file.is_read || !file.is_decoded;
        let text = &file.text;
        if !self.elsewhere || *text != file.written || !self.inside(path) {
            self.found.push(Content::Text(hash(text)));
        }
        match file.form {
            Form::Requirements => self.lines(&file),
            Form::Pyproject => {
                // A path in it is one of the tree, or a build decides what is asked for.
                self.is_opaque |= ["tool.uv", "file:", "dynamic"].iter().any(|word| text.contains(word));
            }
            Form::Pylock => {
                self.is_opaque |= ["path", "directory"].iter().any(|word| text.contains(word));
            }
            Form::UvLock => {
                self.is_opaque |= !lock::is_all_remote(text);
                self.file(&path.with_file_name(pyproject::NAME));
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
                    // Relative to the tree, which is not there yet.
                    self.is_opaque |= !places.iter().any(|place| place.exists());
                    for place in places {
                        self.links(&place);
                    }
                }
                Meaning::Unknown => self.is_opaque = true,
            }
        }
    }

    /// A configuration file (pip's INI, uv's TOML), and the files and directories with versions that it
    /// names.
    pub(super) fn configuration(&mut self, text: &str) {
        self.found.push(Content::Configuration(hash(text)));
        let mut option = String::new();
        for line in text.lines() {
            let values = match line.split_once('=') {
                // What is indented goes on with the option before.
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
                // Relative to what, the engine decides.
                match local(word) {
                    Some(path) if path.is_absolute() && is_file => self.file(path),
                    Some(path) if path.is_absolute() => self.links(path),
                    Some(_) => self.is_opaque = true,
                    None => {}
                }
            }
        }
    }

    /// A requirement, which may be a file or a project on this machine.
    pub(super) fn requirement(&mut self, requirement: &Requirement, named_in: Option<&RequirementsFile>) {
        let Some(path) = requirement.path() else { return };
        let mut places = self.candidates(path, named_in);
        places.retain(|place| fs::metadata(place).is_ok());
        self.is_opaque |= places.is_empty();
        for place in places {
            self.path(&place);
        }
    }

    /// pip looks for relative paths in the working directory, uv beside the file that names them.
    fn candidates(&self, path: &str, named_in: Option<&RequirementsFile>) -> Vec<PathBuf> {
        let mut places: Vec<PathBuf> = self.tree.map(|tree| tree.join(path)).into_iter().collect();
        places.extend(named_in.map(|file| file.beside(path)));
        if Path::new(path).is_absolute() {
            places = vec![path.into()];
        }
        places.dedup();
        places
    }

    /// A place with archives.
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

    /// A file's or a directory's contents.
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
                // What they lead to may be anywhere else in the tree, as may the sources and
                // workspaces that uv reads there, and what a build looks for above.
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

/// The path that a setting names; None: a URL.
pub(super) fn local(place: &str) -> Option<&Path> {
    let path = place.strip_prefix("file://").unwrap_or(place);
    (!path.contains("://")).then(|| Path::new(path))
}

/// A path as text, whatever its bytes are.
pub(super) fn text_of(path: &Path) -> String {
    path.as_os_str().as_encoded_bytes().escape_ascii().to_string()
}

/// Of a text without the credentials in it.
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
