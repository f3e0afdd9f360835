//! Signatures of manifests, as `ssh-keygen -Y sign -n podstrap` makes them, and the file with allowed signers
//! (`ssh-keygen(1)`, "ALLOWED SIGNERS"; SSHSIG: `PROTOCOL.sshsig` of OpenSSH).

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use russh::keys::ssh_key::{LineEnding, PublicKey, SshSig};
use russh::keys::{HashAlg, PrivateKey};

use crate::error::{Error, Kind, Result};
use crate::files::{self, WRITTEN};

/// The namespace of the signatures. A signature for another purpose is not valid here.
const NAMESPACE: &str = "podstrap";

/// A private key.
pub(super) struct Signer {
    key: PrivateKey,
    file: PathBuf,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("file", &self.file).finish_non_exhaustive()
    }
}

/// The public keys that may sign.
#[derive(Debug)]
pub(super) struct AllowedSigners {
    keys: Vec<Allowed>,
    file: PathBuf,
}

#[derive(Debug)]
struct Allowed {
    principals: String,
    key: PublicKey,
    after: Option<SystemTime>,
    before: Option<SystemTime>,
}

impl Signer {
    /// # Errors
    /// Usage: the file is missing, or has no private key without a passphrase.
    pub(super) fn read(file: &Path) -> Result<Self> {
        let what = || format!("cannot use the key of --store-sign, {}", file.display());
        let hint = "give an Ed25519, ECDSA or RSA key without a passphrase (ssh-keygen -t ed25519 -N '')";
        let text = files::read_text(file, WRITTEN).map_err(|error| files::unreadable(Kind::Usage, what(), &error))?;
        let key = russh::keys::decode_secret_key(&text, None).map_err(|error| {
            // Other errors may quote the file.
            let why = match error {
                russh::keys::Error::KeyIsEncrypted => "the key has a passphrase, which nobody can type here",
                _ => "it is no private key in OpenSSH or PEM format",
            };
            Error::usage(what()).because(why).hint(hint)
        })?;
        Ok(Self { key, file: file.to_owned() })
    }

    /// The signature in PEM.
    pub(super) fn sign(&self, text: &[u8]) -> Result<String> {
        let signature = self.key.sign(NAMESPACE, HashAlg::Sha512, text).and_then(|found| found.to_pem(LineEnding::LF));
        signature.map_err(|error| {
            Error::usage(format!("cannot sign with the key of --store-sign, {}", self.file.display()))
                .because(error)
                .hint("give an Ed25519, ECDSA or RSA key")
        })
    }
}

impl AllowedSigners {
    /// # Errors
    /// Usage: the file is missing, invalid, or allows nobody.
    pub(super) fn read(file: &Path) -> Result<Self> {
        let what = || format!("cannot use the file of --store-verify, {}", file.display());
        let text = files::read_text(file, WRITTEN).map_err(|error| files::unreadable(Kind::Usage, what(), &error))?;
        let keys = parse(&text).map_err(|why| {
            Error::usage(what())
                .because(why)
                .hint("write lines as for ssh-keygen: ci@example.org namespaces=\"podstrap\" ssh-ed25519 AAAA…")
        })?;
        Ok(Self { keys, file: file.to_owned() })
    }

    /// The key of a signer, and no other.
    pub(super) fn only(signer: &Signer) -> Self {
        let key = signer.key.public_key().clone();
        let allowed = Allowed { principals: "--store-sign".to_owned(), key, after: None, before: None };
        Self { keys: vec![allowed], file: signer.file.clone() }
    }

    /// Verifies a signature, and returns the principals of its key.
    ///
    /// # Errors
    /// Volume: it is invalid, of an unknown key, or of a key that is not valid at this time.
    pub(super) fn verify(&self, text: &[u8], signature: &str, now: SystemTime) -> Result<&str> {
        let refused = |why: String| Error::volume("its signature is not valid").because(why);
        let signature =
            SshSig::from_pem(signature).map_err(|error| refused(format!("it is no SSH signature: {error}")))?;
        let allowed = self.keys.iter().filter(|allowed| allowed.key.key_data() == signature.public_key());
        let mut found = Err(refused(format!("{} does not have its key", self.file.display())));
        for allowed in allowed {
            if allowed.after.is_some_and(|after| now < after) || allowed.before.is_some_and(|before| now >= before) {
                found = Err(refused(format!("the key of {} is not valid at this time", allowed.principals)));
                continue;
            }
            allowed.key.verify(NAMESPACE, text, &signature).map_err(|error| refused(error.to_string()))?;
            return Ok(&allowed.principals);
        }
        found
    }
}

/// Parses the lines. Leaves out certificate authorities and keys for other namespaces.
fn parse(text: &str) -> Result<Vec<Allowed>, String> {
    let mut keys = Vec::new();
    let mut left_out = 0;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match of_line(line).map_err(|why| format!("line {}: {why}", number + 1))? {
            Some(allowed) => keys.push(allowed),
            None => left_out += 1,
        }
    }
    match (keys.is_empty(), left_out) {
        (false, _) => Ok(keys),
        (true, 0) => Err("it has no keys".to_owned()),
        (true, _) => Err("it has only certificate authorities, or keys for other namespaces".to_owned()),
    }
}

fn of_line(line: &str) -> Result<Option<Allowed>, String> {
    let (principals, rest) = word(line).ok_or("it has no key")?;
    let (mut after, mut before, mut usable) = (None, None, true);
    let mut rest = rest;
    // A key starts with its type, options come before it.
    let key = loop {
        if let Ok(key) = PublicKey::from_openssh(rest) {
            break key;
        }
        let (options, then) = word(rest).ok_or("it has no public key that podstrap can read")?;
        if then.is_empty() {
            return Err("it has no public key that podstrap can read".to_owned());
        }
        for option in split(options) {
            let (name, value) =
                option.split_once('=').map_or((option, ""), |(name, value)| (name, value.trim_matches('"')));
            match name.to_ascii_lowercase().as_str() {
                "namespaces" => usable &= matches(value, NAMESPACE),
                "valid-after" => after = Some(time(value)?),
                "valid-before" => before = Some(time(value)?),
                "cert-authority" => usable = false,
                _ => return Err(format!("the option {name} is unknown")),
            }
        }
        rest = then;
    };
    let principals = principals.trim_matches('"').to_owned();
    Ok(usable.then_some(Allowed { principals, key, after, before }))
}

/// The first word, which may contain quoted white space, and the rest.
fn word(text: &str) -> Option<(&str, &str)> {
    let mut quoted = false;
    let end = text.find(|c: char| {
        quoted ^= c == '"';
        !quoted && (c == ' ' || c == '\t')
    });
    let (word, rest) = text.split_at(end.unwrap_or(text.len()));
    (!word.is_empty()).then_some((word, rest.trim_start()))
}

/// Splits at commas outside quotes.
fn split(options: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    options.split(move |c: char| {
        quoted ^= c == '"';
        !quoted && c == ','
    })
}

/// Whether a list of patterns, with `*`, `?` and `!`, has this name.
fn matches(patterns: &str, name: &str) -> bool {
    let mut found = false;
    for pattern in patterns.split(',') {
        match pattern.strip_prefix('!') {
            Some(not) if glob(not.as_bytes(), name.as_bytes()) => return false,
            Some(_) => {}
            None => found |= glob(pattern.as_bytes(), name.as_bytes()),
        }
    }
    found
}

fn glob(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|at| glob(rest, &name[at..])),
        Some((c, rest)) => {
            name.split_first().is_some_and(|(first, name)| (*c == b'?' || c == first) && glob(rest, name))
        }
    }
}

/// `YYYYMMDD[Z]` or `YYYYMMDDHHMM[SS][Z]`. podstrap reads all of them as UTC.
fn time(text: &str) -> Result<SystemTime, String> {
    let digits = text.trim_end_matches('Z');
    let invalid = || format!("{text} is not a time such as 20270101 or 202701011200Z");
    if !matches!(digits.len(), 8 | 12 | 14) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(invalid());
    }
    let all = format!("{digits:0<14}");
    let rfc = format!("{}-{}-{}T{}:{}:{}Z", &all[..4], &all[4..6], &all[6..8], &all[8..10], &all[10..12], &all[12..14]);
    humantime::parse_rfc3339(&rfc).map_err(|_| invalid())
}

/// Any file is read or refused, and a read one allows keys.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(keys) = parse(text) {
        assert!(!keys.is_empty());
        let signers = AllowedSigners { keys, file: PathBuf::new() };
        assert!(signers.verify(data, text, SystemTime::now()).is_err(), "a text without a signature");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    #[test]
    fn lines_of_allowed_signers_are_read() {
        let usable = |line: &str| of_line(line).map(|found| found.is_some());
        for line in [
            format!("ci@example.org {KEY}"),
            format!("ci@example.org,other {KEY} a comment"),
            format!("\"a b\" namespaces=\"git,pod*\" {KEY}"),
            format!("* valid-after=\"20200101\",valid-before=\"209901010000Z\",namespaces=\"podstrap\" {KEY}"),
        ] {
            assert_eq!(usable(&line), Ok(true), "{line}");
        }
        for line in [
            format!("ci namespaces=\"git\" {KEY}"),
            format!("ci namespaces=\"!podstrap,*\" {KEY}"),
            format!("*.example.org cert-authority {KEY}"),
        ] {
            assert_eq!(usable(&line), Ok(false), "{line}");
        }
        for line in ["ci", "ci ssh-ed25519", "ci ssh-ed25519 AAAA", "ci ssh-rsa x y"] {
            assert!(usable(line).is_err(), "{line}");
        }
        assert!(usable(&format!("ci verify-required {KEY}")).is_err());
        assert!(usable(&format!("ci valid-before=\"soon\" {KEY}")).is_err());
        assert!(parse("# nothing\n\n").is_err());
        assert!(parse(&format!("ci namespaces=\"git\" {KEY}\n")).unwrap_err().contains("other namespaces"));
    }

    #[test]
    fn times_are_utc() {
        let hours = |text: &str| time(text).unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(hours("19700102"), 24 * 3600);
        assert_eq!(hours("197001020100Z"), 25 * 3600);
        assert_eq!(hours("19700102010203"), 25 * 3600 + 123);
        for text in ["", "1970", "19701301", "1970010a", "99999999999999"] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_signature_is_valid_for_its_text_key_and_time() {
        let key = |seed: u8| {
            let pair = russh::keys::ssh_key::private::Ed25519Keypair::from_seed(&[seed; 32]);
            PrivateKey::from(pair)
        };
        let signer = Signer { key: key(1), file: PathBuf::new() };
        let public = key(1).public_key().to_openssh().unwrap();
        let signers = |line: &str| AllowedSigners { keys: parse(line).unwrap(), file: "signers".into() };
        let signature = signer.sign(b"text").unwrap();
        let said = |line: &str, text: &[u8], signature: &str| {
            signers(line)
                .verify(text, signature, SystemTime::now())
                .map(str::to_owned)
                .map_err(|error| error.to_string())
        };
        assert_eq!(said(&format!("ci {public}"), b"text", &signature), Ok("ci".to_owned()));
        assert!(said(&format!("ci {public}"), b"texT", &signature).is_err());
        assert!(said(&format!("ci {public}"), b"text", "x").unwrap_err().contains("no SSH signature"));
        assert!(said(&format!("ci {KEY}"), b"text", &signature).unwrap_err().contains("does not have its key"));
        let past = format!("ci valid-before=\"20200101\" {public}");
        assert!(said(&past, b"text", &signature).unwrap_err().contains("not valid at this time"));
        // A second line of the same key counts too.
        assert_eq!(said(&format!("{past}\nci2 {public}"), b"text", &signature), Ok("ci2".to_owned()));
        // Signed for another purpose.
        let other = key(1).sign("git", HashAlg::Sha512, b"text").unwrap().to_pem(LineEnding::LF).unwrap();
        assert!(said(&format!("ci {public}"), b"text", &other).is_err());
    }
}
