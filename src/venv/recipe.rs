//! What decides the contents of an environment, as one hash: equal keys, equal environments.
//!
//! It goes by contents: of every requirements file that is reached, of local projects and
//! wheelhouses, of the engines' configuration files. A line that it does not understand ties the key to
//! the source's revision: rather a build too many than a stale environment. Versions that are not
//! pinned are not looked up again while the key stays the same; `--refresh` is for that. No secret
//! enters: URLs lose their credentials first.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};

use super::inputs::Form;
use super::inputs::Inputs;
use super::pyproject;
use super::settings::Settings;
use super::{Toolchain, is_local_path};
use crate::error::{Error, Result};
use crate::plan;
use crate::redact;
use crate::retry::Deadline;
use crate::runtime::hex;
use crate::source;

/// Raised when the same inputs begin to give other environments.
const FORMAT: &str = "1";

/// What is known of an environment before the tree is there.
#[derive(Debug, Clone)]
pub struct Recipe {
    digest: Sha256,
    /// Something outside the tree could not be understood.
    opaque: bool,
    /// What `${NAME}` in requirements files means.
    settings: Settings,
}

impl Recipe {
    /// Reads everything outside the tree that counts. Once, and before anything is installed: a
    /// `ConfigMap` may change meanwhile.
    ///
    /// # Errors
    /// A requirements file outside the tree cannot be read.
    pub fn new(
        environment: &plan::Environment,
        settings: &Settings,
        toolchain: Option<&Toolchain>,
        deadline: Deadline,
    ) -> Result<Self> {
        let mut contents = Contents::new(settings, Sha256::new(), None, deadline);
        contents.add("format", FORMAT);
        contents.add("final path", environment.final_path.as_os_str().as_encoded_bytes());
        let tree_final = environment.tree_final().unwrap_or_default();
        contents.add("final tree", tree_final.as_os_str().as_encoded_bytes());
        if let Some(path) = &environment.python_final {
            contents.add("python's final path", path.as_os_str().as_encoded_bytes());
        }
        // What passes without it may not pass with it.
        contents.add("for", format!("{:?} {}", environment.target, environment.strict));
        if let Some(toolchain) = toolchain {
            contents.add("toolchain", format!("{toolchain:?}"));
            for pip in toolchain.pips() {
                contents.add("pip", pip);
            }
        }
        for (name, value) in settings.decisive() {
            contents.add(&name, value);
        }
        for package in &environment.packages {
            contents.add("package", redact::clean(package));
            if !is_local_path(package) {
                contents.requirement(package, None);
            }
        }
        for (label, names) in [("extra", &environment.extras), ("group", &environment.groups)] {
            for name in names {
                contents.add(label, name);
            }
        }
        for links in &environment.supply.links {
            contents.add("links", redact::clean(&format!("{links:?}")));
            if let plan::Links::At(place) = links {
                contents.links(place);
            }
        }
        for (label, files) in [("-r", &environment.requirements), ("-c", &environment.constraints)] {
            for file in files {
                contents.add(label, file.as_os_str().as_encoded_bytes());
                if file.is_absolute() {
                    fs::metadata(file).map_err(|error| unreadable(file, error))?;
                    contents.file(file);
                }
            }
        }
        for file in settings.files() {
            contents.named(file, Contents::file);
        }
        for file in settings.configuration() {
            let text = fs::read(&file).unwrap_or_default();
            contents.configuration(&String::from_utf8_lossy(&text));
        }
        for place in settings.find_links() {
            contents.named(place, Contents::links);
        }
        Ok(Self { opaque: contents.opaque, digest: contents.digest, settings: settings.clone() })
    }

    /// Hash of it: with the source's revision it decides all of a release.
    pub fn digest(&self) -> String {
        hex(&self.digest.clone().finalize())
    }

    /// The environment's own key. `inputs` are those in `tree`, which holds `revision`; without a
    /// tree nothing in it is named.
    pub fn key(&self, inputs: &Inputs, tree: Option<&Path>, revision: &str, deadline: Deadline) -> String {
        let mut contents = Contents::new(&self.settings, self.digest.clone(), tree, deadline);
        contents.opaque = self.opaque;
        contents.inputs(inputs);
        if contents.opaque {
            contents.add("revision", revision);
        }
        hex(&contents.digest.finalize())
    }

    /// Hash of what the tree's files lead to elsewhere, and of variables in them: what neither the
    /// digest nor the source's revision holds.
    pub fn elsewhere(&self, inputs: &Inputs, tree: Option<&Path>, deadline: Deadline) -> String {
        let mut contents = Contents::new(&self.settings, Sha256::new(), tree, deadline);
        contents.elsewhere = true;
        contents.inputs(inputs);
        hex(&contents.digest.finalize())
    }
}

/// Each requirements file that is reached, and its text with variables filled in.
fn texts(inputs: &Inputs, settings: &Settings) -> Vec<(PathBuf, String)> {
    let named = settings.files().into_iter().map(PathBuf::from).filter(|file| file.is_absolute());
    let mut left: Vec<PathBuf> = inputs.requirements.iter().chain(&inputs.constraints).cloned().chain(named).collect();
    let mut seen = HashSet::new();
    let mut texts = Vec::new();
    while let Some(file) = left.pop() {
        if !seen.insert(file.clone()) {
            continue;
        }
        // What is missing, the engine says.
        let bytes = fs::read(&file).unwrap_or_default();
        let text = settings.expand(&decoded(&bytes).unwrap_or_else(|| String::from_utf8_lossy(&bytes).into_owned()));
        if Form::of(&file) == Form::Requirements {
            for line in logical_lines(&text) {
                for part in options(&line) {
                    if let Line::Include(path) = Line::of(part) {
                        left.push(beside(&file, path));
                    }
                }
            }
        }
        texts.push((file, text));
    }
    texts
}

/// Whether a requirement has a hash: pip wants all of them to have one then.
pub(super) fn has_hashes(inputs: &Inputs, settings: &Settings) -> bool {
    let texts = texts(inputs, settings);
    texts
        .iter()
        .filter(|(file, _)| Form::of(file) == Form::Requirements)
        .any(|(_, text)| logical_lines(text).iter().any(|line| !line.starts_with('-') && line.contains(" --hash")))
}

/// A requirements file of the tree that leads to another one outside of it, and how it says so. What an engine
/// does not understand there it prints: a repository must not get at what else is mounted. So what is not plain is
/// taken for that as well. A variable of the Pod may name such a file: `-c ${PINS}`.
pub(super) fn leads_out(inputs: &Inputs, settings: &Settings, tree: &Path) -> Option<(PathBuf, String)> {
    let real = tree.canonicalize().ok()?;
    let mut left: Vec<PathBuf> = inputs.requirements.iter().chain(&inputs.constraints).cloned().collect();
    left.retain(|file| file.starts_with(tree));
    let mut seen = HashSet::new();
    while let Some(file) = left.pop() {
        if Form::of(&file) != Form::Requirements || !seen.insert(file.clone()) {
            continue;
        }
        let shown = |line: &str| Some((file.strip_prefix(tree).unwrap_or(&file).to_owned(), line.to_owned()));
        let Some(text) = decoded(&fs::read(&file).unwrap_or_default()) else {
            return shown("perhaps, by its encoding");
        };
        for line in logical_lines(&text) {
            let Some(paths) = included(&line) else { return shown(&line) };
            for path in paths.iter().filter(|path| !of_the_pod(path)) {
                // Not every engine fills in every variable.
                for path in [path.clone(), settings.expand(path)] {
                    let target = beside(&file, &path);
                    let known = target.canonicalize();
                    if !stays(&target, tree) || known.is_ok_and(|known| !known.starts_with(&real)) {
                        return shown(&line);
                    }
                    left.push(target);
                }
                if settings.expand(path).contains("${") {
                    return shown(&line);
                }
            }
        }
    }
    None
}

/// Whether a path is below `tree` by its name, all the way.
fn stays(path: &Path, tree: &Path) -> bool {
    let mut depth = 0_usize;
    path.strip_prefix(tree).is_ok_and(|below| {
        below.components().all(|part| match part {
            Component::ParentDir => {
                let inside = depth > 0;
                depth = depth.saturating_sub(1);
                inside
            }
            Component::CurDir => true,
            _ => {
                depth += 1;
                true
            }
        })
    })
}

/// What pip or uv may take for the paths after `-r` and `-c` in a line: for pip a path ends at white space, for uv
/// with the line; pip takes options that are cut short. None: it includes something in a way that is not plain.
fn included(line: &str) -> Option<Vec<String>> {
    if !line.starts_with('-') {
        return Some(Vec::new());
    }
    // With quotes anywhere but around a whole path, pip's words are not ours.
    let bare = line.replace(['"', '\'', '\\'], "");
    let mut paths = Vec::new();
    for (at, _) in bare.match_indices('-').filter(|(at, _)| *at == 0 || bare[..*at].ends_with(char::is_whitespace)) {
        let word = &bare[at..];
        let rest = match word.strip_prefix("--") {
            Some(long) => {
                let (name, rest) = long.split_at(long.find([' ', '\t', '=']).unwrap_or(long.len()));
                let includes = ["requirement", "constraint"].iter().any(|flag| flag.starts_with(name));
                Some(rest).filter(|_| includes)
            }
            None => word.strip_prefix("-r").or_else(|| word.strip_prefix("-c")),
        };
        let Some(rest) = rest.map(|rest| rest.trim_start_matches([' ', '\t', '='])) else { continue };
        let scheme = rest.split_once(':').map(|(scheme, _)| scheme.to_lowercase());
        match scheme.as_deref() {
            Some("http" | "https") => {}
            // However it goes on, it is absolute.
            Some("file") => return None,
            _ => paths.extend([rest.to_owned(), rest.split_whitespace().next().unwrap_or_default().to_owned()]),
        }
    }
    paths.retain(|path| !path.is_empty());
    let quoted = ['"', '\''].iter().any(|quote| {
        let parts: Vec<&str> = line.split(*quote).collect();
        matches!(parts[..], [_, path, ""] if paths.first().is_some_and(|first| first == path))
    });
    (paths.is_empty() || bare == line || quoted).then_some(paths)
}

/// Whether a path is nothing but a variable, which is for versions by its name: others may name secrets.
fn of_the_pod(path: &str) -> bool {
    let name = path.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    name.is_some_and(|name| {
        name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
            && ["PINS", "CONSTRAINT", "REQUIREMENT"].iter().any(|word| name.contains(word))
    })
}

/// A requirements file's text as pip decodes it (`auto_decode`), every line end of its a plain one. None: in an
/// encoding in which it may say something else than its ASCII.
fn decoded(bytes: &[u8]) -> Option<String> {
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect();
        String::from_utf16_lossy(&units)
    };
    let narrow = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    };
    let text = match bytes {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => return None,
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => narrow(rest),
        _ => {
            let mut named = bytes.split(|byte| *byte == b'\n').take(2).filter(|line| line.starts_with(b"#"));
            let plain = |line: &[u8]| {
                let line = String::from_utf8_lossy(line).to_lowercase().replace('_', "-");
                let kinds =
                    ["utf-8", "utf8", "ascii", "us-ascii", "latin", "iso-8859", "iso8859", "cp125", "windows-125"];
                let names = line.split("coding").skip(1).filter_map(|rest| rest.strip_prefix([':', '=']));
                names.map(str::trim_start).all(|name| kinds.iter().any(|kind| name.starts_with(kind)))
            };
            if !named.all(plain) {
                return None;
            }
            narrow(bytes)
        }
    };
    // Python's `str.splitlines`, and uv's.
    let ends = ['\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}', '\r'];
    Some(text.replace("\r\n", "\n").replace(ends, "\n"))
}

/// A file by which uv would build a package in spite of `--no-build`, or might: what is asked for by name
/// counts more.
pub(super) fn asks_for_builds(inputs: &Inputs, settings: &Settings) -> Option<PathBuf> {
    let by_url = |part: &str| part.starts_with('-') && part.contains("://") && !part.contains("file://");
    let in_requirements = texts(inputs, settings).into_iter().find(|(file, text)| {
        let lines = logical_lines(text);
        let mut parts = lines.iter().flat_map(|line| options(line));
        Form::of(file) == Form::Requirements
            && parts.any(|part| {
                let includes = ["-r", "-c", "--requirement", "--constraint"].iter().any(|flag| part.starts_with(flag));
                // To learn the name of what is editable uv asks its build.
                let editable = part.starts_with("-e") || part.starts_with("--editable");
                editable
                    || part.starts_with("--no-binary")
                    || includes && !part.starts_with("--require-hashes") && by_url(part)
            })
    });
    let beside_locks =
        inputs.of(Form::UvLock).flat_map(|lock| [lock.with_file_name(pyproject::NAME), lock.with_file_name("uv.toml")]);
    in_requirements.map(|(file, _)| file).or_else(|| {
        let mut configuration = settings.configuration().into_iter().chain(beside_locks);
        configuration.find(|file| fs::read_to_string(file).is_ok_and(|text| text.contains("no-binary")))
    })
}

/// The first package that a lock file takes from a directory. uv builds the projects of a workspace in spite
/// of `--no-build`. What cannot be read has none: uv says more of it.
pub(super) fn project_of_lock(lock: &Path) -> Option<String> {
    let table = fs::read_to_string(lock).ok()?.parse::<toml::Table>().ok()?;
    let packages = ["package", "packages"].iter().find_map(|name| table.get(*name)?.as_array())?;
    let found = packages.iter().find(|package| {
        let source = package.get("source").and_then(toml::Value::as_table);
        package.get("directory").is_some()
            || source.is_some_and(|source| source.contains_key("editable") || source.contains_key("directory"))
    })?;
    Some(found.get("name").and_then(toml::Value::as_str).unwrap_or("a project").to_owned())
}

/// The places of Git repositories that the inputs name.
pub(super) fn git_places(inputs: &Inputs, settings: &Settings) -> Vec<url::Url> {
    let mut places = Vec::new();
    let texts = texts(inputs, settings);
    for text in texts.iter().map(|(_, text)| text).chain(&inputs.packages) {
        for mark in ["git+http", "git = \"http", "git = 'http"] {
            for (at, _) in text.match_indices(mark) {
                let url = &text[at + mark.len() - "http".len()..];
                let end = url.find(|c: char| c.is_whitespace() || "\"'<>".contains(c)).unwrap_or(url.len());
                if let Ok(url) = url::Url::parse(&url[..end])
                    && !places.contains(&url)
                {
                    places.push(url);
                }
            }
        }
    }
    places
}

/// Whether nothing that a uv.lock names is in the tree, or anywhere else on this machine.
fn only_from_elsewhere(lock: &str) -> bool {
    let Ok(table) = lock.parse::<toml::Table>() else { return false };
    let packages = table.get("package").and_then(toml::Value::as_array).into_iter().flatten();
    packages.into_iter().all(|package| {
        let source = package.get("source").and_then(toml::Value::as_table);
        source.is_some_and(|source| {
            source.iter().all(|(kind, place)| match kind.as_str() {
                "virtual" | "git" | "url" | "subdirectory" => true,
                "registry" => place.as_str().is_some_and(|place| place.contains("://") && !place.starts_with("file:")),
                _ => false,
            })
        })
    })
}

/// Walks what requirements lead to.
struct Contents<'a> {
    settings: &'a Settings,
    digest: Sha256,
    tree: Option<&'a Path>,
    seen: HashSet<PathBuf>,
    /// There is something that may depend on any file of the tree.
    opaque: bool,
    /// What the tree holds is left out.
    elsewhere: bool,
    deadline: Deadline,
}

impl<'a> Contents<'a> {
    fn new(settings: &'a Settings, digest: Sha256, tree: Option<&'a Path>, deadline: Deadline) -> Self {
        Self { settings, digest, tree, seen: HashSet::new(), opaque: false, elsewhere: false, deadline }
    }

    /// What is named in the tree.
    fn inputs(&mut self, inputs: &Inputs) {
        let Some(tree) = self.tree else { return };
        for file in inputs.requirements.iter().chain(&inputs.constraints).filter(|file| file.starts_with(tree)) {
            self.file(file);
        }
        for package in inputs.packages.iter().filter(|package| is_local_path(package)) {
            self.requirement(package, None);
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

    /// With lengths, so that no two lists look alike.
    fn add(&mut self, label: &str, value: impl AsRef<[u8]>) {
        for bytes in [label.as_bytes(), value.as_ref()] {
            self.digest.update((bytes.len() as u64).to_be_bytes());
            self.digest.update(bytes);
        }
    }

    /// A requirements file, but for credentials, and all that it leads to.
    fn file(&mut self, file: &Path) {
        if !self.seen.insert(file.to_owned()) {
            return;
        }
        // Where an engine finds something all the same, it is not known what.
        let bytes = fs::read(file).unwrap_or_else(|_| {
            self.opaque = true;
            Vec::new()
        });
        let written = decoded(&bytes).unwrap_or_else(|| {
            self.opaque = true;
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let text = self.settings.expand(&written);
        if !self.elsewhere || text != written || !self.inside(file) {
            self.add("file", redact::clean(&text));
        }
        match Form::of(file) {
            Form::Requirements => {}
            Form::Pyproject => {
                // A path in it is one of the tree, or a build decides what is asked for.
                self.opaque |= ["tool.uv", "file:", "dynamic"].iter().any(|word| text.contains(word));
                return;
            }
            Form::Pylock => {
                self.opaque |= ["path", "directory"].iter().any(|word| text.contains(word));
                return;
            }
            Form::UvLock => {
                self.opaque |= !only_from_elsewhere(&text);
                return self.file(&file.with_file_name(pyproject::NAME));
            }
        }
        for line in logical_lines(&text) {
            for part in options(&line) {
                match Line::of(part) {
                    Line::Plain => {}
                    Line::Include(path) => self.file(&beside(file, path)),
                    Line::Requirement(text) => self.requirement(text, Some(file)),
                    Line::Project(path) => self.project(path, Some(file)),
                    Line::Links(path) => {
                        let places = self.candidates(path, Some(file));
                        // Relative to the tree, which is not there yet.
                        self.opaque |= !places.iter().any(|place| place.exists());
                        for place in places {
                            self.links(&place);
                        }
                    }
                    Line::Unknown => self.opaque = true,
                }
            }
        }
    }

    /// What a setting names outside the tree. Relative to what, the engine decides.
    fn named(&mut self, place: &str, visit: impl FnOnce(&mut Self, &Path)) {
        let path = Path::new(place.strip_prefix("file://").unwrap_or(place));
        if path.is_absolute() {
            visit(self, path);
        } else {
            self.opaque |= !place.contains("://");
        }
    }

    /// A configuration file (pip's INI, uv's TOML), and the files and directories with versions that it
    /// names.
    fn configuration(&mut self, text: &str) {
        self.add("configuration", redact::clean(text));
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
            for word in
                values.split(|c: char| c.is_whitespace() || "\"',[]".contains(c)).filter(|word| !word.is_empty())
            {
                if option.contains("constraint") || option.contains("override") {
                    self.named(word, Self::file);
                } else if option == "find-links" {
                    self.named(word, Self::links);
                }
            }
        }
    }

    /// A requirement, which may be a file or a project on this machine.
    fn requirement(&mut self, text: &str, named_in: Option<&Path>) {
        if let Some(path) = local(text) {
            self.project(path, named_in);
        }
    }

    fn project(&mut self, path: &str, named_in: Option<&Path>) {
        let places: Vec<_> =
            self.candidates(path, named_in).into_iter().filter(|place| fs::metadata(place).is_ok()).collect();
        if places.is_empty() {
            self.opaque = true;
        }
        for place in places {
            self.path(&place);
        }
    }

    /// pip looks for relative paths in the working directory, uv beside the file that names them.
    fn candidates(&self, path: &str, named_in: Option<&Path>) -> Vec<PathBuf> {
        let mut places: Vec<PathBuf> = self.tree.map(|tree| tree.join(path)).into_iter().collect();
        places.extend(named_in.map(|file| beside(file, path)));
        if Path::new(path).is_absolute() {
            places = vec![path.into()];
        }
        places.dedup();
        places
    }

    /// A place with archives. A checkout's times say nothing; elsewhere names, sizes and times are as
    /// good as the contents of what may be gigabytes, read for every rerun.
    fn links(&mut self, place: &Path) {
        if place.is_file() || self.inside(place) {
            self.path(place);
            return;
        }
        let entries = fs::read_dir(place).into_iter().flatten().flatten();
        let mut archives: Vec<String> = entries
            .filter_map(|entry| {
                let meta = fs::metadata(entry.path()).ok()?;
                Some(format!("{} {} {}.{}", entry.file_name().display(), meta.len(), meta.mtime(), meta.mtime_nsec()))
            })
            .collect();
        archives.sort();
        self.add("archives", archives.join("\n"));
    }

    /// A file's or a directory's contents.
    fn path(&mut self, path: &Path) {
        if !self.seen.insert(path.to_owned()) || self.elsewhere && self.inside(path) {
            return;
        }
        if path.is_dir() {
            match source::digest(path, self.deadline) {
                Ok((digest, links)) => {
                    self.add("directory", digest);
                    // What they lead to may be anywhere else in the tree, as may the sources and
                    // workspaces that uv reads there, and what a build looks for above.
                    self.opaque |= links;
                }
                Err(_) => self.opaque = true,
            }
            self.opaque |= ["pyproject.toml", "setup.cfg", "setup.py"].iter().any(|name| {
                let text = fs::read_to_string(path.join(name)).unwrap_or_default();
                ["tool.uv", "..", "file:", "backend-path"].iter().any(|word| text.contains(word))
            });
        } else {
            let mut file = Sha256::new();
            let read = fs::File::open(path).and_then(|mut from| std::io::copy(&mut from, &mut Writer(&mut file)));
            self.opaque |= read.is_err();
            self.add("contents", file.finalize());
        }
    }
}

/// A hash that takes a file's bytes.
struct Writer<'a>(&'a mut Sha256);

impl std::io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a line of a requirements file refers to.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    /// Nothing but what it says.
    Plain,
    /// Another requirements file.
    Include(&'a str),
    Requirement(&'a str),
    /// A directory, however it is written.
    Project(&'a str),
    /// A place with archives.
    Links(&'a str),
    Unknown,
}

/// Options that say everything themselves.
/// <https://pip.pypa.io/en/stable/reference/requirements-file-format/#supported-options>
const PLAIN_OPTIONS: &[&str] = &[
    "-i",
    "--index-url",
    "--extra-index-url",
    "--no-index",
    "--pre",
    "--prefer-binary",
    "--no-binary",
    "--only-binary",
    "--trusted-host",
    "--require-hashes",
    "--use-feature",
];

impl<'a> Line<'a> {
    fn of(line: &'a str) -> Self {
        if !line.starts_with('-') {
            return Self::Requirement(line);
        }
        let value = |flags: &[&str]| {
            flags.iter().filter_map(|flag| line.strip_prefix(flag)).find_map(|rest| {
                let value = rest.trim_start_matches([' ', '\t', '=']).trim_matches(['"', '\'']);
                // `-rfile` is -r, `--requirement-file` is not --requirement.
                let long = line.starts_with("--") && rest.starts_with(|c: char| c.is_alphanumeric() || c == '-');
                (!long && !value.is_empty() && !value.starts_with('-')).then_some(value)
            })
        };
        if let Some(file) = value(&["-r", "-c", "--requirement", "--constraint"]) {
            let file = file.strip_prefix("file://").unwrap_or(file);
            return if file.is_empty() || file.contains("://") { Self::Plain } else { Self::Include(file) };
        }
        if let Some(project) = value(&["-e", "--editable"]) {
            return match local(project) {
                Some(path) => Self::Project(path),
                None if project.contains("://") => Self::Plain,
                None => Self::Project(bare(project)),
            };
        }
        if let Some(place) = value(&["-f", "--find-links"]) {
            let place = place.strip_prefix("file://").unwrap_or(place);
            return if place.is_empty() || place.contains("://") { Self::Plain } else { Self::Links(place) };
        }
        let name = line.split([' ', '\t', '=']).next().unwrap_or_default();
        if PLAIN_OPTIONS.contains(&name) { Self::Plain } else { Self::Unknown }
    }
}

/// The options of a line that has several; a requirement's own belong to it.
fn options(line: &str) -> Vec<&str> {
    if !line.starts_with('-') {
        return vec![line];
    }
    let mut starts: Vec<usize> = line.match_indices(" -").map(|(at, _)| at + 1).collect();
    starts.insert(0, 0);
    let ends = starts.iter().skip(1).copied().chain([line.len()]);
    starts.iter().zip(ends).map(|(start, end)| line[*start..end].trim()).collect()
}

/// The lines without comments, continued ones joined, as pip reads them.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open = String::new();
    for line in text.lines() {
        // A comment goes on in no other line, and ends one that does.
        let comment = line.trim_start().starts_with('#');
        if line.ends_with('\\') && !comment {
            open.push_str(line.trim_matches('\\'));
            continue;
        }
        let line = std::mem::take(&mut open) + if comment { " " } else { "" } + line;
        let comment = line.match_indices('#').find(|(at, _)| *at == 0 || line[..*at].ends_with(char::is_whitespace));
        let line = comment.map_or(line.as_str(), |(at, _)| &line[..at]).trim();
        if !line.is_empty() {
            lines.push(line.to_owned());
        }
    }
    lines.extend(Some(open.trim().to_owned()).filter(|line| !line.is_empty()));
    lines
}

/// The path in a requirement that is one: `./lib[dev]`, `/wheels/x.whl`, `x @ file:///wheels/x.whl`.
fn local(requirement: &str) -> Option<&str> {
    // What follows are markers and hashes.
    let end = requirement.find(" --").or_else(|| requirement.find(" ;")).unwrap_or(requirement.len());
    let requirement = requirement[..end].trim();
    let target = super::target(requirement);
    let path = target.strip_prefix("file://").or_else(|| target.strip_prefix("file:")).unwrap_or(target);
    let path = path.split('#').next().unwrap_or_default();
    let named = path.starts_with('/') || target.starts_with("file:") || is_local_path(requirement);
    named.then_some(bare(path))
}

/// Without extras.
fn bare(path: &str) -> &str {
    path.strip_suffix(']').and_then(|path| Some(&path[..path.rfind('[')?])).unwrap_or(path)
}

fn beside(file: &Path, path: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new("/")).join(path)
}

/// A requirements file outside the tree that is not there.
pub fn unreadable(file: &Path, error: std::io::Error) -> Error {
    Error::environment(format!("cannot read the requirements file {}", file.display()))
        .because(error)
        .hint("absolute paths are read as they are: is the volume or ConfigMap mounted in this container?")
}

/// A place with archives outside the tree that is not there.
pub fn no_links(place: &Path, error: std::io::Error) -> Error {
    Error::environment(format!("--find-links {}: cannot be read", place.display()))
        .because(error)
        .hint("absolute paths are read as they are: is the volume mounted in this container?")
}

/// Lines are lines, and what a line names is in it.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    for line in logical_lines(&String::from_utf8_lossy(data)) {
        assert!(!line.is_empty() && !line.contains('\n') && line.trim() == line, "{line:?}");
        assert!(options(&line).iter().all(|part| line.contains(part)), "{line:?}");
        match Line::of(&line) {
            Line::Project(named) => assert!(line.contains(named), "{line:?}"),
            Line::Include(named) | Line::Links(named) => {
                assert!(!named.is_empty() && line.contains(named) && !named.contains("://"), "{line:?}");
            }
            Line::Requirement(requirement) => {
                if let Some(path) = local(requirement) {
                    assert!(line.contains(path), "{line:?}");
                    beside(Path::new("/x/requirements.txt"), path);
                }
            }
            Line::Plain | Line::Unknown => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn included_files_are_found_however_they_are_written() {
        for line in ["-r base.txt", "-rbase.txt", "--requirement=base.txt", "-c base.txt", "-r 'base.txt'"] {
            assert_eq!(Line::of(line), Line::Include("base.txt"), "{line}");
        }
        for line in ["--require-hashes", "-r https://host/base.txt", "--index-url https://host/simple", "--pre"] {
            assert_eq!(Line::of(line), Line::Plain, "{line}");
        }
        for line in ["--config-settings x", "-r", "--requirements x", "--global-option=y"] {
            assert_eq!(Line::of(line), Line::Unknown, "{line}");
        }
    }

    #[test]
    fn lines_are_joined_and_lose_their_comments() {
        let text = "# all\nflask==3 \\\n  --hash=sha256:ab  # why\n\nx @ https://host/x#egg=x\n-r b.txt\\\n";
        assert_eq!(logical_lines(text), ["flask==3   --hash=sha256:ab", "x @ https://host/x#egg=x", "-r b.txt"]);
    }

    #[test]
    fn what_is_on_this_machine_is_known() {
        for (requirement, path) in [
            ("/w/x.whl", "/w/x.whl"),
            ("x @ file:///w/x.whl", "/w/x.whl"),
            ("x @ file:///w/x.whl#sha256=ab", "/w/x.whl"),
            ("./lib[dev,test]", "./lib"),
            ("./lib ; python_version > '3'", "./lib"),
            (".", "."),
            ("../x --config-settings a=b", "../x"),
            ("x-1.0-py3-none-any.whl", "x-1.0-py3-none-any.whl"),
        ] {
            assert_eq!(local(requirement), Some(path), "{requirement}");
        }
        for requirement in
            ["flask", "flask[async]>=3 ; python_version > '3'", "x @ https://host/x.whl", "git+https://host/x@main"]
        {
            assert_eq!(local(requirement), None, "{requirement}");
        }
    }

    /// A tree of these files (`-> target` is a link), and the key of `requirements.txt` in it.
    fn key(files: &[(&str, &str)], revision: &str) -> String {
        let tree = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = tree.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match text.strip_prefix("-> ") {
                Some(target) => std::os::unix::fs::symlink(target, path).unwrap(),
                None => fs::write(path, text).unwrap(),
            }
        }
        let recipe = Recipe { digest: Sha256::new(), opaque: false, settings: Settings::from_env([]) };
        let inputs = Inputs { requirements: vec![tree.path().join("requirements.txt")], ..Inputs::default() };
        let deadline = Deadline::after(std::time::Duration::from_secs(10));
        recipe.key(&inputs, Some(tree.path()), revision, deadline)
    }

    #[test]
    fn the_contents_decide_and_nothing_else() {
        let base = [
            ("requirements.txt", "-r r/more.txt\n./lib"),
            ("r/more.txt", "a==1"),
            ("lib/setup.py", "x"),
            ("index.py", "1"),
        ];
        let first = key(&base, "one");
        let with = |name: &'static str, text: &'static str| {
            let mut files = base.to_vec();
            files.retain(|(known, _)| *known != name);
            files.push((name, text));
            files
        };
        assert_eq!(key(&base, "two"), first, "the commit does not count");
        assert_eq!(key(&with("index.py", "2"), "two"), first, "nor do files that nothing leads to");
        for (name, text) in
            [("requirements.txt", "./lib"), ("r/more.txt", "a==2"), ("lib/setup.py", "y"), ("lib/new.py", "")]
        {
            assert_ne!(key(&with(name, text), "one"), first, "{name}");
        }
        for text in ["--config-settings a=b", "./gone"] {
            let files = with("requirements.txt", text);
            assert_ne!(key(&files, "one"), key(&files, "two"), "what is not understood goes by the commit: {text}");
        }
        for (name, text) in [
            ("lib/pyproject.toml", "[tool.uv]"),
            ("lib/setup.py", "open('../VERSION')"),
            ("lib/index.py", "-> ../index.py"),
            ("requirements.txt", "-r r/gone.txt"),
        ] {
            let files = with(name, text);
            assert_ne!(key(&files, "one"), key(&files, "two"), "{name}: {text}");
        }
    }

    #[test]
    fn a_repository_leads_to_no_file_outside_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("r")).unwrap();
        fs::write(dir.path().join("secret"), "s3cret").unwrap();
        fs::write(tree.join("r/more.txt"), "a").unwrap();
        std::os::unix::fs::symlink("../secret", tree.join("link.txt")).unwrap();
        let secret = dir.path().join("secret").display().to_string();
        let vars = [
            ("PINS", secret.as_str()),
            ("NETRC", &secret),
            ("MY_TOKEN", &secret),
            ("DIR", dir.path().to_str().unwrap()),
        ];
        let settings = Settings::from_env(vars.map(|(name, value)| (name.into(), value.into())));
        let out = |text: &dyn AsRef<[u8]>| {
            fs::write(tree.join("requirements.txt"), text).unwrap();
            let inputs = Inputs { requirements: vec![tree.join("requirements.txt")], ..Inputs::default() };
            leads_out(&inputs, &settings, &tree).is_some()
        };
        for text in [
            "-r r/more.txt",
            "-c ./r/../r/more.txt",
            "-r gone.txt",
            "-c ${PINS}",
            "-r https://host/x.txt",
            "a==1",
            "-e ./r",
        ] {
            assert!(!out(&text), "{text}");
        }
        for text in [
            format!("-r {secret}"),
            format!("-c{secret}"),
            format!("--requi={secret}"),
            format!("--constraint \"{secret}\""),
            format!("-r file://{secret}"),
            format!("-r FILE://localhost{secret}"),
            format!("a\n--pre -r \\\n{secret}"),
            "-r ../secret".into(),
            "-r r/../../secret".into(),
            "-r link.txt".into(),
            "-r ${NETRC}".into(),
            "-r ${MY_TOKEN}".into(),
            "-r ${DIR}/secret".into(),
            "-r ../secret-that-is-not-there".into(),
            format!("# why \\\n-r {secret}"),
            format!("\u{feff}-r {secret}"),
            format!("a\u{c}-r {secret}"),
            format!("a\r-r {secret}"),
            format!("\\-r {secret} \\\n"),
            format!("-r r/more.txt -c {secret}"),
            "-r x y/../../secret".into(),
            "-r \"x -y/../../secret\" --x=/../tree/q".into(),
            "-r \"link.txt\" --pre".into(),
            "-r ${GOOGLE_APPLICATION_CREDENTIALS}".into(),
            "-r odd${NOT_SET}.txt".into(),
            "# coding: utf-7 or utf-8\n+AC0-r +AC8-secret".into(),
        ] {
            assert!(out(&text), "{text}");
        }
        let wide: Vec<u8> = format!("\u{feff}-r {secret}").encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(out(&wide));
        assert!(!out(&"\"-r\" x"));
        assert!(!out(&"-r 'r/more.txt'"));
        assert!(!out(&"# Encoding: latin_1\n# on encoding\na"));
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
            let digest = || {
                let mut contents = Contents::new(&settings, Sha256::new(), None, deadline);
                contents.configuration(&text);
                hex(&contents.digest.finalize())
            };
            for name in ["w", "v"] {
                let _ = fs::remove_dir_all(dir.path().join(name));
                fs::create_dir(dir.path().join(name)).unwrap();
            }
            let mut seen = HashSet::from([digest()]);
            for name in ["pins.txt", "w/x.whl", "v/x.whl"] {
                write(name, config);
                assert!(seen.insert(digest()), "{name}");
                assert!(!seen.insert(digest()));
            }
            write("other.txt", "");
            assert!(seen.contains(&digest()));
            fs::remove_file(dir.path().join("pins.txt")).unwrap();
        }
    }

    #[test]
    fn what_a_line_leads_to_counts_however_it_is_written() {
        for (line, file) in [
            ("-e lib", "lib/setup.cfg"),
            ("-e lib[dev]", "lib/setup.cfg"),
            ("./lib@2", "lib@2/x.py"),
            ("--no-index --find-links ./w", "w/x-1-py3-none-any.whl"),
            ("-r a.txt --pre", "a.txt"),
            ("x-1.tar.xz", "x-1.tar.xz"),
        ] {
            let with = |text| key(&[("requirements.txt", line), (file, text)], "one");
            assert_ne!(with("1"), with("2"), "{line}");
            assert_eq!(with("1"), key(&[("requirements.txt", line), (file, "1")], "two"), "{line}");
        }
        for (name, text) in
            [("pyproject.toml", "dependencies = ['b @ file:///tree/b']"), ("setup.py", "open('../VERSION')")]
        {
            let files = [("requirements.txt", "./lib"), (&*format!("lib/{name}"), text)];
            assert_ne!(key(&files, "one"), key(&files, "two"), "{text}");
        }
    }

    #[test]
    fn credentials_do_not_count() {
        let with = |url: &str| key(&[("requirements.txt", &format!("--index-url {url}\nflask"))], "one");
        assert_eq!(with("https://me:one@host/simple"), with("https://me:two@host/simple"));
    }
}
