//! Reads the installed distributions, and checks that all their files exist.
//!
//! A wheel's RECORD ("Recording installed projects" of the packaging standards) lists its files with hash and size. A
//! killed engine, or one with a damaged cache, omits files without an error. If two wheels contain the same file, one
//! RECORD is wrong, which is harmless. A file must therefore exist, with the size in at least one row.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, IoContext, Kind, Result};
use crate::files::{self, GENERATED};
use crate::runtime::hex;
use crate::walk::{WalkError, walk};

/// The files of an environment: path in it and size in bytes. Links have no size.
pub(super) type EnvironmentFiles = BTreeMap<PathBuf, Option<u64>>;

/// A line of RECORD.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) path: String,
    pub(super) hash: String,
    pub(super) size: String,
}

/// Lists the files. Makes every file readable for all users and writable only for its owner: the umask of podstrap's
/// user determined the modes, but the app runs as another user.
pub(super) fn files(root: &Path) -> Result<EnvironmentFiles> {
    let mut found = EnvironmentFiles::new();
    for entry in walk(root) {
        let entry = entry.map_err(WalkError::on_volume)?;
        if entry.is_symlink() {
            // A loop of links leads nowhere.
            let target = files::metadata(&entry.path).unwrap_or_default();
            refuse_special(&entry.name, target.as_ref().filter(|meta| !meta.is_dir()))?;
            found.insert(entry.name, None);
            continue;
        }
        let meta = entry.metadata().map_err(WalkError::on_volume)?;
        refuse_special(&entry.name, Some(&meta).filter(|meta| !meta.is_dir()))?;
        open_up(&entry.path, &meta)?;
        if !meta.is_dir() {
            found.insert(entry.name, Some(meta.len()));
        }
    }
    Ok(found)
}

/// Fails for a pipe, a socket or a device: Python and podstrap would wait for it, or read it for ever.
fn refuse_special(name: &Path, meta: Option<&std::fs::Metadata>) -> Result<()> {
    let Some(what) = meta.and_then(files::not_regular) else { return Ok(()) };
    Err(Error::environment(format!("{} in the environment is not a file", name.display()))
        .because(what)
        .hint("remove the package that made it, or install another version"))
}

/// `chmod a+rX,go-w`.
fn open_up(path: &Path, meta: &std::fs::Metadata) -> Result<()> {
    let mode = meta.permissions().mode() & 0o7777;
    let execute = if meta.is_dir() || mode & 0o111 != 0 { 0o111 } else { 0 };
    let wanted = (mode | 0o444 | execute) & !0o022;
    if mode == wanted {
        return Ok(());
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(wanted))
        .on_volume(|| format!("cannot set the mode of {}", path.display()))
}

/// The `*.dist-info` directories in `site` (site-packages, as a path in the environment).
pub(super) fn dist_infos(files: &EnvironmentFiles, site: &Path) -> BTreeSet<PathBuf> {
    files
        .keys()
        .filter_map(|file| file.strip_prefix(site).ok()?.components().next())
        .map(|first| site.join(first))
        .filter(|dir| dir.extension().is_some_and(|extension| extension == "dist-info"))
        .collect()
}

/// Finds missing files and files with a wrong size: one message for each.
pub(super) fn missing(root: &Path, files: &EnvironmentFiles, site: &Path) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let mut right = BTreeSet::new();
    for info in dist_infos(files, site) {
        let Some(record) = read(&root.join(&info).join("RECORD"))? else {
            problems.push((PathBuf::new(), format!("{} has no RECORD", info.display())));
            continue;
        };
        let record = String::from_utf8_lossy(&record);
        for row in rows(&record) {
            let path = locate(root, site, &row.path);
            // RECORD cannot contain its own size. If a wheel's RECORD omits itself, uv adds a row with the size of that
            // RECORD.
            if path == info.join("RECORD") {
                continue;
            }
            let problem = match files.get(&path) {
                Some(Some(actual)) if row.size.parse().is_ok_and(|stated: u64| stated != *actual) => {
                    format!("{} has {actual} bytes instead of {}", path.display(), row.size)
                }
                Some(_) => {
                    right.insert(path);
                    continue;
                }
                None => format!("{} is missing", path.display()),
            };
            let name = info.file_stem().unwrap_or_default().to_string_lossy().replacen('-', " ", 1);
            problems.push((path, format!("{name}: {problem}")));
        }
    }
    Ok(problems.into_iter().filter(|(path, _)| !right.contains(path)).map(|(_, problem)| problem).collect())
}

/// Reads a file of a package, if there is one.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    files::read_if_there(path, GENERATED)
        .map_err(|error| files::unreadable(Kind::Environment, format!("cannot read {}", path.display()), &error))
}

/// The first file of the environment itself that a package replaced, and the package.
pub(super) fn replaced(root: &Path, files: &EnvironmentFiles, site: &Path) -> Result<Option<(PathBuf, String)>> {
    for info in dist_infos(files, site) {
        let Some(record) = read(&root.join(&info).join("RECORD"))? else { continue };
        let paths = rows(&String::from_utf8_lossy(&record)).into_iter().map(|row| locate(root, site, &row.path));
        if let Some(path) = paths.into_iter().find(|path| is_own(path)) {
            let name = info.file_stem().unwrap_or_default().to_string_lossy().replacen('-', " ", 1);
            return Ok(Some((path, name)));
        }
    }
    Ok(None)
}

/// Whether a path is a file that `python -m venv` makes (PEP 405).
fn is_own(path: &Path) -> bool {
    let Some(name) = path.strip_prefix("bin").ok().and_then(Path::to_str) else {
        return path == Path::new("pyvenv.cfg");
    };
    let version = |rest: &str| rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    name.strip_prefix("python").is_some_and(version)
        || name.starts_with("activate.")
        || name == "activate"
        || name == "Activate.ps1"
}

/// The path in the environment of a path in RECORD.
pub(super) fn locate(root: &Path, site: &Path, path: &str) -> PathBuf {
    let path = Path::new(path);
    let joined = match path.strip_prefix(root) {
        Ok(inside) => inside.to_owned(),
        Err(_) => site.join(path),
    };
    let mut clean = PathBuf::new();
    for part in joined.components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            part => clean.push(part),
        }
    }
    clean
}

/// The rows of RECORD: CSV, with quotes if a path needs them.
pub(super) fn rows(text: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    let mut end = |fields: &mut Vec<String>| {
        let mut fields = std::mem::replace(fields, vec![String::new()]).into_iter();
        let mut next = || fields.next().unwrap_or_default();
        let row = Row { path: next(), hash: next(), size: next() };
        if !row.path.is_empty() {
            rows.push(row);
        }
    };
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.next_if_eq(&'"').is_none() => quoted = false,
            '"' if !quoted => quoted = true,
            ',' if !quoted => fields.push(String::new()),
            '\r' if !quoted => {}
            '\n' if !quoted => end(&mut fields),
            c => {
                if let Some(field) = fields.last_mut() {
                    field.push(c);
                }
            }
        }
    }
    end(&mut fields);
    rows
}

impl Row {
    /// The row as a line of RECORD.
    pub(super) fn line(&self) -> String {
        let quote = |field: &str| {
            if field.contains([',', '"', '\n', '\r']) {
                format!("\"{}\"", field.replace('"', "\"\""))
            } else {
                field.to_owned()
            }
        };
        format!("{},{},{}\n", quote(&self.path), quote(&self.hash), quote(&self.size))
    }
}

/// A distribution, from its `*.dist-info`.
#[derive(Debug)]
pub(super) struct Installed {
    pub(super) name: String,
    pub(super) version: String,
    /// Requires-Dist of METADATA, as written.
    pub(super) requires: Vec<String>,
    pub(super) requires_python: Option<String>,
    /// Tags of WHEEL: `cp313-cp313-musllinux_1_2_x86_64`.
    pub(super) tags: Vec<String>,
    /// Its files: paths in the environment, and their rows in RECORD.
    pub(super) files: Vec<(PathBuf, Row)>,
    /// The text of `direct_url.json`, if it is not from an index.
    pub(super) direct_url: Option<String>,
}

/// All distributions in `site`, sorted by name. Skips those without a name or version.
pub(super) fn installed(root: &Path, files: &EnvironmentFiles, site: &Path) -> Result<Vec<Installed>> {
    let mut found = Vec::new();
    for info in dist_infos(files, site) {
        let read = |name: &str| read(&root.join(&info).join(name));
        // Old projects use other encodings. The fields that podstrap reads are ASCII.
        let Some(metadata) = read("METADATA")? else {
            return Err(Error::environment(format!("{} has no METADATA", root.join(&info).display())));
        };
        let metadata = headers(&metadata);
        let all = |name: &str| {
            metadata.iter().filter(|(is, _)| is.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone()).collect()
        };
        let first = |name: &str| -> Option<String> { Vec::into_iter(all(name)).next() };
        let (Some(name), Some(version)) = (first("Name"), first("Version")) else { continue };
        let wheel = headers(&read("WHEEL")?.unwrap_or_default());
        let record = String::from_utf8(read("RECORD")?.unwrap_or_default()).unwrap_or_default();
        found.push(Installed {
            name,
            version,
            requires: all("Requires-Dist"),
            requires_python: first("Requires-Python"),
            tags: wheel.into_iter().filter(|(name, _)| name == "Tag").map(|(_, tag)| tag).collect(),
            files: rows(&record).into_iter().map(|row| (locate(root, site, &row.path), row)).collect(),
            direct_url: read("direct_url.json")?.and_then(|text| String::from_utf8(text).ok()),
        });
    }
    found.sort_by_key(|dist| dist.name.to_lowercase());
    Ok(found)
}

/// The fields before the first empty line. Source: "Core metadata specifications".
fn headers(text: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().take_while(|line| !line.is_empty());
    lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

/// The files in `*.dist-info` that differ between engines.
const INSTALLERS_OWN: &[&str] = &[
    "RECORD",
    "RECORD.jws",
    "RECORD.p7s",
    "INSTALLER",
    "REQUESTED",
    "direct_url.json",
    "provenance_url.json",
    "uv_build.json",
    "uv_cache.json",
];

impl Installed {
    /// `flask 3.1.2`
    pub(super) fn shown(&self) -> String {
        format!("{} {}", self.name, self.version)
    }

    /// Hash of the wheel's files, from RECORD. It is the same with both engines: it skips scripts and headers, which
    /// each engine writes or places differently.
    pub(super) fn contents(&self, site: &Path) -> String {
        let mut lines: Vec<String> = Vec::new();
        for (path, row) in &self.files {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let own =
                path.parent().is_some_and(|dir| dir.extension().is_some_and(|extension| extension == "dist-info"));
            let left_out = path.starts_with("bin")
                || path.starts_with("include")
                || name.ends_with(".pyc")
                || own && INSTALLERS_OWN.contains(&&*name);
            if !left_out {
                // The path of site-packages depends only on the Python.
                let path = path.strip_prefix(site).unwrap_or(path);
                lines.push(format!("{} {}\n", path.display(), row.hash));
            }
        }
        lines.sort();
        lines.dedup();
        format!("sha256:{}", hex(&Sha256::digest(lines.concat())))
    }
}

/// Written rows parse to the same rows, and every path stays in the environment.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let read = rows(&text);
    let written: String = read.iter().map(Row::line).collect();
    assert_eq!(rows(&written), read);
    assert!(headers(data).iter().all(|(name, value)| !name.contains([':', '\n']) && value.trim() == value));
    let mut fields = text.split('|').map(str::to_owned);
    let mut next = || fields.next().unwrap_or_default();
    let row = Row { path: next(), hash: next(), size: next() };
    if !row.path.is_empty() {
        let path = locate(Path::new("/venv"), Path::new("lib/python3/site-packages"), &row.path);
        assert!(!path.components().any(|part| part == Component::ParentDir), "{}", path.display());
        assert_eq!(rows(&row.line()), [row]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_csv() {
        let text = "a.py,sha256=x,3\r\n\"odd,\"\"name.py\",,\n../../../bin/x,sha256=y,10\n\n";
        let rows = rows(text);
        assert_eq!(
            rows.iter().map(|row| row.path.as_str()).collect::<Vec<_>>(),
            ["a.py", "odd,\"name.py", "../../../bin/x"]
        );
        assert_eq!(rows.iter().map(Row::line).collect::<String>(), text.replace('\r', "").replace("\n\n", "\n"));
    }

    #[test]
    fn a_file_is_right_if_any_row_is() {
        let dir = tempfile::tempdir().unwrap();
        let site = Path::new("lib/site-packages");
        let write = |name: &str, text: &str| {
            let path = dir.path().join(site).join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("tests/__init__.py", "12345");
        write("a-1.0.dist-info/RECORD", "tests/__init__.py,,5\ngone.py,,1\n../../bin/a,,\n");
        write("b-2.0.dist-info/RECORD", "tests/__init__.py,,0\nb-2.0.dist-info/RECORD,,0\n");
        write("c-3.dist-info/METADATA", "Name: c\n");
        let files = super::files(dir.path()).unwrap();
        assert_eq!(
            missing(dir.path(), &files, site).unwrap(),
            [
                "a 1.0: lib/site-packages/gone.py is missing",
                "a 1.0: bin/a is missing",
                "lib/site-packages/c-3.dist-info has no RECORD"
            ]
        );
    }

    #[test]
    fn the_umask_does_not_show() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |name: &str| dir.path().join(name).metadata().unwrap().permissions().mode() & 0o777;
        std::fs::create_dir(dir.path().join("d")).unwrap();
        for (name, bits) in [("d/script", 0o700), ("d/text", 0o600), ("d/open", 0o666), ("d", 0o700)] {
            if name != "d" {
                std::fs::write(dir.path().join(name), "").unwrap();
            }
            std::fs::set_permissions(dir.path().join(name), std::fs::Permissions::from_mode(bits)).unwrap();
        }
        files(dir.path()).unwrap();
        assert_eq!((mode("d"), mode("d/script"), mode("d/text"), mode("d/open")), (0o755, 0o755, 0o644, 0o644));
    }
}
