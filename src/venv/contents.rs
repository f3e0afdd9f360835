//! Finds the files that determine an environment, and identifies them by their contents: requirements files and the
//! files that they name, local projects, --find-links locations, the engines' configuration files.

use std::collections::{BTreeSet, HashSet};
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
use super::pyproject;
use super::requirements::{Meaning, Requirement, RequirementsFile, RequirementsReader, Subject};
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
    /// What the key of a shared environment would have to know, and does not.
    pub(super) unknown: Option<String>,
    pub(super) pins: Pins,
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
        Self {
            files,
            identities,
            found,
            tree,
            seen,
            is_opaque: false,
            unknown: None,
            pins: Pins::default(),
            elsewhere: false,
            failed: None,
            deadline,
        }
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

    /// Remembers that the contents of an input are unknown. The source's revision covers those in the tree.
    pub(super) fn opaque(&mut self, is_in_tree: bool, what: impl Into<String>) {
        self.is_opaque = true;
        if !is_in_tree {
            self.unknown.get_or_insert_with(|| what.into());
        }
    }

    /// Remembers why a path could not be read. An engine reports a missing one.
    fn unread(&mut self, path: &Path, error: &io::Error) {
        let is_in_tree = self.tree.is_some_and(|tree| path.starts_with(tree));
        self.opaque(is_in_tree, format!("{} cannot be read", path.display()));
        if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::TimedOut) {
            let shown = self.tree.and_then(|tree| path.strip_prefix(tree).ok()).unwrap_or(path).display();
            self.fail(
                files::unreadable(Kind::Environment, format!("cannot read {shown}"), error)
                    .hint("the requirements name it: give a regular file that podstrap's user can read"),
            );
        }
    }

    fn fail(&mut self, error: Error) {
        self.opaque(false, error.summary());
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
        if !file.is_decoded {
            let is_in_tree = self.inside(path);
            self.opaque(is_in_tree, format!("{} has an unknown encoding", path.display()));
        }
        let text = &file.text;
        if !self.elsewhere || *text != file.written || !self.inside(path) {
            self.found.push(Content::Text(hash(text)));
        }
        if file.form != Form::Requirements {
            for named in lock::paths(text) {
                let named = file.beside(&named);
                if !self.inside(&named) {
                    self.unknown.get_or_insert_with(|| format!("{} is outside the tree", named.display()));
                }
                self.named(&named);
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
                self.pins.is_open = true;
                if ["git+", "git =", "git="].iter().any(|word| text.contains(word)) {
                    self.unknown.get_or_insert_with(|| format!("{} names a repository", path.display()));
                }
            }
            Form::Pylock => {
                self.pins.names.extend(lock::names(text));
                self.is_opaque |= ["path", "directory"].iter().any(|word| text.contains(word));
            }
            Form::UvLock => {
                self.is_opaque |= !lock::is_all_remote(text);
                let (is_open, unknown) = (self.pins.is_open, self.unknown.clone());
                self.file(&path.with_file_name(PYPROJECT));
                // The lock file decides the versions and commits of the project's dependencies.
                (self.pins.is_open, self.unknown) = (is_open, unknown);
                self.pins.names.extend(lock::names(text));
            }
        }
    }

    fn lines(&mut self, file: &RequirementsFile) {
        for line in &file.lines {
            match &line.meaning {
                Meaning::Index(_) | Meaning::Option { .. } => {}
                Meaning::Include { location, .. } => match location.path() {
                    Some(path) => self.file(&file.beside(path)),
                    None => self.remote(&location.to_string()),
                },
                Meaning::Requirement(found) | Meaning::Editable(found) => self.requirement(found, Some(file)),
                Meaning::FindLinks(location) => {
                    let Some(links) = location.path() else { continue };
                    let mut places = self.candidates(links, Some(file));
                    places.retain(|place| self.metadata(place).is_some());
                    // The path is relative to the tree, which does not exist yet.
                    if places.is_empty() {
                        self.opaque(false, format!("the --find-links location {links} is missing"));
                    }
                    for place in places {
                        self.links(&place);
                    }
                }
                Meaning::Unknown => self.opaque(false, "podstrap does not know a line of the requirements"),
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
                    Some(_) => self.opaque(false, "a configuration file names a relative path"),
                    None => {}
                }
            }
        }
    }

    /// Adds a requirement if it is a local file or project.
    pub(super) fn requirement(&mut self, requirement: &Requirement, named_in: Option<&RequirementsFile>) {
        if let Some(moving) = self.pins.add(requirement) {
            self.unknown.get_or_insert(moving);
        }
        let Some(path) = requirement.path() else { return };
        let mut places = self.candidates(path, named_in);
        places.retain(|place| self.metadata(place).is_some());
        if places.is_empty() {
            self.opaque(false, format!("the path {path} of the requirements is missing"));
        }
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

    /// Remembers that a file on a server decides the environment.
    pub(super) fn remote(&mut self, url: &str) {
        self.unknown.get_or_insert_with(|| format!("{} is on a server", redact::shown(url)));
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
                Err(_) => self.opaque(false, format!("{} cannot be read", path.display())),
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
                if links {
                    let is_in_tree = self.inside(path);
                    self.opaque(is_in_tree, format!("{} has symbolic links", path.display()));
                }
            }
            Err(error) if error.kind() == Kind::Volume => self.fail(error),
            Err(_) => self.opaque(false, format!("{} cannot be read", path.display())),
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
                    if words.iter().any(|word| text.contains(word)) {
                        let is_in_tree = self.inside(path) && !text.contains("..") && !text.contains("file:");
                        self.opaque(is_in_tree, format!("{} may name files outside the tree", file.display()));
                    }
                }
                Err(error) => self.unread(&file, &error),
            }
        }
    }
}

/// The packages whose requirements name one version.
#[derive(Debug, Clone, Default)]
pub(super) struct Pins {
    /// Their normalized names.
    names: BTreeSet<String>,
    /// Another requirement has no version, or names its packages elsewhere.
    is_open: bool,
}

impl Pins {
    /// Adds a requirement. Returns why its contents are unknown, if they are.
    fn add(&mut self, requirement: &Requirement) -> Option<String> {
        // Another line may have the package for this Python.
        let is_certain = requirement.marker.is_none();
        match &requirement.subject {
            Subject::Name { name, versions, .. } => {
                if is_certain && is_exact(versions) {
                    self.names.insert(pyproject::normal(name));
                }
                None
            }
            Subject::Url { name, url } => {
                let shown = || redact::shown(url);
                let (place, fragment) = url.split_once('#').unwrap_or((url, ""));
                let is_repository = place.split_once("://").is_some_and(|(scheme, _)| scheme.contains('+'));
                let revision =
                    place.rsplit_once('/').and_then(|(_, last)| last.rsplit_once('@')).map(|(_, found)| found);
                let is_commit = revision
                    .is_some_and(|found| found.len() == 40 && found.bytes().all(|byte| byte.is_ascii_hexdigit()));
                if is_repository && !is_commit {
                    return Some(format!("{} has no full commit", shown()));
                }
                match name {
                    Some(name) if is_certain && (is_commit || fragment.contains("sha256=")) => {
                        self.names.insert(pyproject::normal(name));
                    }
                    _ => {}
                }
                None
            }
            // The key has its contents. Its dependencies may be open.
            Subject::Path { name, .. } => {
                self.names.extend(name.as_deref().map(pyproject::normal));
                None
            }
        }
    }

    /// Adds the pins of other inputs.
    pub(super) fn extend(&mut self, other: &Self) {
        self.names.extend(other.names.iter().cloned());
        self.is_open |= other.is_open;
    }

    /// Whether they decide the versions of all these packages.
    pub(super) fn decide<'n>(&self, mut names: impl Iterator<Item = &'n str>) -> bool {
        !self.is_open && names.all(|name| self.names.contains(&pyproject::normal(name)))
    }
}

/// `==1.2`, but not `==1.*`, and nothing besides.
fn is_exact(versions: &str) -> bool {
    let version = versions.trim().trim_start_matches('(').trim_end_matches(')');
    let version = version.strip_prefix("===").or_else(|| version.strip_prefix("=="));
    version.is_some_and(|version| !version.trim().is_empty() && !version.contains(['*', ',', '<', '>', '!', '~']))
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
    fn only_exact_versions_and_commits_are_fixed() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let (settings, identities) = (Settings::from_env([]), Identities::default());
        let read = |text: &str| {
            let dir = tempfile::tempdir().unwrap();
            let deadline = Deadline::after(std::time::Duration::from_secs(10));
            let mut contents = Contents::new(&settings, &identities, Some(dir.path()), deadline);
            let file = dir.path().join("requirements.txt");
            fs::write(&file, text.replace("COMMIT", commit)).unwrap();
            contents.file(&file);
            (contents.pins.decide(["Flask", "a.b"].into_iter()), contents.unknown)
        };
        let fixed = |text: &str| read(&format!("a_b===1\n{text}")) == (true, None);
        for text in
            ["flask==3.0", "FLASK[async] == 3", "flask @ https://h/f.whl#sha256=ab", "flask @ git+https://h/f@COMMIT"]
        {
            assert!(fixed(text), "{text}");
        }
        for text in [
            "flask",
            "flask==3.*",
            "flask>=3",
            "flask==3,!=4",
            "flask==3; python_version < '3.9'",
            "flask @ https://h/f.whl",
            "https://h/flask.whl#sha256=ab",
        ] {
            assert_eq!(read(&format!("a_b===1\n{text}")), (false, None), "{text}");
        }
        for text in
            ["git+https://h/f", "flask @ git+https://h/f@main", "f @ git+ssh://git@h/f@v1", "-r https://h/r.txt"]
        {
            assert!(read(text).1.is_some(), "{text}");
        }
    }

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
