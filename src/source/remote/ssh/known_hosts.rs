//! The keys that a host may show, from known_hosts files (sshd(8), `SSH_KNOWN_HOSTS FILE FORMAT`). The crate for
//! keys parses the lines. This module finds the lines of a host and judges its key. No I/O.

use std::path::PathBuf;

use ring::hmac;
use russh::keys::ssh_key::known_hosts::{Entry, HostPatterns, Marker};
use russh::keys::{Algorithm, PublicKey};

use crate::plan::SSH_PORT;

/// The entries of the files for one host.
#[derive(Debug, Default)]
pub(super) struct HostKeys {
    keys: Vec<Listed>,
    /// Keys that no host may show.
    revoked: Vec<Listed>,
    /// Lines with a CA for the host's keys, which podstrap does not support.
    authorities: Vec<Position>,
    /// Invalid lines.
    unreadable: Vec<Position>,
    /// The keys are those of the host's usual port, but the connection uses another one.
    elsewhere: bool,
}

#[derive(Debug)]
struct Listed {
    key: PublicKey,
    at: Position,
}

/// A line of a file: `known_hosts:3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    file: PathBuf,
    line: usize,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// The judgement of a key that a host shows.
#[derive(Debug)]
pub(super) enum Verdict<'a> {
    Known,
    Revoked(&'a Position),
    /// The files have another key of this type.
    Changed(&'a PublicKey, &'a Position),
    Unknown,
}

impl HostKeys {
    /// Reads the entries for a host and a port. If no file has the host with that port, the entries of the host
    /// without a port apply, as in ssh.
    pub(super) fn new(files: &[(PathBuf, Vec<u8>)], host: &str, port: u16) -> Self {
        let named = Self::read(files, &format!("[{host}]:{port}"));
        if port != SSH_PORT && !named.keys.is_empty() {
            return named;
        }
        let mut known = Self { elsewhere: port != SSH_PORT, ..Self::read(files, host) };
        known.revoked.extend(named.revoked);
        known.authorities.extend(named.authorities);
        known
    }

    fn read(files: &[(PathBuf, Vec<u8>)], name: &str) -> Self {
        let mut known = Self::default();
        for (file, text) in files {
            for (number, line) in String::from_utf8_lossy(text).lines().enumerate() {
                let at = Position { file: file.clone(), line: number + 1 };
                // Fields may have any white space between them; the crate expects one space.
                let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                let Ok(entry) = line.parse::<Entry>() else {
                    known.unreadable.push(at);
                    continue;
                };
                if !means(entry.host_patterns(), name) {
                    continue;
                }
                let key = entry.public_key().clone();
                match entry.marker() {
                    None => known.keys.push(Listed { key, at }),
                    Some(Marker::Revoked) => known.revoked.push(Listed { key, at }),
                    Some(Marker::CertAuthority) => known.authorities.push(at),
                }
            }
        }
        known
    }

    pub(super) fn judge(&self, shown: &PublicKey) -> Verdict<'_> {
        let same = |line: &&Listed| line.key.key_data() == shown.key_data();
        if let Some(line) = self.revoked.iter().find(same) {
            return Verdict::Revoked(&line.at);
        }
        if self.keys.iter().any(|line| same(&line)) {
            return Verdict::Known;
        }
        match self.keys.iter().find(|line| line.key.algorithm() == shown.algorithm()) {
            // Another port may be another server.
            Some(line) if !self.elsewhere => Verdict::Changed(&line.key, &line.at),
            _ => Verdict::Unknown,
        }
    }

    /// The key types to request, known ones first: a host with several keys shows the first that it can (as in
    /// ssh, `order_hostkeyalgs`).
    pub(super) fn order(&self, all: &[Algorithm]) -> Vec<Algorithm> {
        // The same key can sign with several algorithms.
        let known = |wanted: &Algorithm| {
            self.keys.iter().any(|line| match (line.key.algorithm(), wanted) {
                (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }) => true,
                (known, wanted) => known == *wanted,
            })
        };
        let (mut first, rest): (Vec<_>, Vec<_>) = all.iter().cloned().partition(known);
        first.extend(rest);
        first
    }

    /// The types of the known keys.
    pub(super) fn types(&self) -> Vec<String> {
        let mut types: Vec<String> = self.keys.iter().map(|line| line.key.algorithm().to_string()).collect();
        types.sort();
        types.dedup();
        types
    }

    /// The first line with a CA for the host.
    pub(super) fn authority(&self) -> Option<&Position> {
        self.authorities.first()
    }

    pub(super) fn unreadable(&self) -> Option<&Position> {
        self.unreadable.first()
    }
}

/// The line that makes a key known.
pub(super) fn line_for(name: &str, key: &PublicKey) -> String {
    let mut key = key.clone();
    key.set_comment("");
    format!("{name} {}", key.to_openssh().unwrap_or_default().trim_end())
}

/// Whether the names in a line match the host, given as `host` or `[host]:port`.
fn means(patterns: &HostPatterns, name: &str) -> bool {
    match patterns {
        HostPatterns::HashedName { salt, hash } => {
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
            hmac::verify(&key, name.as_bytes(), hash).is_ok()
        }
        HostPatterns::Patterns(patterns) => {
            let mut found = false;
            for pattern in patterns {
                let (pattern, not) = pattern.strip_prefix('!').map_or((pattern.as_str(), false), |rest| (rest, true));
                if like(pattern.to_lowercase().as_bytes(), name.as_bytes()) {
                    if not {
                        return false;
                    }
                    found = true;
                }
            }
            found
        }
    }
}

/// Matches a pattern: `*` for any characters, `?` for one. Takes at most the product of the two lengths.
fn like(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to continue if the text after the last star does not match: one character later.
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    (p, t) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// The line for a key makes it known to its host and to no other, whatever else the file contains, except a
/// revocation. A negation always wins. Sorting the types loses none.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB9dG4kjRhQTtWTVzd2t27+t0DEHBPW7iOD23TUiYLio";
    let Ok(key) = KEY.parse::<PublicKey>() else { unreachable!("it is a key") };
    let files = |text: &[u8]| vec![(PathBuf::from("known_hosts"), text.to_vec())];
    let Ok(text) = std::str::from_utf8(data) else {
        HostKeys::new(&files(data), "host", 22);
        return;
    };
    let all = [Algorithm::Ed25519, Algorithm::Rsa { hash: None }];
    for port in [22, 2222] {
        let before = HostKeys::new(&files(data), "host", port);
        let (mut ordered, mut wanted) = (before.order(&all), all.to_vec());
        ordered.sort();
        wanted.sort();
        assert_eq!(ordered, wanted);
        let name = if port == 22 { "host".to_owned() } else { format!("[host]:{port}") };
        let with = HostKeys::new(&files(format!("{}\n{text}", line_for(&name, &key)).as_bytes()), "host", port);
        assert!(matches!(with.judge(&key), Verdict::Known | Verdict::Revoked(_)));
    }
    let negated = format!("!host,{} {KEY}", text.split_whitespace().next().unwrap_or("*"));
    assert!(HostKeys::new(&files(negated.as_bytes()), "host", 22).keys.is_empty());
    let pattern = text.lines().next().unwrap_or_default();
    assert!(like(b"*", pattern.as_bytes()));
    if !pattern.contains(['*', '?']) {
        assert!(
            like(pattern.as_bytes(), pattern.as_bytes()) && !like(pattern.as_bytes(), format!("{pattern}x").as_bytes())
        );
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB9dG4kjRhQTtWTVzd2t27+t0DEHBPW7iOD23TUiYLio";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const ECDSA: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEmKSENjQEezOmxkZMy7opKgwFB9nkt5YRrYMjNuG5N87uRgg6CLrbo5wAdT/y6v0mKV0U2w0WZ2YB/++Tpockg=";

    fn known(text: &str, host: &str, port: u16) -> HostKeys {
        HostKeys::new(&[(PathBuf::from("known_hosts"), text.as_bytes().to_vec())], host, port)
    }

    fn judged(text: &str, host: &str, port: u16) -> String {
        let verdict = format!("{:?}", known(text, host, port).judge(&ED25519.parse().unwrap()));
        verdict.split(['(', ' ']).next().unwrap_or_default().to_owned()
    }

    #[test]
    fn the_lines_that_name_a_host_count() {
        for (names, host, port, wanted) in [
            ("host", "host", 22, "Known"),
            ("HOST", "host", 22, "Known"),
            ("a,host,b", "host", 22, "Known"),
            ("h?s*", "host", 22, "Known"),
            ("*,!host", "host", 22, "Unknown"),
            ("!host,*", "host", 22, "Unknown"),
            ("other", "host", 22, "Unknown"),
            ("host", "host.example", 22, "Unknown"),
            ("[host]:2222", "host", 2222, "Known"),
            ("[*]:2222", "host", 2222, "Known"),
            ("[host]:2222", "host", 22, "Unknown"),
            // As in ssh, an entry without a port applies to all ports.
            ("host", "host", 2222, "Known"),
            ("host", "other", 2222, "Unknown"),
            ("::1", "::1", 22, "Known"),
            ("[::1]:2222", "::1", 2222, "Known"),
        ] {
            assert_eq!(judged(&format!("{names} {ED25519} a comment\n"), host, port), wanted, "{names} {host}:{port}");
        }
        assert_eq!(judged(&format!("# host\n\n \t host\t{ED25519}\r\n"), "host", 22), "Known");
    }

    #[test]
    fn hashed_names_are_recognised() {
        // ssh-keygen -H made it of `host` and `[host]:2222`.
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"salt");
        let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        let hashed = |name: &str| {
            format!("|1|{}|{} {ED25519}", base64(b"salt"), base64(hmac::sign(&key, name.as_bytes()).as_ref()))
        };
        assert_eq!(judged(&hashed("host"), "host", 22), "Known");
        assert_eq!(judged(&hashed("[host]:2222"), "host", 2222), "Known");
        assert_eq!(judged(&hashed("[host]:2222"), "host", 22), "Unknown");
    }

    #[test]
    fn another_key_of_the_type_is_a_change_and_of_another_type_is_not() {
        assert_eq!(judged(&format!("host {OTHER}"), "host", 22), "Changed");
        assert_eq!(judged(&format!("host {OTHER}\nhost {ED25519}"), "host", 22), "Known");
        assert_eq!(judged(&format!("host {ECDSA}"), "host", 22), "Unknown");
        assert_eq!(judged(&format!("host {OTHER}"), "host", 2222), "Unknown");
        assert_eq!(judged(&format!("host {ED25519}\n@revoked * {ED25519}"), "host", 22), "Revoked");
        let authority = known(&format!("@cert-authority *.org {ED25519}\nnonsense\n"), "x.org", 22);
        assert_eq!(authority.authority().map(ToString::to_string).as_deref(), Some("known_hosts:1"));
        assert_eq!(authority.unreadable().map(ToString::to_string).as_deref(), Some("known_hosts:2"));
        assert!(matches!(authority.judge(&ED25519.parse().unwrap()), Verdict::Unknown));
    }

    #[test]
    fn the_types_that_are_known_are_asked_for_first() {
        let all = [Algorithm::Ed25519, Algorithm::Ecdsa { curve: russh::keys::EcdsaCurve::NistP256 }];
        assert_eq!(known(&format!("host {ECDSA}"), "host", 22).order(&all)[0], all[1]);
        assert_eq!(known("", "host", 22).order(&all), all);
    }

    #[test]
    fn a_line_that_is_offered_makes_the_key_known() {
        let line = line_for("[host]:2222", &ED25519.parse().unwrap());
        assert_eq!(line, format!("[host]:2222 {ED25519}"));
        assert_eq!(judged(&line, "host", 2222), "Known");
    }
}
