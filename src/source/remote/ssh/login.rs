//! Logs in with a private key. The keys stay in this process: no agent, no program and no configuration of the
//! user takes part.

use std::path::PathBuf;
use std::sync::Arc;

use russh::MethodKind;
use russh::MethodSet;
use russh::client::AuthResult;
use russh::keys::ssh_key::Error as SshKeyError;
use russh::keys::ssh_key::encoding::Error as EncodingError;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg};

use crate::error::{Error, Result};
use crate::plan::Ssh;
use crate::retry::Deadline;
use crate::source::access::auth::{GIVE_KEYS, Keys};
use crate::source::remote::ssh::connection::{Connection, Heard, SAID_COLUMNS, connect, locked, lost, step};
use crate::source::remote::ssh::host_key::shown_as;

const USABLE: &str = "give an Ed25519, ECDSA or RSA key without a passphrase, in OpenSSH or PEM format, with --auth";

/// Number of lines of a server's text in an error.
const SAID_LINES: usize = 8;

/// Connects to a host with a known key, and logs in with one of the keys. If the server ends the connection
/// after a few keys, tries the others on a new one.
pub(super) async fn log_in(ssh: &Ssh, keys: &Keys, deadline: Deadline) -> Result<Connection> {
    let what = format!("cannot log in to {} as {}", ssh.known_as(), ssh.user);
    let (usable, mut refused) = readable(keys);
    for why in &refused {
        tracing::warn!("{why}");
    }
    if usable.is_empty() && !refused.is_empty() {
        let error = Error::source(what);
        return Err(refused.into_iter().fold(error, Error::because).hint(USABLE));
    }
    let mut at = 0;
    loop {
        let mut connection = connect(ssh, &what, keys, deadline).await?;
        let mut first = true;
        let accepts = loop {
            let next = usable.get(at);
            let tried = step(&what, deadline, offer(&mut connection, &ssh.user, next.map(|(_, key)| key))).await?;
            let (answer, accepts) = match tried {
                Ok(AuthResult::Success) => {
                    if let Some((file, key)) = next {
                        tracing::debug!("{} takes {} ({})", ssh.known_as(), file.display(), shown_as(key.public_key()));
                    }
                    return Ok(connection);
                }
                Ok(AuthResult::Failure { remaining_methods, partial_success: true }) => {
                    ("is not enough for", remaining_methods)
                }
                Ok(AuthResult::Failure { remaining_methods, .. }) => ("is refused by", remaining_methods),
                Err(error) if first || !connection.is_over() => return Err(lost(ssh, &what, error, &connection.heard)),
                Err(_) => ("", MethodSet::empty()),
            };
            // The connection ended without an answer. After other keys, this one gets its own answer on a new
            // connection. For the first key, the end is an answer if the server gave a reason.
            if connection.is_over() && accepts.is_empty() && !locked(&connection.heard).answered {
                if !first {
                    break None;
                }
                if locked(&connection.heard).farewell.is_none() {
                    return Err(lost(ssh, &what, russh::Error::Disconnect, &connection.heard));
                }
            }
            if let Some((file, key)) = next {
                let key = shown_as(key.public_key());
                refused.push(format!("{}: {key} {answer} the server", file.display()));
            }
            (at, first) = (at + 1, false);
            if at >= usable.len() || !accepts.contains(&MethodKind::PublicKey) {
                break Some(accepts);
            }
        };
        match accepts {
            Some(accepts) if at >= usable.len() || !accepts.is_empty() => {
                return Err(no_key(ssh, what, refused, keys, &accepts, &locked(&connection.heard)));
            }
            _ => {}
        }
    }
}

/// Offers a key; without one, asks for the accepted methods.
async fn offer(
    connection: &mut Connection,
    user: &str,
    key: Option<&Arc<PrivateKey>>,
) -> Result<AuthResult, russh::Error> {
    let Some(key) = key else { return connection.handle.authenticate_none(user).await };
    let hash = if matches!(key.algorithm(), Algorithm::Rsa { .. }) {
        // Without an announcement of the server, use the algorithm that all servers accept (RFC 8332, 3.3).
        connection.handle.best_supported_rsa_hash().await?.flatten().or(Some(HashAlg::Sha256))
    } else {
        None
    };
    connection.handle.authenticate_publickey(user, PrivateKeyWithHashAlg::new(Arc::clone(key), hash)).await
}

/// The error if no key opens the account.
fn no_key(ssh: &Ssh, what: String, refused: Vec<String>, keys: &Keys, accepts: &MethodSet, heard: &Heard) -> Error {
    let mut error = refused.into_iter().fold(Error::source(what), Error::because);
    if keys.private.is_empty() {
        error = error.because("no private key was given");
    }
    if !accepts.is_empty() {
        let accepts: Vec<&str> = accepts.iter().map(Into::into).collect();
        error = error.because(format!("the server accepts: {}", accepts.join(", ")));
    }
    if let Some(farewell) = &heard.farewell {
        error = error.because(format!("the server says: {farewell}"));
    }
    let banner = first_lines(heard.banner.as_bytes());
    if !banner.is_empty() {
        error = error.excerpt(banner);
    }
    if keys.private.is_empty() {
        return error.hint(GIVE_KEYS);
    }
    error.hint(format!(
        "register the public key of a key in --auth (ssh-keygen -y -f KEY prints it) for the user {}, or as a deploy \
         key of the repository",
        ssh.user
    ))
}

/// The usable keys, and the errors of the others.
fn readable(keys: &Keys) -> (Vec<(&PathBuf, Arc<PrivateKey>)>, Vec<String>) {
    let (mut usable, mut refused) = (Vec::new(), Vec::new());
    for (file, pem) in &keys.private {
        match private_key(pem.reveal()) {
            Ok(key) => usable.push((file, Arc::new(key))),
            Err(why) => refused.push(format!("{}: {why}", file.display())),
        }
    }
    (usable, refused)
}

/// Parses OpenSSH's own format, PKCS#8, PKCS#1 and SEC1, with any line endings.
fn private_key(pem: &str) -> Result<PrivateKey, String> {
    if pem.contains("ENCRYPTED") {
        return Err(PASSPHRASE.to_owned());
    }
    let lines: Vec<&str> = pem.trim_start_matches('\u{feff}').lines().map(str::trim).collect();
    let key = russh::keys::decode_secret_key(&lines.join("\n"), None).map_err(|error| match error {
        russh::keys::Error::KeyIsEncrypted => PASSPHRASE.to_owned(),
        // This error quotes bytes of the file.
        russh::keys::Error::SshKey(SshKeyError::Encoding(EncodingError::Label(_)))
        | russh::keys::Error::SshEncoding(EncodingError::Label(_)) => {
            "unreadable private key (unknown algorithm or cipher)".to_owned()
        }
        // The other errors quote nothing of it.
        error => format!("unreadable private key ({error})"),
    })?;
    match key.algorithm() {
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::Rsa { .. } => Ok(key),
        other => Err(format!("{other} keys are not supported")),
    }
}

const PASSPHRASE: &str = "the key has a passphrase, which nobody can type here: store it without one \
                          (ssh-keygen -p)";

/// The first lines of a server's text, without prefixes and frames.
pub(super) fn first_lines(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let lines = text.lines().map(|line| line.trim().trim_start_matches("remote:").trim());
    let told = lines.filter(|line| line.contains(char::is_alphanumeric)).take(SAID_LINES);
    told.map(|line| line.chars().take(SAID_COLUMNS).collect()).collect::<Vec<String>>().join("\n")
}

/// Any file is read or refused, and a refusal quotes nothing of it.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(data);
    let text = String::from_utf8_lossy(data).into_owned();
    let kinds = ["OPENSSH PRIVATE", "PRIVATE", "RSA PRIVATE", "EC PRIVATE"];
    let framed = kinds.map(|kind| format!("-----BEGIN {kind} KEY-----\n{body}\n-----END {kind} KEY-----\n"));
    for pem in framed.iter().chain([&text]) {
        let Err(why) = private_key(pem) else { continue };
        // A message that any other text gets as well quotes nothing, even if the file contains it.
        if private_key("x").is_err_and(|other| other == why) {
            continue;
        }
        assert!(body.len() < 16 || !why.contains(&body[..16]), "{why}");
        assert!(!why.contains('\n') && !pem.lines().any(|line| line.len() > 40 && why.contains(line)), "{why}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_key_is_not_quoted() {
        let body = "b3BlbnNzaC1rZXktdjEAAAAABEEKLS0tLVRFIEtFIEwgAAABAC0tVEUgS0UgTCAAAAEAAAAB";
        let pem = format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{body}\n-----END OPENSSH PRIVATE KEY-----\n");
        assert_eq!(private_key(&pem).unwrap_err(), "unreadable private key (unknown algorithm or cipher)");
    }
}
