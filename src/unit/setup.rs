//! The wanted state of Unit: a configuration file, or a directory in the layout of the image's entrypoint.
//!
//! In a directory (`pkg/docker/docker-entrypoint.sh` of Unit), `NAME.pem` is the certificate NAME,
//! `NAME.js` the JavaScript module NAME, and `*.json` the configuration. The entrypoint PUTs every
//! `*.json` as the whole configuration, so the last one stays. podstrap uses only the last one by name
//! and warns about the others.
//!
//! A `ConfigMap` or Secret volume consists of links: `NAME -> ..data/NAME`, `..data -> ..2026_…/`. An
//! update replaces `..data`. podstrap resolves it once and reads all files from there.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::config::{Config, read_config};
use crate::error::{Error, Kind, Result};
use crate::files::{self, WRITTEN};

/// The link that the kubelet replaces (`pkg/volume/util/atomic_writer.go` of Kubernetes).
const DATA: &str = "..data";
/// Most reads of a directory: an update of the volume during a read causes another.
const READS: u32 = 5;

/// All parts to apply together.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The file or directory of the user.
    pub from: PathBuf,
    /// Certificate chains with their keys, by name.
    pub certificates: Vec<Part>,
    /// JavaScript modules, by name.
    pub modules: Vec<Part>,
    /// None for a directory without `*.json`.
    pub config: Option<Config>,
    /// The path of the configuration in Unit: `/config`, or a part of it.
    pub at: String,
}

/// A file that becomes a named object of Unit. It may contain a private key, which `Debug` hides.
#[derive(Clone, PartialEq, Eq)]
pub struct Part {
    /// The file name without its extension.
    pub name: String,
    pub path: PathBuf,
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Part({} from {})", self.name, self.path.display())
    }
}

impl From<Config> for Setup {
    fn from(config: Config) -> Self {
        Self {
            from: config.path.clone(),
            certificates: Vec::new(),
            modules: Vec::new(),
            config: Some(config),
            at: "/config".into(),
        }
    }
}

impl Setup {
    /// Reads a file or a directory, for the path `at` in Unit's configuration.
    ///
    /// # Errors
    /// Usage: the path is missing, unreadable or empty. The directory has no file for Unit. A name is
    /// invalid for a certificate or a JavaScript module. The path is a directory, but `at` is only a part of
    /// the configuration.
    pub fn read(from: &Path, at: &str) -> Result<Self> {
        if !files::is_dir(from)? {
            return Ok(Self { at: at.to_owned(), ..read_config(from)?.into() });
        }
        if at != "/config" {
            return Err(Error::usage(format!("{} is a directory, but --path {at} needs a file", from.display()))
                .hint("give the file that contains this part"));
        }
        for _ in 1..READS {
            let root = resolved(from)?;
            let read = Self::read_dir(from, &root);
            // An update during the read may have removed files, so ignore its errors too.
            if resolved(from)? == root {
                return read;
            }
        }
        Self::read_dir(from, &resolved(from)?)
    }

    fn read_dir(shown: &Path, root: &Path) -> Result<Self> {
        let mut setup = Self {
            from: shown.to_owned(),
            certificates: Vec::new(),
            modules: Vec::new(),
            config: None,
            at: "/config".into(),
        };
        let mut before = None;
        for file in names(root)? {
            let (path, real) = (shown.join(&file), root.join(&file));
            match SetupFile::of(&file) {
                Some((SetupFile::Certificate, name)) => setup.certificates.push(Part::read(name, path, &real)?),
                Some((SetupFile::Module, name)) => setup.modules.push(Part::read(name, path, &real)?),
                Some((SetupFile::Config, _)) => {
                    if let Some(before) = before.replace(path) {
                        tracing::warn!("{} skipped: a later configuration replaces it", before.display());
                    }
                }
                None => tracing::warn!("{} ignored: not *.pem, *.js or *.json", path.display()),
            }
        }
        if let Some(path) = before {
            let read = read_config(&root.join(path.file_name().unwrap_or_default()))?;
            setup.config = Some(Config::new(path, read.bytes));
        }
        if setup.certificates.is_empty() && setup.modules.is_empty() && setup.config.is_none() {
            return Err(Error::usage(format!("{} has no *.json, *.pem or *.js", shown.display()))
                .hint("mount the ConfigMap or volume there; a missing subPath becomes an empty directory"));
        }
        Ok(setup)
    }

    /// Whether both setups send the same bytes.
    pub(super) fn same(&self, other: &Self) -> bool {
        let bytes = |setup: &Self| setup.config.as_ref().map(|config| config.bytes.clone());
        self.certificates == other.certificates && self.modules == other.modules && bytes(self) == bytes(other)
    }

    /// All files of the setup.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let parts = self.certificates.iter().chain(&self.modules).map(|part| part.path.as_path());
        parts.chain(self.config.as_ref().map(|config| config.path.as_path()))
    }

    /// `3 certificates and /config/unit.json`.
    pub fn shown(&self) -> String {
        let part = |count: usize, what: &str| match count {
            0 => None,
            1 => Some(format!("1 {what}")),
            more => Some(format!("{more} {what}s")),
        };
        let config = self.config.as_ref().map(|config| config.path.display().to_string());
        let parts = [part(self.certificates.len(), "certificate"), part(self.modules.len(), "module"), config];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// The role of a file in a directory.
enum SetupFile {
    Certificate,
    Module,
    Config,
}

impl SetupFile {
    fn of(file: &str) -> Option<(Self, &str)> {
        let (name, ending) = file.rsplit_once('.')?;
        match ending {
            "pem" => Some((Self::Certificate, name)),
            "js" => Some((Self::Module, name)),
            "json" => Some((Self::Config, name)),
            _ => None,
        }
    }
}

impl Part {
    fn read(name: &str, path: PathBuf, real: &Path) -> Result<Self> {
        // The name becomes a URL segment that Unit does not decode (`nxt_controller_process_cert`).
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if name.is_empty() || !name.bytes().all(fits) {
            let path = path.display();
            return Err(Error::usage(format!("{path}: invalid name for a certificate or JavaScript module: {name:?}"))
                .hint("use only letters, digits, -, _, . and ~ in the file name"));
        }
        let bytes = files::read(real, WRITTEN).map_err(|error| unreadable(&path, &error))?;
        Ok(Self { name: name.to_owned(), path, bytes })
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    files::unreadable(Kind::Usage, format!("cannot read {}", path.display()), error)
}

/// The directory that currently holds the files of a volume.
fn resolved(dir: &Path) -> Result<PathBuf> {
    Ok(files::real(&dir.join(DATA))?.unwrap_or_else(|| dir.to_owned()))
}

/// The file names, sorted, without subdirectories and the kubelet's own entries (`..data`, `..2026_…`).
fn names(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (name, _) in files::list(root).map_err(|error| unreadable(root, &error))? {
        let path = root.join(&name);
        let name = name.to_string_lossy().into_owned();
        if !name.starts_with("..") && !files::is_dir(&path)? {
            names.push(name);
        }
    }
    Ok(names)
}

/// Path, inode, mtime (seconds, nanoseconds) and length of each file of a setup.
pub(super) type Stamp = Vec<(PathBuf, u64, i64, i64, u64)>;

/// A cheap value that changes if a file below `from` or its volume changes.
pub(super) fn stamp(from: &Path) -> Stamp {
    let one = |path: PathBuf| {
        let (meta, real) = (files::metadata(&path).ok()??, files::real(&path).ok()??);
        Some((real, meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
    };
    // A file that cannot be read now has another stamp when it can.
    let Ok(root) = resolved(from) else { return Vec::new() };
    match files::is_dir(from) {
        Ok(true) => names(&root).unwrap_or_default().into_iter().filter_map(|name| one(root.join(name))).collect(),
        _ => one(from.to_owned()).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    #[test]
    fn a_directory_is_read_as_the_entrypoint_reads_it() {
        let dir = dir(&[
            ("b.json", "{\"b\":1}"),
            ("a.json", "{\"a\":1}"),
            ("site.pem", "PEM"),
            ("m.js", "JS"),
            ("run.sh", "x"),
            ("..2026/old.json", "{}"),
            ("sub/c.json", "{}"),
        ]);
        let setup = Setup::read(dir.path(), "/config").unwrap();
        assert_eq!(setup.config.as_ref().unwrap().bytes, b"{\"b\":1}");
        assert_eq!(setup.certificates[0].name, "site");
        assert_eq!(setup.modules[0].bytes, b"JS");
        assert_eq!(setup.shown(), format!("1 certificate, 1 module, {}", dir.path().join("b.json").display()));
        assert_eq!(setup.files().count(), 3);
        assert!(!format!("{setup:?}").contains("80, 69, 77"), "{setup:?}");
    }

    #[test]
    fn a_config_map_is_read_through_one_of_its_states() {
        let dir = dir(&[("..1/unit.json", "{\"n\":1}"), ("..2/unit.json", "{\"n\":2}")]);
        let flip = |to: &str| {
            symlink(to, dir.path().join("..tmp")).unwrap();
            fs::rename(dir.path().join("..tmp"), dir.path().join("..data")).unwrap();
        };
        flip("..1");
        symlink("..data/unit.json", dir.path().join("unit.json")).unwrap();
        let read = |path: &Path| Setup::read(path, "/config").unwrap().config.unwrap();
        let (file, before) = (dir.path().join("unit.json"), stamp(dir.path()));
        assert_eq!(read(dir.path()).bytes, b"{\"n\":1}");
        assert_eq!(read(dir.path()).path, file);
        assert_eq!(stamp(dir.path()), before);
        flip("..2");
        assert_ne!(stamp(dir.path()), before);
        assert_eq!(read(&file).bytes, b"{\"n\":2}");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let text = |dir: &tempfile::TempDir, at| Setup::read(dir.path(), at).unwrap_err().to_string();
        assert!(text(&dir(&[("x.sh", "")]), "/config").contains("has no *.json"));
        assert!(
            text(&dir(&[("a b.pem", "")]), "/config")
                .contains("invalid name for a certificate or JavaScript module: \"a b\"")
        );
        assert!(text(&dir(&[("a.json", "{}")]), "/config/routes").contains("--path /config/routes needs a file"));
        assert!(text(&dir(&[("a.json", " ")]), "/config").contains("a.json is empty"));
    }
}
