//! The key of an environment: one hash of every input that determines its contents.
//!
//! The key covers the contents of requirements files, local projects, wheelhouses and the engines' configuration
//! files. It contains a path only if the environment contains that path. An unknown line ties the key to the source's
//! revision: an unnecessary build is better than a stale environment. While the key stays the same, podstrap does not
//! look for newer versions of unpinned packages, except with `--refresh`. The key contains no secret: podstrap removes
//! the credentials from URLs first.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Toolchain;
use super::contents::{Content, Contents, Pins, local, text_of};
use super::identity::{Identities, Identity};
use super::inputs::Inputs;
use super::requirements::Requirement;
use super::settings::Settings;
use crate::error::{Error, Kind, Result};
use crate::files::{self, WRITTEN};
use crate::plan::{self, AppTarget, Links};
use crate::redact;
use crate::retry::Deadline;
use crate::runtime::hex;

/// Increase it if the same inputs give another environment, or if the fields of a key change.
const VERSION: u32 = 4;

/// The inputs of an environment that are known before the tree is complete.
#[derive(Debug, Clone)]
pub struct Recipe {
    decisive: Decisive,
    settings: Settings,
    identities: Identities,
    /// As in [`Keyed`].
    unknown: Option<String>,
    pins: Pins,
}

/// The key of an environment, and how well it identifies the contents.
#[derive(Debug)]
pub struct Keyed {
    pub key: String,
    /// The inputs of the key, without secrets.
    pub inputs: Value,
    /// The key contains the source's revision.
    pub has_revision: bool,
    /// An input that the key does not identify: the environment must not be shared.
    pub unknown: Option<String>,
    pub(super) pins: Pins,
}

/// All inputs that determine an environment, except files in the tree.
#[derive(Debug, Clone, Serialize)]
struct Decisive {
    version: u32,
    /// Shebangs and metadata contain it.
    final_path: String,
    /// The path of the tree in the app's container if known, otherwise its public path.
    tree: String,
    /// The interpreter's path in the app's image, if given.
    python_final: Option<String>,
    target: AppTarget,
    /// With --strict, a build may fail that succeeds without it.
    strict: bool,
    toolchain: Option<Tools>,
    /// The variables that may determine the installed files.
    settings: BTreeMap<String, String>,
    /// The files and --find-links locations that variables name.
    named: BTreeMap<String, Vec<Named>>,
    configuration: Vec<Content>,
    packages: Vec<String>,
    /// Packages that are local paths outside the tree.
    local: Vec<Content>,
    extras: Vec<String>,
    groups: Vec<String>,
    find_links: Vec<Named>,
    requirements: Vec<Named>,
    constraints: Vec<Named>,
    /// An input outside the tree is unknown: the key includes the revision.
    opaque: bool,
}

/// An input: by its path in the tree, by its URL, or by its contents elsewhere.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
enum Named {
    InTree(String),
    Url(String),
    Contents(Vec<Content>),
    /// A relative path outside the tree. The engine decides what it is relative to.
    Relative(String),
}

#[derive(Debug, Clone, Serialize)]
struct Tools {
    /// `pyvenv.cfg` and `bin/python` contain it.
    interpreter: String,
    python: Identity,
    libpython: Option<Identity>,
    loader: Option<Identity>,
    uv: Option<Identity>,
    uv_required: bool,
    pips: Vec<String>,
}

/// The input of the environment's key.
#[derive(Serialize)]
struct Key<'a> {
    decisive: &'a Decisive,
    tree: Vec<Content>,
    revision: Option<&'a str>,
}

/// The files outside the tree that requirements in the tree name.
#[derive(Serialize)]
struct Elsewhere {
    version: u32,
    contents: Vec<Content>,
}

impl Recipe {
    /// Reads all inputs outside the tree. `public` is the public path of the tree. Call it once, before the
    /// installation: a `ConfigMap` may change during it.
    ///
    /// # Errors
    /// A requirements file outside the tree is missing or unreadable.
    pub fn new(
        environment: &plan::Environment,
        public: &Path,
        settings: &Settings,
        toolchain: Option<&Toolchain>,
        identities: &Identities,
        deadline: Deadline,
    ) -> Result<Self> {
        let mut contents = Contents::new(settings, identities, None, deadline);
        for package in &environment.packages {
            if let Some(found) = Requirement::read(package).filter(|found| !found.is_relative()) {
                contents.requirement(&found, None);
            }
        }
        let local = contents.take()?;
        let find_links = environment.supply.links.iter().map(|links| {
            Ok(match links {
                Links::InTree(path) => Named::InTree(text_of(path.as_path())),
                Links::Url(url) => Named::Url(redact::clean(url)),
                Links::At(place) => {
                    contents.links(place);
                    Named::Contents(contents.take()?)
                }
            })
        });
        let find_links = find_links.collect::<Result<_>>()?;
        let mut identify = |named_files: &[std::path::PathBuf]| -> Result<Vec<Named>> {
            let mut named = Vec::new();
            for file in named_files {
                named.push(if let Some(url) = plan::remote(file) {
                    contents.remote(url);
                    Named::Url(redact::clean(url))
                } else if file.is_absolute() {
                    files::open(file).map_err(|error| unreadable(file, &error))?;
                    contents.file(file);
                    Named::Contents(contents.take()?)
                } else {
                    Named::InTree(text_of(file))
                });
            }
            Ok(named)
        };
        let (requirements, constraints) = (identify(&environment.requirements)?, identify(&environment.constraints)?);
        let named = of_settings(settings, &mut contents)?;
        for file in settings.configuration() {
            let text = match files::read_if_there(&file, WRITTEN) {
                Ok(text) => text.unwrap_or_default(),
                // uv does not read it either.
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Vec::new(),
                Err(error) => {
                    let what = format!("cannot read uv's configuration file {}", file.display());
                    return Err(files::unreadable(Kind::Environment, what, &error));
                }
            };
            contents.configuration(&String::from_utf8_lossy(&text));
        }
        let decisive = Decisive {
            version: VERSION,
            final_path: text_of(&environment.final_path),
            tree: text_of(&environment.tree_final().unwrap_or_else(|| public.to_owned())),
            python_final: environment.python_final.as_deref().map(text_of),
            target: environment.target.clone(),
            strict: environment.strict,
            toolchain: toolchain.map(Tools::new),
            settings: settings.decisive().into_iter().collect(),
            named,
            configuration: contents.take()?,
            packages: environment.packages.iter().map(|package| redact::clean(package)).collect(),
            local,
            extras: environment.extras.clone(),
            groups: environment.groups.clone(),
            find_links,
            requirements,
            constraints,
            opaque: contents.is_opaque,
        };
        let (unknown, pins) = (contents.unknown.take(), std::mem::take(&mut contents.pins));
        Ok(Self { decisive, settings: settings.clone(), identities: identities.clone(), unknown, pins })
    }

    /// Hash of the inputs outside the tree. With the source's revision, it determines a release.
    pub fn digest(&self) -> String {
        hash(&self.decisive)
    }

    /// The environment's key. `inputs` are the resolved inputs; `tree` has the source's `revision`. Without a tree, no
    /// input is in it.
    ///
    /// # Errors
    /// A file that the requirements name is unreadable.
    pub fn key(&self, inputs: &Inputs, tree: Option<&Path>, revision: &str, deadline: Deadline) -> Result<Keyed> {
        let mut contents = Contents::new(&self.settings, &self.identities, tree, deadline);
        contents.inputs(inputs);
        let has_revision = self.decisive.opaque || contents.is_opaque;
        let mut pins = self.pins.clone();
        pins.extend(&contents.pins);
        let unknown = self.unknown.clone().or_else(|| contents.unknown.take());
        let key = Key { decisive: &self.decisive, tree: contents.take()?, revision: has_revision.then_some(revision) };
        Ok(Keyed { key: hash(&key), inputs: without_queries(serde_json::json!(key)), has_revision, unknown, pins })
    }

    /// Hash of the files outside the tree that requirements in the tree name, and of the variables in those
    /// requirements. Neither the digest nor the source's revision covers these.
    ///
    /// # Errors
    /// As for [`key`](Self::key).
    pub fn elsewhere(&self, inputs: &Inputs, tree: Option<&Path>, deadline: Deadline) -> Result<String> {
        let mut contents = Contents::new(&self.settings, &self.identities, tree, deadline).elsewhere();
        contents.inputs(inputs);
        Ok(hash(&Elsewhere { version: VERSION, contents: contents.take()? }))
    }
}

/// Cuts the queries and fragments of all URLs: they may have secrets. The key covers them.
fn without_queries(value: Value) -> Value {
    match value {
        Value::String(text) => match text.split_once("://").and_then(|_| text.find(['?', '#'])) {
            Some(end) => format!("{}…", &text[..end]).into(),
            None => Value::String(text),
        },
        Value::Array(all) => all.into_iter().map(without_queries).collect(),
        Value::Object(all) => all.into_iter().map(|(name, value)| (name, without_queries(value))).collect(),
        other => other,
    }
}

impl Tools {
    fn new(toolchain: &Toolchain) -> Self {
        Self {
            interpreter: text_of(&toolchain.python.path),
            python: toolchain.python.identity.clone(),
            libpython: toolchain.libpython.as_ref().map(|library| library.identity.clone()),
            loader: toolchain.loader.as_ref().map(|loader| loader.identity.clone()),
            uv: toolchain.uv.as_ref().map(|uv| uv.identity.clone()),
            uv_required: toolchain.uv_required,
            pips: toolchain.pips(),
        }
    }
}

/// The files and --find-links locations that variables name.
fn of_settings(settings: &Settings, contents: &mut Contents<'_>) -> Result<BTreeMap<String, Vec<Named>>> {
    let mut named: BTreeMap<String, Vec<Named>> = BTreeMap::new();
    let files = settings.files_by_name().into_iter().map(|(name, place)| (name, place, true));
    let links = settings.links_by_name().into_iter().map(|(name, place)| (name, place, false));
    for (name, place, is_file) in files.chain(links) {
        let found = match local(place) {
            None => {
                if is_file {
                    contents.remote(place);
                }
                Named::Url(redact::clean(place))
            }
            Some(path) if !path.is_absolute() => {
                contents.opaque(false, format!("{name} names a relative path"));
                Named::Relative(text_of(path))
            }
            Some(path) => {
                if is_file {
                    contents.file(path);
                } else {
                    contents.links(path);
                }
                Named::Contents(contents.take()?)
            }
        };
        named.entry(name.to_owned()).or_default().push(found);
    }
    Ok(named)
}

/// Hash of a value's JSON, which names each field.
fn hash(value: &impl Serialize) -> String {
    hex(&Sha256::digest(serde_json::to_vec(value).expect("strings, lists and maps by strings are JSON")))
}

/// The error of an unreadable requirements file outside the tree.
pub fn unreadable(file: &Path, error: &std::io::Error) -> Error {
    files::unreadable(Kind::Environment, format!("cannot read the requirements file {}", file.display()), error)
        .hint("check that the volume or ConfigMap with this absolute path is mounted in this container")
}

/// The error of an unreadable --find-links location outside the tree.
pub fn no_links(place: &Path, error: &std::io::Error) -> Error {
    files::unreadable(Kind::Environment, format!("cannot read the --find-links location {}", place.display()), error)
        .hint("check that the volume with this absolute path is mounted in this container")
}

#[cfg(test)]
mod tests {
    use super::super::toolchain::Program;
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;
    use std::fs::{self, File};
    use std::os::unix::fs::{chown, symlink};
    use std::path::PathBuf;
    use std::time::{Duration, SystemTime};

    fn environment(flags: &[String]) -> plan::Environment {
        let line = ["podstrap", "init", "--repo", "https://host/app.git", "--root", "/vol"].map(str::to_owned);
        let Command::Init(args) = Cli::try_parse_from(line.iter().chain(flags)).unwrap().command else { panic!() };
        plan::Init::new(args).unwrap().environment
    }

    fn identity(text: &str) -> Identity {
        serde_json::from_value(text.into()).unwrap()
    }

    fn program(path: &str) -> Program {
        Program { path: path.into(), identity: identity("sha256:00") }
    }

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(10))
    }

    type Change = fn(&mut Ingredients);

    /// All inputs of an environment, in a temporary directory.
    struct Ingredients {
        dir: tempfile::TempDir,
        tree: PathBuf,
        flags: Vec<String>,
        vars: Vec<(&'static str, String)>,
        toolchain: Toolchain,
    }

    impl Ingredients {
        fn new(staging: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let at = |name: &str| dir.path().join(name).display().to_string();
            let flags = ["-r", "requirements.txt", "-c", &at("config/pins.txt"), "--find-links", &at("wheels")];
            let flags = flags.iter().chain(&["--venv-final-path", "/app/venv", "--venv", "venv"]);
            let found = Self {
                tree: dir.path().join(staging),
                flags: flags.map(|flag| (*flag).to_owned()).collect(),
                vars: vec![
                    ("PIP_CONFIG_FILE", "/dev/null".into()),
                    ("XDG_CONFIG_HOME", at("xdg")),
                    ("XDG_CONFIG_DIRS", at("none")),
                    ("PIP_CONSTRAINT", at("config/more.txt")),
                    ("PIP_INDEX_URL", "https://me:one@host/simple".into()),
                ],
                toolchain: Toolchain {
                    python: program("/usr/bin/python3.13"),
                    loader: None,
                    libpython: Some(program("/usr/lib/libpython3.13.so.1.0")),
                    uv: Some(program("/usr/bin/uv")),
                    uv_required: false,
                },
                dir,
            };
            let own = staging.to_owned();
            let mut files = vec![
                (format!("{own}/requirements.txt"), "-r r/more.txt\n./lib\n--index-url https://me:one@host/x"),
                (format!("{own}/r/more.txt"), "a==1"),
                (format!("{own}/lib/setup.py"), "x"),
                (format!("{own}/index.py"), "1"),
                ("config/pins.txt".into(), "b==1"),
                ("config/more.txt".into(), "c==1"),
                ("xdg/uv/uv.toml".into(), "prerelease = 'allow'"),
                ("wheels/b.whl".into(), "b"),
                ("wheels/a.whl".into(), "a"),
            ];
            // On some file systems, the order of a directory depends on the order of creation.
            if staging.len().is_multiple_of(2) {
                files.reverse();
            }
            for (name, text) in files {
                found.write(&name, text);
            }
            found
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let _ = fs::remove_file(&path);
            match text.strip_prefix("-> ") {
                Some(target) => symlink(target, path).unwrap(),
                None => fs::write(path, text).unwrap(),
            }
        }
        fn in_tree(&self, name: &str, text: &str) {
            self.write(&format!("{}/{name}", self.tree.file_name().unwrap().display()), text);
        }

        fn set_flag(&mut self, from: &str, to: &str) {
            self.flags.iter_mut().filter(|flag| *flag == from).for_each(|flag| to.clone_into(flag));
        }

        fn key_at(&self, revision: &str) -> String {
            let wanted = environment(&self.flags);
            let vars = self.vars.iter().map(|(name, value)| ((*name).into(), value.into()));
            let settings = Settings::from_env(vars).with(&wanted.supply, &[]);
            let inputs = Inputs { requirements: vec![self.tree.join("requirements.txt")], ..Inputs::default() };
            let (public, identities) = (Path::new("/vol"), Identities::default());
            let recipe = Recipe::new(&wanted, public, &settings, Some(&self.toolchain), &identities, soon()).unwrap();
            assert_eq!(recipe.digest().len(), 64);
            recipe.key(&inputs, Some(&self.tree), revision, soon()).unwrap().key
        }
        fn key(&self) -> String {
            self.key_at("one")
        }
    }

    #[test]
    fn a_manifest_shows_no_query_of_a_url() {
        let inputs =
            serde_json::json!({"a": ["https://h/p?token=s3cret", "x @ https://h/x.whl#s3cret"], "b": "x#y", "c": 1});
        let shown = serde_json::json!({"a": ["https://h/p…", "x @ https://h/x.whl…"], "b": "x#y", "c": 1});
        assert_eq!(without_queries(inputs), shown);
    }

    #[test]
    fn each_input_changes_the_key() {
        let changes: [(&str, Change); 26] = [
            ("a requirements file", |all| all.in_tree("requirements.txt", "./lib")),
            ("an included one", |all| all.in_tree("r/more.txt", "a==2")),
            ("a local project", |all| all.in_tree("lib/setup.py", "y")),
            ("a new file of it", |all| all.in_tree("lib/new.py", "")),
            ("constraints of the Pod", |all| all.write("config/pins.txt", "b==2")),
            ("those of a variable", |all| all.write("config/more.txt", "c==2")),
            ("a configuration file", |all| all.write("xdg/uv/uv.toml", "prerelease = 'never'")),
            ("a wheel", |all| all.write("wheels/a.whl", "z")),
            ("a wheel's name", |all| {
                fs::rename(all.dir.path().join("wheels/a.whl"), all.dir.path().join("wheels/c.whl")).unwrap();
            }),
            ("one wheel less", |all| fs::remove_file(all.dir.path().join("wheels/a.whl")).unwrap()),
            ("the interpreter", |all| all.toolchain.python.identity = identity("sha256:01")),
            ("its path", |all| all.toolchain.python.path = "/opt/python3.13".into()),
            ("its library", |all| all.toolchain.libpython.as_mut().unwrap().identity = identity("sha256:01")),
            ("its C library", |all| all.toolchain.loader = Some(program("/lib/ld.so"))),
            ("a compiler's flag", |all| all.vars.push(("CFLAGS", "-O0".into()))),
            ("uv", |all| all.toolchain.uv.as_mut().unwrap().identity = identity("sha256:01")),
            ("whether uv is asked for", |all| all.toolchain.uv_required = true),
            ("the index", |all| all.vars.last_mut().unwrap().1 = "https://other/simple".into()),
            ("a variable", |all| all.vars.push(("PIP_PRE", "1".into()))),
            ("the final path", |all| all.set_flag("/app/venv", "/srv/venv")),
            ("the interpreter's", |all| all.flags.extend(["--python-final-path", "/p"].map(str::to_owned))),
            ("the target", |all| all.flags.extend(["--target-python", "3.12"].map(str::to_owned))),
            ("its platform", |all| all.flags.extend(["--target-platform", "musllinux_1_2_x86_64"].map(str::to_owned))),
            ("a package", |all| all.flags.push("six".into())),
            ("a flag", |all| all.flags.push("--require-hashes".into())),
            ("strictness", |all| all.flags.push("--strict".into())),
        ];
        let mut seen = vec![Ingredients::new("staging").key()];
        for (what, change) in changes {
            let mut all = Ingredients::new("staging");
            change(&mut all);
            let key = all.key();
            assert!(!seen.contains(&key), "{what}");
            seen.push(key);
        }
    }

    #[test]
    fn nothing_else_does() {
        let first = Ingredients::new("staging").key();
        let same: [(&str, Change); 10] = [
            ("nothing", |_| {}),
            ("a file that nothing leads to", |all| all.in_tree("index.py", "2")),
            ("times", |all| {
                for name in ["wheels/a.whl", "config/pins.txt", "staging/lib/setup.py", "staging/requirements.txt"] {
                    File::open(all.dir.path().join(name)).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
                }
            }),
            ("owners", |all| {
                // Only root can do this.
                for name in ["wheels/a.whl", "config/pins.txt", "staging/lib/setup.py", "staging/requirements.txt"] {
                    let _ = chown(all.dir.path().join(name), Some(12345), Some(12345));
                }
            }),
            ("where uv is", |all| all.toolchain.uv.as_mut().unwrap().path = "/elsewhere/uv".into()),
            ("where the library is", |all| all.toolchain.libpython.as_mut().unwrap().path = "/l".into()),
            ("a password", |all| all.vars.last_mut().unwrap().1 = "https://me:two@host/simple".into()),
            ("a token", |all| all.vars.push(("UV_INDEX_CORP_PASSWORD", "x".into()))),
            ("a cache", |all| all.vars.push(("UV_CACHE_DIR", "/x".into()))),
            ("a certificate's place", |all| all.vars.push(("PIP_CERT", "/x".into()))),
        ];
        for (what, change) in same {
            let mut all = Ingredients::new("staging");
            change(&mut all);
            assert_eq!(all.key(), first, "{what}");
            assert_eq!(all.key_at("two"), first, "the commit");
        }
        // Another staging path, with files written in another order.
        assert_eq!(Ingredients::new("another-staging").key(), first);
        assert_eq!(Ingredients::new("x").key(), first);
    }

    #[test]
    fn what_is_not_understood_goes_by_the_commit() {
        for (name, text) in [
            ("requirements.txt", "--config-settings a=b"),
            ("requirements.txt", "./gone"),
            ("requirements.txt", "-r r/gone.txt"),
            ("lib/pyproject.toml", "[tool.uv]"),
            ("lib/pyproject.toml", "dependencies = ['b @ file:///tree/b']"),
            ("lib/setup.py", "open('../VERSION')"),
            ("lib/index.py", "-> ../index.py"),
        ] {
            let all = Ingredients::new("staging");
            all.in_tree(name, text);
            assert_ne!(all.key_at("one"), all.key_at("two"), "{name}: {text}");
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
            let all = Ingredients::new("staging");
            let with = |text: &str, revision: &str| {
                all.in_tree("requirements.txt", line);
                all.in_tree(file, text);
                all.key_at(revision)
            };
            assert_ne!(with("1", "one"), with("2", "one"), "{line}");
            assert_eq!(with("1", "one"), with("1", "two"), "{line}");
        }
    }

    #[test]
    fn credentials_do_not_count() {
        let with = |url: &str| {
            let all = Ingredients::new("staging");
            all.in_tree("requirements.txt", &format!("--index-url {url}\nflask"));
            all.key()
        };
        assert_eq!(with("https://me:one@host/simple"), with("https://me:two@host/simple"));
    }
}
