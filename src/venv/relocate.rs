//! Changes the paths in an environment from its build path to its final path.
//!
//! Engines write the environment's path into scripts (`#!`), activation scripts, `pyvenv.cfg`, `*.pth` and
//! `direct_url.json`. podstrap replaces a file and never writes into it, because it may be a hard link into
//! an engine's cache. It also updates RECORD for the changed files.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use sha2::{Digest, Sha256};

use super::app::App;
use super::installed::{self, EnvironmentFiles};
use super::origin;
use crate::error::{Error, IoContext, Result};
use crate::files::{self, GENERATED, WRITTEN};

/// Longest `#!` line, in bytes, with its newline: Linux before 5.1 reads 127 bytes, and pip and uv use the
/// same limit.
const SHEBANG_LIMIT: usize = 127;
/// The replacement for a `#!` line that is too long or whose path has a space: valid in both shell and
/// Python. Engines write the same.
const LONG_HEAD: &str = "#!/bin/sh\n'''exec' ";
const LONG_ARGS: &str = " \"$0\" \"$@\"";
const LONG_TAIL: &str = "\n' '''\n";

/// A build path and its final path.
#[derive(Debug)]
pub(super) struct Relocation {
    pub(super) from: PathBuf,
    pub(super) to: PathBuf,
}

/// The final paths.
#[derive(Debug)]
pub(super) struct Destination {
    /// The move of the environment comes first.
    pub(super) moves: Vec<Relocation>,
    /// The tree and the path to record as an origin, which the app does not read.
    pub(super) told: Option<Relocation>,
    /// The scratch directory, deleted after the build.
    pub(super) scratch: PathBuf,
}

impl Destination {
    /// Replaces build paths in a URL by final paths.
    pub(super) fn rewrite(&self, url: &str) -> String {
        let moves = spellings(self.moves.iter().chain(&self.told)).unwrap_or_default();
        substitute(url, &moves)
    }

    /// Refuses a file that still refers to the build path.
    fn check(&self, name: &Path, text: &str) -> Result<()> {
        let Some(own) = self.moves.first() else { return Ok(()) };
        let says = |path: &Path| {
            spellings([&Relocation { from: path.to_owned(), to: path.to_owned() }])
                .is_ok_and(|spellings| spellings.iter().any(|(path, _)| find_path(text, path).is_some()))
        };
        if let Some(tree) = self.told.as_ref().map(|told| &told.from).filter(|tree| says(tree)) {
            return Err(Error::environment(format!(
                "{} refers to the tree, whose path in the app's container is unknown",
                name.display()
            ))
            .because(format!(
                "a project in {} is editable, and podstrap cannot derive the tree's path from the final path {}",
                tree.display(),
                own.to.display()
            ))
            .hint("give a --venv-final-path that ends with the path of --venv, or install the project without -e"));
        }
        match [&own.from, &self.scratch].into_iter().find(|path| says(path)) {
            Some(path) => Err(Error::environment(format!("{} refers to its build path", name.display()))
                .because(format!("{} does not exist when the app runs", path.display()))
                .hint("install another version of the package whose build wrote this path, or remove the package")),
            None => Ok(()),
        }
    }
}

/// Every spelling of the moves, longest path first.
fn spellings<'a>(moves: impl IntoIterator<Item = &'a Relocation>) -> Result<Vec<(String, String)>> {
    let mut all: Vec<(String, String)> = moves.into_iter().flat_map(both_spellings).collect::<Result<_>>()?;
    all.sort_by_key(|(from, _)| std::cmp::Reverse(from.len()));
    all.dedup();
    Ok(all)
}

/// Rewrites every mention of the moved paths in the environment at `root`.
///
/// # Errors
/// A file still refers to the build path.
pub(super) fn relocate(root: &Path, files: &EnvironmentFiles, site: &Path, destination: &Destination) -> Result<()> {
    let moves = spellings(&destination.moves)?;
    let told = spellings(&destination.told)?;
    let mut through_shell = Vec::new();
    let mut changed = BTreeMap::new();
    for (name, size) in files {
        if size.is_none() || !may_say_path(name, site) {
            continue;
        }
        let path = root.join(name);
        let bytes = files::read(&path, GENERATED).on_volume(|| format!("cannot read {}", path.display()))?;
        // Skip a file that is not text, such as a compiled program in bin/.
        let Ok(text) = String::from_utf8(bytes) else { continue };
        let script = name.starts_with("bin");
        let mut new = if script { rewrite_script(&text, &moves) } else { substitute(&text, &moves) };
        if name.ends_with("direct_url.json") {
            new = without_userinfo(&new).unwrap_or(new);
            if !origin::direct(&new).is_some_and(|origin| origin.editable) {
                new = substitute(&new, &told);
            }
        }
        destination.check(name, &new)?;
        if script && new.starts_with(LONG_HEAD) {
            through_shell.push(name.display().to_string());
        }
        if new != text {
            replace(&path, new.as_bytes())?;
            changed.insert(name.clone(), (digest(new.as_bytes()), new.len()));
        }
    }
    if let Some(first) = through_shell.first() {
        let more = match through_shell.len() {
            1 => String::new(),
            all => format!(" and {} more", all - 1),
        };
        tracing::warn!(
            "the app's image needs /bin/sh for {first}{more}, because the interpreter's path is too long or has \
             spaces; a short --venv-final-path without spaces avoids this"
        );
    }
    if changed.is_empty() {
        return Ok(());
    }
    for info in installed::dist_infos(files, site) {
        let path = root.join(info).join("RECORD");
        let text = files::read_if_there(&path, GENERATED).on_volume(|| format!("cannot read {}", path.display()))?;
        let Some(Ok(text)) = text.map(String::from_utf8) else { continue };
        let mut new = String::with_capacity(text.len());
        let mut touched = false;
        for mut row in installed::rows(&text) {
            if let Some((hash, size)) = changed.get(&installed::locate(root, site, &row.path))
                && !row.hash.is_empty()
            {
                row.hash = format!("sha256={hash}");
                row.size = size.to_string();
                touched = true;
            }
            new.push_str(&row.line());
        }
        if touched {
            replace(&path, new.as_bytes())?;
        }
    }
    Ok(())
}

/// The text with another path. `None` if it does not have this one.
///
/// # Errors
/// A path is not UTF-8.
pub fn with_other_path(text: &str, from: &Path, to: &Path) -> Result<Option<String>> {
    let moves = spellings([&Relocation { from: from.to_owned(), to: to.to_owned() }])?;
    let new = substitute(text, &moves);
    Ok((new != text).then_some(new))
}

/// Copies the scripts of an environment that is not yet at its final path, so that they run where it is.
///
/// # Errors
/// A script cannot be read, or not be written to the directory `copies`.
pub fn scripts(venv: &Path, final_path: &Path, copies: &Path) -> Result<()> {
    let moves = spellings([&Relocation { from: final_path.to_owned(), to: venv.to_owned() }])?;
    let bin = venv.join("bin");
    for (name, kind) in files::list(&bin).on_volume(|| format!("cannot list {}", bin.display()))? {
        let path = bin.join(&name);
        let read = || files::read(&path, GENERATED).on_volume(|| format!("cannot read {}", path.display()));
        let text = if kind.is_file() { String::from_utf8(read()?).ok() } else { None };
        let Some(text) = text.filter(|text| text.starts_with("#!")) else { continue };
        let new = rewrite_script(&text, &moves);
        if new != text {
            let copy = copies.join(&name);
            std::fs::write(&copy, new)
                .and_then(|()| std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)))
                .on_volume(|| format!("cannot write {}", copy.display()))?;
        }
    }
    Ok(())
}

/// Adapts the environment to the app's interpreter: links, `pyvenv.cfg` and, for another Python, the name of
/// its directory in `lib`. `site` is the engine's site-packages. Returns whether anything changed.
pub(super) fn interpreter(root: &Path, base: &Path, site: &Path, app: &App) -> Result<bool> {
    if app.interpreter == base && app.site == site {
        return Ok(false);
    }
    let failed = |path: &Path| format!("cannot rewrite {}", path.display());
    if let (Some(from), Some(to)) = (site.parent(), app.site.parent())
        && from != to
    {
        std::fs::rename(root.join(from), root.join(to)).on_volume(|| failed(&root.join(from)))?;
    }
    let bin = root.join("bin");
    for (name, kind) in files::list(&bin).on_volume(|| failed(&bin))? {
        if name.to_string_lossy().starts_with("python") && kind.is_symlink() {
            let path = bin.join(name);
            std::fs::remove_file(&path).on_volume(|| failed(&path))?;
        }
    }
    let (major, minor) = app.python;
    let threads = if app.free_threaded { "t" } else { "" };
    for (name, target) in [
        ("python".to_owned(), app.interpreter.as_path()),
        (format!("python{major}"), Path::new("python")),
        (format!("python{major}.{minor}{threads}"), Path::new("python")),
    ] {
        let link = bin.join(name);
        std::os::unix::fs::symlink(target, &link).on_volume(|| failed(&link))?;
    }
    let config = root.join("pyvenv.cfg");
    let text = files::read_text(&config, WRITTEN).on_volume(|| format!("cannot read {}", config.display()))?;
    replace(&config, rewrite_config(&text, app).as_bytes())?;
    Ok(true)
}

/// `pyvenv.cfg` for the app's interpreter, with the keys of PEP 405 and of `venv`.
fn rewrite_config(text: &str, app: &App) -> String {
    let path = app.interpreter.display();
    let home = app.interpreter.parent().unwrap_or(Path::new("/")).display();
    let mut new = String::with_capacity(text.len());
    for line in text.lines() {
        let (key, value) = line.split_once(" = ").unwrap_or((line, ""));
        match key {
            "home" => new.push_str(&format!("home = {home}\n")),
            "executable" => new.push_str(&format!("executable = {path}\n")),
            "version" if app.other_python => new.push_str(&format!("version = {}\n", app.version)),
            "command" => {
                let arguments = value.split_once(" -m ").map_or("", |(_, arguments)| arguments);
                new.push_str(&format!("command = {path} -m {arguments}\n"));
            }
            _ => new.push_str(&format!("{line}\n")),
        }
    }
    new
}

/// Whether engines write paths into a file.
fn may_say_path(name: &Path, site: &Path) -> bool {
    if name.starts_with("bin") || name == Path::new("pyvenv.cfg") {
        return true;
    }
    let Ok(inside) = name.strip_prefix(site) else { return false };
    let file = name.file_name().unwrap_or_default().to_string_lossy();
    match inside.components().count() {
        1 => file.ends_with(".pth") || file.ends_with(".egg-link") || file.starts_with("__editable__"),
        2 => file == "direct_url.json",
        _ => false,
    }
}

/// A move as plain text and as part of a `file:` URL.
fn both_spellings(Relocation { from, to }: &Relocation) -> Vec<Result<(String, String)>> {
    let text = |path: &Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| {
            Error::usage(format!("{} is not UTF-8", path.display()))
                .hint("use a path in UTF-8, because scripts and metadata contain it")
        })
    };
    let url = |path: &Path| {
        url::Url::from_file_path(path)
            .map(|url| url.path().to_owned())
            .map_err(|()| Error::internal(format!("{} is not absolute", path.display())))
    };
    vec![text(from).and_then(|from| Ok((from, text(to)?))), url(from).and_then(|from| Ok((from, url(to)?)))]
}

fn substitute(text: &str, moves: &[(String, String)]) -> String {
    moves.iter().fold(text.to_owned(), |text, (from, to)| {
        let mut out = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(at) = find_path(rest, from) {
            out.push_str(&rest[..at]);
            out.push_str(to);
            rest = &rest[at + from.len()..];
        }
        out + rest
    })
}

/// Finds the path itself, not a path with a longer last name.
fn find_path(text: &str, path: &str) -> Option<usize> {
    let longer = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.match_indices(path).map(|(at, _)| at).find(|at| !text[at + path.len()..].starts_with(longer))
}

/// Rewrites a script, with a `#!` line in the form that the new interpreter path needs.
fn rewrite_script(text: &str, moves: &[(String, String)]) -> String {
    let long = text.strip_prefix(LONG_HEAD).and_then(|rest| rest.split_once(LONG_TAIL));
    let (command, body) = match (long, text.strip_prefix("#!")) {
        (Some((command, body)), _) => (command.trim_end_matches(LONG_ARGS), body),
        (None, Some(rest)) => rest.split_once('\n').unwrap_or((rest, "")),
        (None, None) => return substitute(text, moves),
    };
    let Some((from, to)) = moves.iter().find(|(from, _)| find_path(command, from).is_some()) else {
        return substitute(text, moves);
    };
    // The old path may be quoted and may contain spaces. After it come the interpreter's name, up to the
    // next space, and its arguments.
    let rest = &command[find_path(command, from).map_or(0, |at| at + from.len())..];
    let end = rest.find([' ', '"', '\'']).unwrap_or(rest.len());
    let interpreter = format!("{to}{}", substitute(&rest[..end], moves));
    let arguments = substitute(rest[end..].trim_start_matches(['"', '\'']).trim_end(), moves);
    let body = substitute(body, moves);
    let plain = format!("#!{interpreter}{arguments}\n");
    if plain.len() <= SHEBANG_LIMIT && !interpreter.contains(char::is_whitespace) {
        return format!("{plain}{body}");
    }
    format!("{LONG_HEAD}\"{interpreter}\"{arguments}{LONG_ARGS}{LONG_TAIL}{body}")
}

/// Removes the login and the query from a direct URL (PEP 610). `git@` is not secret.
fn without_userinfo(text: &str) -> Option<String> {
    let mut json: serde_json::Value = serde_json::from_str(text).ok()?;
    let url: crate::redact::RemoteUrl = json.get("url")?.as_str()?.parse().ok()?;
    let login = url.userinfo().is_some_and(|login| !login.password.reveal().is_empty() || login.username != "git");
    let mut url = url.url().clone();
    if !login && url.query().is_none() {
        return None;
    }
    // The query may be a signature or a token.
    url.set_query(None);
    json["url"] = url.as_str().into();
    Some(json.to_string())
}

/// Replaces a file and keeps its mode. Never writes into it: it may be a hard link.
///
/// # Errors
/// The volume is full or not writable.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    // A name that no other file has, and not longer than a name may be.
    let beside = path.with_file_name(format!(".podstrap-{:016x}", fastrand::u64(..)));
    let write = || {
        let mode = path.metadata()?.permissions();
        let mut file = std::fs::File::create_new(&beside)?;
        file.write_all(bytes)?;
        file.set_permissions(mode)?;
        std::fs::rename(&beside, path)
    };
    write().on_volume(|| format!("cannot rewrite {}", path.display()))
}

/// SHA-256 in the form of RECORD.
fn digest(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(bytes))
}

/// No old path remains, the kernel can read every `#!` line completely, and a direct URL has no password.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let moves = [("/stage/venv".to_owned(), "/app/venv".to_owned()), ("/stage".to_owned(), "/app".to_owned())];
    let gone = |text: &str| moves.iter().all(|(from, _)| find_path(text, from).is_none());
    if let Some(json) = without_userinfo(&text) {
        assert_eq!(without_userinfo(&json), None, "{json}");
    }
    // Skip final paths in the input, and halves of a path that meet when a quote between them disappears.
    if text.contains("/app") || text.contains(['"', '\'']) {
        return;
    }
    let new = substitute(&text, &moves);
    assert!(gone(&new), "{new:?}");
    for script in [
        text.to_string(),
        format!("#!/stage/venv/bin/python{text}"),
        format!("{LONG_HEAD}\"/stage/venv/bin/python3\"{text}"),
    ] {
        let new = rewrite_script(&script, &moves);
        assert!(gone(&new), "{script:?} {new:?}");
        let first = new.split_inclusive('\n').next().unwrap_or_default();
        assert!(
            new == script || !first.starts_with("#!") || first.len() <= SHEBANG_LIMIT || !first.contains("/app"),
            "{first:?}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(text: &str, from: &str, to: &str) -> String {
        rewrite_script(text, &[(from.to_owned(), to.to_owned())])
    }

    #[test]
    fn shebangs_take_the_form_that_fits() {
        let long = format!("/{}", "l".repeat(130));
        let short = "#!/s/bin/python\nimport sys\n";
        let wrapped = format!("#!/bin/sh\n'''exec' \"{long}/bin/python\" \"$0\" \"$@\"\n' '''\nimport sys\n");
        assert_eq!(moved(short, "/s", &long), wrapped);
        assert_eq!(moved(&wrapped, &long, "/s"), short);
        assert_eq!(moved(&wrapped.replace('"', "").replace("$0 $@", "\"$0\" \"$@\""), &long, "/s"), short);
        assert_eq!(moved("#!/s/bin/python -E\n", "/s", "/app"), "#!/app/bin/python -E\n");
        assert_eq!(
            moved(short, "/s", "/a b"),
            "#!/bin/sh\n'''exec' \"/a b/bin/python\" \"$0\" \"$@\"\n' '''\nimport sys\n"
        );
        assert_eq!(moved("#!/bin/sh\nexec /s/bin/x\n", "/s", "/app"), "#!/bin/sh\nexec /app/bin/x\n");
        // A path that fills the line to its last byte, and one byte more.
        let fits = format!("/{}", "f".repeat(SHEBANG_LIMIT - "#!//bin/python\n".len()));
        assert!(moved(short, "/s", &fits).starts_with("#!/f"));
        assert!(moved(short, "/s", &format!("{fits}f")).starts_with("#!/bin/sh\n"));
    }

    #[test]
    fn a_direct_url_loses_its_password() {
        let text = r#"{"url": "https://u:p@host/x.git", "vcs_info": {"vcs": "git"}}"#;
        assert_eq!(without_userinfo(text).unwrap(), r#"{"url":"https://host/x.git","vcs_info":{"vcs":"git"}}"#);
        assert_eq!(without_userinfo(r#"{"url": "ssh://git@host/x.git"}"#), None);
        assert_eq!(
            without_userinfo(r#"{"url": "https://host/x.whl?token=s3cret"}"#).unwrap(),
            r#"{"url":"https://host/x.whl"}"#
        );
    }

    #[test]
    fn digests_are_what_records_hold() {
        assert_eq!(digest(b""), "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU");
    }
}
