//! Verifies a host by its key. podstrap always verifies host keys; nothing turns this off.

use std::path::PathBuf;

use russh::keys::{HashAlg, PublicKey};

use crate::error::Error;
use crate::plan::Ssh;
use crate::source::access::auth::GIVE_KEYS;
use crate::source::remote::ssh::known_hosts::{self, HostKeys, Verdict};

/// The error for the key that the host shows, if there is one. `known` has the entries of `files` for the host.
pub(super) fn refuse(ssh: &Ssh, known: &HostKeys, files: &[PathBuf], key: &PublicKey) -> Option<Error> {
    let (host, shown) = (ssh.known_as(), shown_as(key));
    let line = known_hosts::line_for(&host, key);
    let confirm = format!(
        "ask the host's administrator over another channel to confirm {}, then",
        key.fingerprint(HashAlg::Sha256)
    );
    match known.judge(key) {
        Verdict::Known => None,
        Verdict::Revoked(at) => Some(
            Error::source(format!("{host} shows a revoked key: somebody else may have it"))
                .because(format!("{at} revokes {shown}"))
                .hint("ask the host's administrator what happened, before you connect again"),
        ),
        Verdict::Changed(old, at) => Some(
            Error::source(format!("the key of {host} has changed: this may be an attack"))
                .because(format!("the host shows {shown}"))
                .because(format!("{at} has {}", shown_as(old)))
                .excerpt(line)
                .hint(format!("{confirm} replace the old line with the one above")),
        ),
        Verdict::Unknown => {
            let error = Error::source(format!("{host} is unknown, and podstrap always verifies host keys"))
                .because(format!("the host shows {shown}"));
            let error = match (files, &*known.types()) {
                ([], _) => error.because("no known_hosts file was given"),
                (files, []) => {
                    let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
                    error.because(format!("{} has no key of this host", files.join(", ")))
                }
                (_, types) => {
                    error.because(format!("known_hosts has only keys of type {} for this host", types.join(", ")))
                }
            };
            let error = match (known.authority(), known.unreadable()) {
                (Some(at), _) => error.because(format!("{at}: @cert-authority is not supported")),
                (None, Some(at)) => error.because(format!("{at} cannot be read")),
                (None, None) => error,
            };
            let place = if files.is_empty() { " to a known_hosts file" } else { " to the known_hosts file" };
            let error = error.excerpt(line).hint(format!("{confirm} add the line above{place}"));
            Some(if files.is_empty() { error.hint(GIVE_KEYS) } else { error })
        }
    }
}

/// `ssh-ed25519 SHA256:…`.
pub(super) fn shown_as(key: &PublicKey) -> String {
    format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256))
}
