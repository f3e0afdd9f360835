//! Makes an environment say that it is where it will be.
//!
//! Installers write the environment's path into scripts (`#!`), activation scripts, `pyvenv.cfg`,
//! `*.pth` and `direct_url.json`. A file is replaced, never written into: it may be a hardlink into
//! an engine's cache. The records of what changed are put right.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use sha2::{Digest, Sha256};

use super::record::{self, Files};
use crate::error::{Error, IoContext, Result};

/// How long `#!` and the interpreter with its newline may be: Linux reads 127 bytes before 5.1, and
/// so pip and uv hold it.
const SHEBANG_LIMIT: usize = 127;
/// What installers write where a plain `#!` is too long or the path holds a space: valid both as a
/// shell script and as Python.
const LONG_HEAD: &str = "#!/bin/sh\n'''exec' ";
const LONG_ARGS: &str = " \"$0\" \"$@\"";
const LONG_TAIL: &str = "\n' '''\n";

/// A path under construction and what it will be.
#[derive(Debug)]
pub(super) struct Move {
    pub(super) from: PathBuf,
    pub(super) to: PathBuf,
}

/// Rewrites every mention of the moved paths in the environment at `root`.
pub(super) fn relocate(root: &Path, files: &Files, site: &Path, moves: &[Move]) -> Result<()> {
    let mut moves: Vec<(String, String)> = moves.iter().flat_map(both_spellings).collect::<Result<_>>()?;
    // A path inside another one must go first.
    moves.sort_by_key(|(from, _)| std::cmp::Reverse(from.len()));
    moves.dedup();
    let mut changed = BTreeMap::new();
    for (name, size) in files {
        if size.is_none() || !may_say_path(name, site) {
            continue;
        }
        let path = root.join(name);
        let bytes = std::fs::read(&path).on_volume(|| format!("cannot read {}", path.display()))?;
        // What is no text (a compiled program in bin/) cannot be rewritten.
        let Ok(text) = String::from_utf8(bytes) else { continue };
        let script = name.starts_with("bin");
        let mut new = if script { rewrite_script(&text, &moves) } else { substitute(&text, &moves) };
        if name.ends_with("direct_url.json") {
            new = without_userinfo(&new).unwrap_or(new);
        }
        if new != text {
            replace(&path, new.as_bytes())?;
            changed.insert(name.clone(), (digest(new.as_bytes()), new.len()));
        }
    }
    if changed.is_empty() {
        return Ok(());
    }
    for info in record::dist_infos(files, site) {
        let path = root.join(info).join("RECORD");
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let mut new = String::with_capacity(text.len());
        let mut touched = false;
        for mut row in record::rows(&text) {
            if let Some((hash, size)) = changed.get(&record::locate(root, site, &row.path))
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

/// Files that installers write paths into.
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
fn both_spellings(Move { from, to }: &Move) -> Vec<Result<(String, String)>> {
    let text = |path: &Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| {
            Error::usage(format!("{} is not UTF-8", path.display())).hint("scripts and metadata cannot say such a path")
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

/// Where the text says the path itself, and not one whose last name is longer.
fn find_path(text: &str, path: &str) -> Option<usize> {
    let longer = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.match_indices(path).map(|(at, _)| at).find(|at| !text[at + path.len()..].starts_with(longer))
}

/// The whole script with its `#!` in the form that the new interpreter's path allows.
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
    // The old path may be quoted and may hold spaces; what follows it up to the next space is the
    // interpreter's name, then come its arguments.
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

/// A direct URL (PEP 610) must not keep a password; `git@` is no secret.
fn without_userinfo(text: &str) -> Option<String> {
    let mut json: serde_json::Value = serde_json::from_str(text).ok()?;
    let url: crate::redact::RemoteUrl = json.get("url")?.as_str()?.parse().ok()?;
    let userinfo = url.userinfo()?;
    if userinfo.password.reveal().is_empty() && userinfo.username == "git" {
        return None;
    }
    json["url"] = url.url().as_str().into();
    Some(json.to_string())
}

/// Puts a new file in the place of an old one, with its mode.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = path.with_added_extension("podstrap-new");
    let write = || {
        let mode = path.metadata()?.permissions();
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(bytes)?;
        file.set_permissions(mode)?;
        std::fs::rename(&beside, path)
    };
    write().on_volume(|| format!("cannot rewrite {}", path.display()))
}

/// SHA-256 as RECORD writes it.
fn digest(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(bytes))
}

/// What was moved is named no more, a shebang stays one that the kernel reads whole, and a direct URL
/// loses its password.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let moves = [("/stage/venv".to_owned(), "/app/venv".to_owned()), ("/stage".to_owned(), "/app".to_owned())];
    let gone = |text: &str| moves.iter().all(|(from, _)| find_path(text, from).is_none());
    if let Some(json) = without_userinfo(&text) {
        assert_eq!(without_userinfo(&json), None, "{json}");
    }
    // What is there already, and two halves of a path that meet when a quote between them goes.
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
    }

    #[test]
    fn digests_are_what_records_hold() {
        assert_eq!(digest(b""), "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU");
    }
}
