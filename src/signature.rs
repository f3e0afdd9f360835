//! SSH signatures, as `ssh-keygen -Y sign` and Git make them, and the file with allowed signers (`ssh-keygen(1)`, "ALLOWED
//! SIGNERS"; SSHSIG: `PROTOCOL.sshsig` of OpenSSH).

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use russh::keys::ssh_key::{Algorithm, LineEnding, PublicKey, SshSig};
use russh::keys::{HashAlg, PrivateKey};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::files::{self, WRITTEN};

/// What a signature is for. One for another purpose is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A commit or a tag.
    Git,
    /// An entry of the store.
    Store,
}

impl Purpose {
    fn namespace(self) -> &'static str {
        match self {
            Self::Git => "git",
            Self::Store => "podstrap",
        }
    }

    /// The flag for the file with allowed signers.
    fn flag(self) -> &'static str {
        match self {
            Self::Git => "--verify",
            Self::Store => "--store-verify",
        }
    }
}

/// A private key.
pub(crate) struct Signer {
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
pub(crate) struct AllowedSigners {
    keys: Vec<Allowed>,
    file: PathBuf,
    purpose: Purpose,
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
    pub(crate) fn read(file: &Path) -> Result<Self> {
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
    pub(crate) fn sign(&self, text: &[u8]) -> Result<String> {
        let signature = self
            .key
            .sign(Purpose::Store.namespace(), HashAlg::Sha512, text)
            .and_then(|found| found.to_pem(LineEnding::LF));
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
    pub(crate) fn read(file: &Path, purpose: Purpose) -> Result<Self> {
        let what = || format!("cannot use the file of {}, {}", purpose.flag(), file.display());
        let text = files::read_text(file, WRITTEN).map_err(|error| files::unreadable(Kind::Usage, what(), &error))?;
        let keys = parse(&text, purpose).map_err(|why| {
            let namespace = purpose.namespace();
            Error::usage(what()).because(why).hint(format!(
                "write lines as for ssh-keygen: ci@example.org namespaces=\"{namespace}\" ssh-ed25519 AAAA…"
            ))
        })?;
        Ok(Self { keys, file: file.to_owned(), purpose })
    }

    /// The key of a signer, and no other.
    pub(crate) fn only(signer: &Signer) -> Self {
        let key = signer.key.public_key().clone();
        let allowed = Allowed { principals: "--store-sign".to_owned(), key, after: None, before: None };
        Self { keys: vec![allowed], file: signer.file.clone(), purpose: Purpose::Store }
    }

    /// Verifies a signature that was made at the time `at`.
    ///
    /// # Errors
    /// Why it is not valid: it is of an unknown key, of a key that was not valid at that time, of
    /// another text, or uses SHA-1.
    pub(crate) fn verify(&self, text: &[u8], signature: &str, at: SystemTime) -> Result<SignedBy, String> {
        let signature = SshSig::from_pem(signature).map_err(|error| format!("it is no SSH signature: {error}"))?;
        // For RSA keys, PROTOCOL.sshsig allows only rsa-sha2-256 and rsa-sha2-512.
        if matches!(signature.signature().algorithm(), Algorithm::Rsa { hash: None }) {
            return Err("its algorithm is ssh-rsa with SHA-1; sign with a current ssh-keygen".to_owned());
        }
        let allowed = self.keys.iter().filter(|allowed| allowed.key.key_data() == signature.public_key());
        let mut found = Err(format!("{} does not have its key", self.file.display()));
        for allowed in allowed {
            if !allowed.is_valid(at) {
                found = Err(format!("the key of {} is not valid at this time", allowed.principals));
                continue;
            }
            let namespace = self.purpose.namespace();
            allowed.key.verify(namespace, text, &signature).map_err(|error| error.to_string())?;
            return Ok(allowed.signed_by(at));
        }
        found
    }

    /// Whether the file still allows what a signer signed.
    pub(crate) fn allow(&self, signer: &SignedBy) -> bool {
        let Some(at) = signer.at.and_then(|at| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(at))) else {
            return false;
        };
        self.keys.iter().any(|allowed| allowed.is_valid(at) && allowed.signed_by(at) == *signer)
    }
}

/// Who signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedBy {
    /// As in the file: `ci@example.org`.
    pub principals: String,
    /// `SHA256:nThbg6k…`
    pub key: String,
    /// When the key had to be valid, in seconds since 1970; `None` in the record of an older version.
    pub at: Option<u64>,
}

impl Allowed {
    fn is_valid(&self, at: SystemTime) -> bool {
        self.after.is_none_or(|after| after <= at) && self.before.is_none_or(|before| at < before)
    }

    fn signed_by(&self, at: SystemTime) -> SignedBy {
        SignedBy {
            principals: self.principals.clone(),
            key: self.key.fingerprint(HashAlg::Sha256).to_string(),
            at: at.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs()),
        }
    }
}

/// Parses the lines. Leaves out certificate authorities and keys for other namespaces.
fn parse(text: &str, purpose: Purpose) -> Result<Vec<Allowed>, String> {
    let mut keys = Vec::new();
    let mut left_out = 0;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match of_line(line, purpose).map_err(|why| format!("line {}: {why}", number + 1))? {
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

fn of_line(line: &str, purpose: Purpose) -> Result<Option<Allowed>, String> {
    let (principals, rest) = word(line).ok_or("it has no key")?;
    let principals = unquoted(principals).unwrap_or(principals);
    if principals.split(',').any(|pattern| pattern.is_empty() || pattern.starts_with(['!', '"'])) {
        return Err(format!("podstrap does not support the principals {principals:?}: empty, excluded or half quoted"));
    }
    // A key starts with its type. Options come before it, as one word.
    let (options, key) = if let Ok(key) = PublicKey::from_openssh(rest) {
        (None, key)
    } else {
        let unreadable = "it has no public key that podstrap can read";
        let (options, rest) = word(rest).ok_or(unreadable)?;
        (Some(options), PublicKey::from_openssh(rest).map_err(|_| unreadable)?)
    };
    let (mut namespaces, mut after, mut before, mut is_authority) = (None, None, None, false);
    for option in options.into_iter().flat_map(split) {
        let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, unquoted(value)));
        let is_twice = match (name.to_ascii_lowercase().as_str(), value) {
            ("namespaces", Some(value)) => namespaces.replace(value).is_some(),
            ("valid-after", Some(value)) => after.replace(time(value)?).is_some(),
            ("valid-before", Some(value)) => before.replace(time(value)?).is_some(),
            ("cert-authority", None) if option == name => std::mem::replace(&mut is_authority, true),
            ("namespaces" | "valid-after" | "valid-before", None) => {
                return Err(format!("the option {name} has no value in quotes"));
            }
            _ => return Err(format!("the option {option} is unknown")),
        };
        if is_twice {
            return Err(format!("the option {name} is there twice"));
        }
    }
    if after.zip(before).is_some_and(|(after, before)| before <= after) {
        return Err("valid-before is not later than valid-after".to_owned());
    }
    let usable = !is_authority && namespaces.is_none_or(|patterns| matches(patterns, purpose.namespace()));
    let principals = principals.to_owned();
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

fn unquoted(text: &str) -> Option<&str> {
    text.strip_prefix('"')?.strip_suffix('"').filter(|inner| !inner.contains('"'))
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
    let digits = text.strip_suffix('Z').unwrap_or(text);
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
    for purpose in [Purpose::Git, Purpose::Store] {
        let Ok(keys) = parse(text, purpose) else { continue };
        assert!(!keys.is_empty());
        let signers = AllowedSigners { keys, file: PathBuf::new(), purpose };
        assert!(signers.verify(data, text, SystemTime::now()).is_err(), "a text without a signature");
    }
}

#[cfg(test)]
mod tests {
    use russh::keys::ssh_key::Signature;

    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    #[test]
    fn lines_of_allowed_signers_are_read() {
        let usable = |line: &str| of_line(line, Purpose::Store).map(|found| found.is_some());
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
        for options in [
            "verify-required",
            "valid-before=\"soon\"",
            "valid-before=\"20300101ZZ\"",
            "valid-before=20300101",
            "valid-before=\"20200101\",valid-before=\"20300101\"",
            "namespaces=podstrap",
            "namespaces=\"podstrap",
            "namespaces",
            "namespaces=\"podstrap\",NAMESPACES=\"podstrap\"",
            "cert-authority=\"yes\"",
            "namespaces=\"podstrap\" valid-after=\"20200101\"",
            "valid-after=\"20300101\",valid-before=\"20200101\"",
        ] {
            assert!(usable(&format!("ci {options} {KEY}")).is_err(), "{options}");
        }
        for principals in ["\"\"", "!ci", "*,!*", "ci,", "\"ci"] {
            assert!(usable(&format!("{principals} {KEY}")).is_err(), "{principals}");
        }
        assert!(parse("# nothing\n\n", Purpose::Store).is_err());
        assert!(
            parse(&format!("ci namespaces=\"git\" {KEY}\n"), Purpose::Store).unwrap_err().contains("other namespaces")
        );
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
        let signers = |line: &str| AllowedSigners {
            keys: parse(line, Purpose::Store).unwrap(),
            file: "signers".into(),
            purpose: Purpose::Store,
        };
        let signature = signer.sign(b"text").unwrap();
        let said = |line: &str, text: &[u8], signature: &str| {
            signers(line).verify(text, signature, SystemTime::now()).map(|signer| signer.principals)
        };
        assert_eq!(said(&format!("ci {public}"), b"text", &signature), Ok("ci".to_owned()));
        assert!(said(&format!("ci {public}"), b"texT", &signature).is_err());
        assert!(said(&format!("ci {public}"), b"text", "x").unwrap_err().contains("no SSH signature"));
        assert!(said(&format!("ci {KEY}"), b"text", &signature).unwrap_err().contains("does not have its key"));
        let past = format!("ci valid-before=\"20200101\" {public}");
        assert!(said(&past, b"text", &signature).unwrap_err().contains("not valid at this time"));
        // A second line of the same key counts too.
        assert_eq!(said(&format!("{past}\nci2 {public}"), b"text", &signature), Ok("ci2".to_owned()));
        // What was signed before is asked again with the file of today.
        let signed = signers(&format!("ci {public}")).verify(b"text", &signature, SystemTime::now()).unwrap();
        for (line, allowed) in [
            (format!("ci {public}"), true),
            (format!("ci valid-after=\"20200101\" {public}"), true),
            (past, false),
            (format!("ci valid-after=\"29990101\" {public}"), false),
            (format!("other {public}"), false),
            (format!("ci {KEY}"), false),
        ] {
            assert_eq!(signers(&line).allow(&signed), allowed, "{line}");
        }
        assert!(!signers(&format!("ci {public}")).allow(&SignedBy { at: None, ..signed }));
        // RSA with SHA-1, whatever key it names.
        let made = SshSig::from_pem(&signature).unwrap();
        let sha1 = Signature::new(Algorithm::Rsa { hash: None }, vec![1; 256]).unwrap();
        let sha1 = SshSig::new(made.public_key().clone(), "podstrap", HashAlg::Sha512, sha1).unwrap();
        let sha1 = sha1.to_pem(LineEnding::LF).unwrap();
        assert!(said(&format!("ci {public}"), b"text", &sha1).unwrap_err().contains("ssh-rsa with SHA-1"));
        // Signed for another purpose.
        let other = key(1).sign("git", HashAlg::Sha512, b"text").unwrap().to_pem(LineEnding::LF).unwrap();
        assert!(said(&format!("ci {public}"), b"text", &other).is_err());
    }
}
