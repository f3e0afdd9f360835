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
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::inputs::{Form, Inputs};
use super::requirements::{Files, Meaning, Requirement};
use super::settings::Settings;
use super::{Toolchain, lock, pyproject};
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
            if let Some(found) = Requirement::read(package).filter(|found| !found.is_relative()) {
                contents.requirement(&found, None);
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

/// Walks what requirements lead to.
struct Contents<'a> {
    files: Files<'a>,
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
        Self {
            files: Files::new(settings),
            digest,
            tree,
            seen: HashSet::new(),
            opaque: false,
            elsewhere: false,
            deadline,
        }
    }

    /// What is named in the tree.
    fn inputs(&mut self, inputs: &Inputs) {
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

    /// With lengths, so that no two lists look alike.
    fn add(&mut self, label: &str, value: impl AsRef<[u8]>) {
        for bytes in [label.as_bytes(), value.as_ref()] {
            self.digest.update((bytes.len() as u64).to_be_bytes());
            self.digest.update(bytes);
        }
    }

    /// A requirements file, but for credentials, and all that it leads to.
    fn file(&mut self, path: &Path) {
        if !self.seen.insert(path.to_owned()) {
            return;
        }
        let file = self.files.get(path);
        // Where an engine finds something all the same, it is not known what.
        self.opaque |= !file.is_read || !file.is_decoded;
        let text = &file.text;
        if !self.elsewhere || *text != file.written || !self.inside(path) {
            self.add("file", redact::clean(text));
        }
        match file.form {
            Form::Requirements => {}
            Form::Pyproject => {
                // A path in it is one of the tree, or a build decides what is asked for.
                self.opaque |= ["tool.uv", "file:", "dynamic"].iter().any(|word| text.contains(word));
            }
            Form::Pylock => {
                self.opaque |= ["path", "directory"].iter().any(|word| text.contains(word));
            }
            Form::UvLock => {
                self.opaque |= !lock::is_all_remote(text);
                self.file(&path.with_file_name(pyproject::NAME));
            }
        }
        for line in &file.lines {
            match &line.meaning {
                Meaning::Index(_) | Meaning::Option { .. } => {}
                Meaning::Include { place, .. } => {
                    if let Some(path) = place.path() {
                        self.file(&file.beside(path));
                    }
                }
                Meaning::Requirement(found) | Meaning::Editable(found) => self.requirement(found, Some(path)),
                Meaning::FindLinks(place) => {
                    let Some(links) = place.path() else { continue };
                    let places = self.candidates(links, Some(path));
                    // Relative to the tree, which is not there yet.
                    self.opaque |= !places.iter().any(|place| place.exists());
                    for place in places {
                        self.links(&place);
                    }
                }
                Meaning::Unknown => self.opaque = true,
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
    fn requirement(&mut self, requirement: &Requirement, named_in: Option<&Path>) {
        if let Some(path) = requirement.path() {
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
        places.extend(named_in.map(|file| file.with_file_name("").join(path)));
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

#[cfg(test)]
mod tests {
    use super::*;

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
