//! The build steps of `--run`: the user's commands in the complete tree, before it is published.
//!
//! A command sees the container's variables, apart from podstrap's own and those that hold logins of package indexes
//! and Git. What it writes becomes a part of the release. The environment must stay as it was built: other releases
//! share it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aho_corasick::AhoCorasick;
use sha2::{Digest, Sha256};

use crate::command::{Command, Failure, is_home};
use crate::confine::Confinement;
use crate::error::{Error, IoContext, Result};
use crate::files::{self, GENERATED};
use crate::plan::RESERVED;
use crate::redact::{self, Userinfo};
use crate::retry::Deadline;
use crate::runtime::{blocking, hex};
use crate::telemetry::Phases;
use crate::venv::{self, EnvironmentRecord};
use crate::walk::{Entry, WalkError, walk};

/// The shell, and how it runs a command: files that it writes are readable for all users, as the rest of the tree is.
const SHELL: &str = "/bin/sh";
const SCRIPT: &str = "umask 022; eval \"$1\" >&2";
/// The names and the beginnings of names of variables that a command does not see: podstrap's own, and those that may
/// hold logins.
const HIDDEN: [&str; 8] = ["PODSTRAP_", "PIP_", "UV_", "GIT_", "SSH_", "NETRC", "VIRTUAL_ENV", "PYTHONHOME"];
/// Variables that differ in each container, or that the shell sets itself.
const VOLATILE: [&str; 5] = ["HOSTNAME", "PWD", "OLDPWD", "SHLVL", "_"];
/// PATH, if the container has none: an empty entry would be the tree.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How much the clock of a file system may be behind.
const COARSE: Duration = Duration::from_secs(1);
/// Last lines of a failed command to show.
const LINES: usize = 20;
/// Characters of a line in an error.
const COLUMNS: usize = 300;

/// Where the commands run.
#[derive(Debug)]
pub struct Place {
    /// The complete tree, with the environment, at its build path.
    pub tree: PathBuf,
    /// The tree's path in the app's container.
    pub public: PathBuf,
    /// The directory for temporary files, which does not exist yet.
    pub scratch: PathBuf,
    pub environment: Option<EnvironmentRecord>,
    pub confinement: Option<Arc<Confinement>>,
    /// What nobody may find in the release, nor in an error.
    pub secrets: Vec<Userinfo>,
}

/// What a write to an entry changes: inode, mode, and ctime in seconds and nanoseconds.
type Stamps = BTreeMap<PathBuf, (u64, u32, i64, i64)>;

/// The variables that the commands see, of these.
pub fn variables(all: impl Iterator<Item = (OsString, OsString)>) -> BTreeMap<OsString, OsString> {
    let is_seen = |name: &OsStr| {
        let name = name.as_bytes();
        !HIDDEN.iter().any(|hidden| name.starts_with(hidden.as_bytes()))
            && !VOLATILE.iter().any(|volatile| name == volatile.as_bytes())
    };
    all.filter(|(name, _)| is_seen(name)).collect()
}

/// A hash of variables.
pub fn digest(variables: &BTreeMap<OsString, OsString>) -> String {
    let mut digest = Sha256::new();
    for text in variables.iter().flat_map(|(name, value)| [name, value]) {
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text.as_bytes());
    }
    hex(&digest.finalize())
}

/// Runs the commands, one after another, and then puts the tree's final path into the files that name its build path.
///
/// # Errors
/// Environment: a command fails, or changes the environment, or what it leaves cannot be published.
pub async fn run(commands: &[String], place: Place, phases: &Phases, deadline: Deadline) -> Result<()> {
    for dir in ["bin", "home"].map(|name| place.scratch.join(name)) {
        fs::create_dir_all(&dir).on_volume(|| format!("cannot create the directory {}", dir.display()))?;
    }
    // A command sees the path without links.
    let real = |path: &Path| path.canonicalize().on_volume(|| format!("cannot find {}", path.display()));
    let place = Place { tree: real(&place.tree)?, scratch: real(&place.scratch)?, ..place };
    let (bin, home) = (place.scratch.join("bin"), place.scratch.join("home"));
    let started = SystemTime::now();
    let beside = names_beside(&place.tree)?;
    let mut variables = variables(std::env::vars_os());
    let mut before = Stamps::new();
    if let Some(record) = &place.environment {
        if let Some(package) = record.editable() {
            return Err(Error::usage(format!("--run does not go with the editable project {}", package.name))
                .because("the commands would import its code from the release that serves")
                .hint("install it without -e"));
        }
        let venv = place.tree.join(&record.venv);
        before = stamps(&venv)?;
        if !files::exists(&venv.join("bin/python"))? {
            return Err(Error::usage("--run needs the app's Python in this container")
                .because(format!("the environment links to {}", record.python_path.display()))
                .hint("run podstrap in the app's own image, or run the command when you build the image"));
        }
        venv::scripts(&venv, &record.final_path, &bin)?;
        let path = variables.get(OsStr::new("PATH")).cloned().unwrap_or_else(|| USUAL_PATH.into());
        let dirs = [bin.clone(), venv.join("bin")].into_iter().chain(std::env::split_paths(&path).collect::<Vec<_>>());
        let path = std::env::join_paths(dirs)
            .map_err(|error| Error::usage("PATH is invalid").because(error).hint("remove the colon from --root"))?;
        variables.insert("PATH".into(), path);
        variables.insert("VIRTUAL_ENV".into(), venv.into());
    }
    if !variables.get(OsStr::new("HOME")).is_some_and(|home| is_home(Path::new(home))) {
        variables.insert("HOME".into(), home.into());
    }
    variables.insert("TMPDIR".into(), place.scratch.clone().into());
    // Bytecode would name the build path, and change the environment.
    variables.insert("PYTHONDONTWRITEBYTECODE".into(), "1".into());
    for command in commands {
        one(command, &variables, &place, phases, deadline).await?;
        check_place(&place, &beside)?;
    }
    blocking(move || settle(&place, &before, started, deadline)).await
}

/// The names next to the tree: the files of the release.
fn names_beside(tree: &Path) -> Result<BTreeSet<OsString>> {
    let dir = tree.parent().unwrap_or(tree);
    Ok(files::names(dir)?.into_iter().collect())
}

/// The tree, and what is next to it, must be there as before.
fn check_place(place: &Place, before: &BTreeSet<OsString>) -> Result<()> {
    let after = names_beside(&place.tree)?;
    if let Some(name) = before.symmetric_difference(&after).next() {
        let what = format!("a command of --run changed the directory above the tree: {}", name.display());
        return Err(Error::environment(what)
            .because("it belongs to podstrap")
            .hint("let the command work in the tree: it starts at its top"));
    }
    if !files::entry(&place.tree)?.is_some_and(|meta| meta.is_dir()) {
        return Err(Error::environment("a command of --run replaced the tree")
            .hint("let the command change the files in the tree, not the tree itself"));
    }
    if files::entry(&place.tree.join(RESERVED))?.is_some() {
        return Err(Error::environment(format!("a command of --run made {RESERVED} at the top of the tree"))
            .because("podstrap keeps its own files under this name")
            .hint("let the command use another name"));
    }
    Ok(())
}

fn stamps(venv: &Path) -> Result<Stamps> {
    let one = |entry: std::result::Result<Entry, WalkError>| {
        let entry = entry.map_err(WalkError::on_volume)?;
        let meta = entry.metadata().map_err(WalkError::on_volume)?;
        // The names in a directory are stamped themselves.
        let (seconds, nanoseconds) = if meta.is_dir() { (0, 0) } else { (meta.ctime(), meta.ctime_nsec()) };
        Ok((entry.name, (meta.ino(), meta.mode(), seconds, nanoseconds)))
    };
    walk(venv).map(one).collect()
}

async fn one(
    command: &str,
    variables: &BTreeMap<OsString, OsString>,
    place: &Place,
    phases: &Phases,
    deadline: Deadline,
) -> Result<()> {
    let shown = redact::clean(command);
    let phase = phases.start("run", &shown);
    // `Command` would drop some of the variables if the child inherited them.
    let child = variables.iter().fold(Command::new(SHELL).inherit([]), |child, (name, value)| child.env(name, value));
    let child = child.args(["-c", SCRIPT, "sh", command]).cwd(&place.tree).confine(place.confinement.clone());
    let failed = || Error::environment(format!("--run {shown:?} failed"));
    let excerpt_of = |text: &str| {
        let is_secret = venv::has_secret(text, &place.secrets).unwrap_or(true);
        if is_secret { "(its output contains a login)".to_owned() } else { last_lines(text) }
    };
    let output = child.run(deadline).await.map_err(|failure| {
        let (excerpt, hint) = match &failure {
            Failure::Deadline { stderr, .. } => (excerpt_of(stderr), deadline.slow()),
            Failure::Start { .. } => (String::new(), format!("use an image with {SHELL}")),
            Failure::Read { .. } => (String::new(), "run podstrap again".to_owned()),
        };
        let error = failed().because(failure).hint(hint);
        if excerpt.is_empty() { error } else { error.excerpt(excerpt) }
    })?;
    if output.status.success() {
        phase.done(&shown);
        return Ok(());
    }
    let hint = match output.status.code() {
        Some(126 | 127) => "the command needs a program that this image or environment does not have",
        Some(_) => "the command runs at the top of the tree, with the environment first on PATH: try it there",
        None => "raise the container's memory limit if it was killed for memory",
    };
    let error = failed().because(output.status.to_string()).hint(hint);
    let excerpt = excerpt_of(&output.stderr);
    Err(if excerpt.is_empty() { error } else { error.excerpt(excerpt) })
}

fn last_lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| line.chars().take(COLUMNS).collect()).collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Checks what the commands left, makes it readable for all users, and puts the final path of the tree into it.
fn settle(place: &Place, before: &Stamps, started: SystemTime, deadline: Deadline) -> Result<()> {
    let venv = place.environment.as_ref().map(|record| place.tree.join(&record.venv));
    if let Some(venv) = &venv {
        let is_there = files::entry(venv)?.is_some_and(|entry| entry.is_dir());
        let after = if is_there { stamps(venv)? } else { Stamps::new() };
        let gone = before.keys().find(|name| !after.contains_key(*name));
        let other = after.iter().find(|(name, stamp)| before.get(*name) != Some(stamp)).map(|(name, _)| name);
        if let Some(name) = gone.or(other) {
            let path = venv.strip_prefix(&place.tree).unwrap_or(venv).join(name);
            return Err(Error::environment(format!("a command of --run changed the environment: {}", path.display()))
                .because("other releases share it, and its record would be wrong")
                .hint("name packages in the requirements, and let the command leave the environment out"));
        }
    }
    let since = started.checked_sub(COARSE).unwrap_or(started);
    let paths = [&place.tree, &place.scratch].map(|path| path.as_os_str().as_bytes());
    let searcher =
        AhoCorasick::new(paths).map_err(|error| Error::internal("cannot search for paths").because(error))?;
    let mut entries = walk(&place.tree);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(WalkError::on_volume)?;
        if venv.as_ref() == Some(&entry.path) {
            entries.leave_out();
            continue;
        }
        let failed = || format!("cannot read {}", entry.path.display());
        if deadline.passed() {
            return Err(Error::environment("cannot check all that the commands of --run wrote")
                .because(format!("not done within {}", deadline.shown()))
                .hint(deadline.slow()));
        }
        if entry.is_symlink() {
            move_link(place, &entry)?;
        } else if entry.is_dir() {
            make_readable(&entry)?;
        } else if entry.is_file() {
            if entry.is_older(since) {
                continue;
            }
            make_readable(&entry)?;
            let file = files::open(&entry.path).on_volume(failed)?;
            if searcher.stream_find_iter(file).next().transpose().on_volume(failed)?.is_some() {
                move_file(place, &entry, &searcher)?;
            }
        } else {
            return Err(Error::environment(format!("--run left {}, which is no file", entry.name.display()))
                .because("a release has files, directories and symbolic links")
                .hint("let the command delete it at its end"));
        }
    }
    venv::find_secrets(&place.tree, &place.secrets, Some(since))
}

/// Sets the modes that the rest of the tree has.
fn make_readable(entry: &Entry) -> Result<()> {
    let mode = entry.metadata().map_err(WalkError::on_volume)?.mode() & 0o7777;
    let wanted = if entry.is_dir() || mode & 0o100 != 0 { 0o755 } else { 0o644 };
    if mode == wanted {
        return Ok(());
    }
    fs::set_permissions(&entry.path, fs::Permissions::from_mode(wanted))
        .on_volume(|| format!("cannot set the mode of {}", entry.path.display()))
}

/// Puts the final path into a file that names the build path.
fn move_file(place: &Place, entry: &Entry, build_paths: &AhoCorasick) -> Result<()> {
    let bytes = files::read(&entry.path, GENERATED).on_volume(|| format!("cannot read {}", entry.path.display()))?;
    if let Ok(text) = String::from_utf8(bytes)
        && let Some(new) = venv::with_other_path(&text, &place.tree, &place.public)?
        && !build_paths.is_match(&new)
    {
        return venv::replace(&entry.path, new.as_bytes());
    }
    Err(names_build_path(&entry.name))
}

fn move_link(place: &Place, entry: &Entry) -> Result<()> {
    let target = fs::read_link(&entry.path).on_volume(|| format!("cannot read {}", entry.path.display()))?;
    let Ok(inside) = target.strip_prefix(&place.tree) else {
        return if target.starts_with(&place.scratch) { Err(names_build_path(&entry.name)) } else { Ok(()) };
    };
    let target = place.public.join(inside);
    let write = || fs::remove_file(&entry.path).and_then(|()| symlink(&target, &entry.path));
    write().on_volume(|| format!("cannot write {}", entry.path.display()))
}

fn names_build_path(name: &Path) -> Error {
    Error::environment(format!("{} refers to its build path", name.display()))
        .because("a command of --run wrote it, and the path does not exist when the app runs")
        .hint("let the command write relative paths, or delete the file at its end if it is a cache")
}
