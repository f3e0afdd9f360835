//! Searches a finished environment, and the files that its build wrote to the tree, for the secrets of the run.
//!
//! An engine, Git or the build of a package may write a login to a file: `.git/config` and the logs of Git keep the URL
//! of a clone. Every user of the volume could read it there. podstrap removes a login from Git's files, and publishes no
//! environment with a secret in another file.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::SystemTime;

use aho_corasick::AhoCorasick;
use base64::prelude::{BASE64_STANDARD, Engine as _};

use crate::error::{Error, IoContext, Result};
use crate::files;
use crate::redact::Userinfo;
use crate::walk::{WalkError, walk};

/// Fewer characters, or only letters below the second length, may be a word that packages contain. podstrap then looks
/// only for name and password together.
const PASSWORD: usize = 8;
const LETTERS: usize = 16;
/// Number of rounds that may be needed to clean one file.
const ROUNDS: usize = 2;

/// Searches the files below `root`, or only those that changed `since` this time.
///
/// # Errors
/// A file contains a secret, or cannot be read.
pub fn search(root: &Path, secrets: &[Userinfo], since: Option<SystemTime>) -> Result<()> {
    let logins: BTreeSet<String> = secrets.iter().flat_map(logins).collect();
    let Some(searcher) = searcher(secrets)? else { return Ok(()) };
    for entry in walk(root) {
        let entry = entry.map_err(WalkError::on_volume)?;
        if !entry.is_file() || since.is_some_and(|since| entry.is_older(since)) {
            continue;
        }
        let read = || format!("cannot read {}", entry.path.display());
        for round in 0..=ROUNDS {
            let file = files::open(&entry.path).on_volume(read)?;
            match searcher.stream_find_iter(file).next().transpose().on_volume(read)? {
                None => break,
                Some(_) if round < ROUNDS && is_of_git(&entry.name) => clean(&entry.path, &logins)?,
                Some(_) => {
                    let what = format!("{} contains a login or token of this run", entry.name.display());
                    return Err(Error::environment(what)
                        .because("the app and every other reader of the volume could read it there")
                        .hint("use an install-time login from --auth instead of a URL, and remove the package whose build writes it"));
                }
            }
        }
    }
    Ok(())
}

/// Whether a text contains a secret.
pub fn is_in(text: &str, secrets: &[Userinfo]) -> Result<bool> {
    Ok(searcher(secrets)?.is_some_and(|searcher| searcher.is_match(text)))
}

/// `None`: there are no secrets.
fn searcher(secrets: &[Userinfo]) -> Result<Option<AhoCorasick>> {
    let needles: BTreeSet<String> = secrets.iter().flat_map(words).chain(secrets.iter().flat_map(logins)).collect();
    let made = (!needles.is_empty()).then(|| AhoCorasick::new(&needles)).transpose();
    made.map_err(|error| Error::internal("cannot search for secrets").because(error))
}

/// A file in which Git keeps the URL of a clone.
fn is_of_git(name: &Path) -> bool {
    let parts: Vec<_> = name.iter().skip_while(|part| *part != ".git").skip(1).collect();
    parts.first().is_some_and(|first| {
        ["config", "FETCH_HEAD", "packed-refs", "logs", "modules"].iter().any(|known| first == known)
    })
}

/// Removes logins from the URLs in a file.
fn clean(path: &Path, logins: &BTreeSet<String>) -> Result<()> {
    let text = files::read(path, files::WRITTEN).on_volume(|| format!("cannot read {}", path.display()))?;
    let text = logins.iter().fold(String::from_utf8_lossy(&text).into_owned(), |text, login| text.replace(login, ""));
    // The file may be a hard link to a cache.
    let fresh = path.with_extension("podstrap");
    std::fs::write(&fresh, text)
        .and_then(|()| std::fs::set_permissions(&fresh, files::open(path)?.metadata()?.permissions()))
        .and_then(|()| std::fs::rename(&fresh, path))
        .on_volume(|| format!("cannot write {}", path.display()))
}

/// The forms of a secret: as it is, and escaped in a URL by different programs.
fn forms(secret: &str) -> [String; 4] {
    let escaped = |keep: &str, upper: bool| {
        let escape = |byte: u8| match byte {
            byte if byte.is_ascii_alphanumeric() || keep.as_bytes().contains(&byte) => char::from(byte).to_string(),
            byte if upper => format!("%{byte:02X}"),
            byte => format!("%{byte:02x}"),
        };
        secret.bytes().map(escape).collect::<String>()
    };
    [secret.to_owned(), escaped("-._~", true), escaped("-._~", false), escaped("-._~!$&'()*+,;=", true)]
}

/// The beginning of a URL's authority with this login.
fn logins(login: &Userinfo) -> Vec<String> {
    let (names, passwords) = (forms(&login.username), forms(login.password.reveal()));
    let with = |(name, password): (&String, &String)| match (name.as_str(), password.as_str()) {
        ("", "") => None,
        (name, "") => is_token(name).then(|| format!("{name}@")),
        (name, password) => Some(format!("{name}:{password}@")),
    };
    names.iter().zip(&passwords).filter_map(with).collect()
}

/// What gives a secret away without its URL.
fn words(login: &Userinfo) -> Vec<String> {
    let (name, password) = (login.username.as_str(), login.password.reveal());
    let mut words = Vec::new();
    // GitHub and Bitbucket take a token as the name, with one of these words.
    let placeholder = ["", "x-oauth-basic", "x-token-auth"].contains(&password);
    if placeholder && is_token(name) {
        words.extend(forms(name));
    }
    if !placeholder && is_strong(password) {
        words.extend(forms(password));
    }
    let header = BASE64_STANDARD.encode(format!("{name}:{password}"));
    let header = header.trim_end_matches('=');
    // The last character depends on what follows.
    if !password.is_empty() && header.len() > PASSWORD {
        words.push(header[..header.len() - 1].to_owned());
    }
    words
}

/// Whether a user name is rather a token: an account's name or e-mail address may occur in packages.
fn is_token(name: &str) -> bool {
    name.len() >= PASSWORD && !name.contains('@') && name.chars().any(char::is_uppercase)
        || name.len() >= LETTERS && !name.contains('@') && name.chars().any(|c| c.is_ascii_digit())
}

/// Whether a secret is unlikely to be a word of a package.
fn is_strong(secret: &str) -> bool {
    let letters = secret.chars().all(char::is_alphabetic);
    secret.len() >= LETTERS || secret.len() >= PASSWORD && !letters
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::Secret;
    use std::fs;

    fn login(username: &str, password: &str) -> Userinfo {
        Userinfo { username: username.into(), password: Secret::new(password) }
    }

    #[test]
    fn every_form_of_a_secret_is_found() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("lib/__pycache__")).unwrap();
        let found = |text: &[u8], secrets: &[Userinfo]| {
            fs::write(dir.path().join("lib/__pycache__/x.pyc"), [&vec![0xff; 70_000][..], text, b"\0"].concat())
                .unwrap();
            search(dir.path(), secrets, None).err().map(|error| error.to_string())
        };
        let secrets = [login("me", "p@ss/w0rd"), login("T0ken-of-git", ""), login("ann", "password")];
        for text in [
            "p@ss/w0rd",
            "p%40ss%2Fw0rd",
            "p%40ss%2fw0rd",
            "https://me:p%40ss%2Fw0rd@host/",
            "bWU6cEBzcy93MHJk",
            "T0ken-of-git",
            "https://ann:password@host",
            "YW5uOnBhc3N3b3Jk",
        ] {
            let error = found(text.as_bytes(), &secrets).unwrap_or_else(|| panic!("{text}"));
            assert!(error.contains("lib/__pycache__/x.pyc") && !error.contains(text), "{error}");
        }
        for text in ["password", "ann", "p@ss", "me:", "bWU6"] {
            assert_eq!(found(text.as_bytes(), &secrets), None, "{text}");
        }
        assert_eq!(found(b"p@ss/w0rd", &[]), None);
    }

    #[test]
    fn gits_own_files_are_cleaned() {
        let dir = tempfile::tempdir().unwrap();
        let git = dir.path().join("src/x/.git");
        fs::create_dir_all(git.join("logs")).unwrap();
        let text = "[remote \"origin\"]\n\turl = http://me:s3cret-1@host/x.git\n";
        for name in ["config", "logs/HEAD"] {
            fs::write(git.join(name), text).unwrap();
        }
        search(dir.path(), &[login("me", "s3cret-1")], None).unwrap();
        for name in ["config", "logs/HEAD"] {
            let cleaned = fs::read_to_string(git.join(name)).unwrap();
            assert_eq!(cleaned, text.replace("me:s3cret-1@", ""), "{name}");
        }
        fs::write(git.join("description"), text).unwrap();
        assert!(
            search(dir.path(), &[login("me", "s3cret-1")], None)
                .unwrap_err()
                .to_string()
                .contains("src/x/.git/description")
        );
        // A secret that is not a URL's login stays, so the run ends.
        fs::remove_file(git.join("description")).unwrap();
        fs::write(git.join("config"), "x = s3cret-1").unwrap();
        let later = SystemTime::now() + std::time::Duration::from_secs(9);
        search(dir.path(), &[login("me", "s3cret-1")], Some(later)).unwrap();
        assert!(search(dir.path(), &[login("me", "s3cret-1")], None).is_err());
    }
}
