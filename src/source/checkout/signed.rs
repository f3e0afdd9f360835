//! Verifies the SSH signature of a commit, or of the annotated tag that names it (git-config, `gpg.ssh.allowedSignersFile`).

use std::time::{Duration, SystemTime};

use git2::ObjectType;

use crate::error::{Error, Result};
use crate::signature::{AllowedSigners, SignedBy};
use crate::source::objects::{Objects, field, tag, time};
use crate::source::remote::refs::Choice;

/// The headers of a commit or a tag with a signature, for each object format (gitformat-signature).
const HEADERS: [&[u8]; 2] = [b"gpgsig ", b"gpgsig-sha256 "];
const SSH: &[u8] = b"-----BEGIN SSH SIGNATURE-----";
/// Other signatures that Git makes.
const OTHERS: [(&[u8], &str); 3] = [
    (b"-----BEGIN PGP SIGNATURE-----", "OpenPGP"),
    (b"-----BEGIN PGP MESSAGE-----", "OpenPGP"),
    (b"-----BEGIN SIGNED MESSAGE-----", "X.509"),
];
const HINT: &str = "choose a commit that an allowed signer made with `git -c gpg.format=ssh commit -S`, or add the signer \
                    to the file of --verify";

/// Verifies the chosen commit or its tag, and returns who signed.
pub(super) fn verify(objects: &Objects<'_>, choice: &Choice, signers: &AllowedSigners) -> Result<SignedBy> {
    let mut refusals = Vec::new();
    let mut at = choice.want;
    loop {
        let (contents, kind) = (objects.read(at)?, objects.header(at)?.1);
        let (what, next, found) = match kind {
            ObjectType::Tag => {
                let name = field(&contents, b"tag ").unwrap_or_default();
                // A server may let any name lead to an older signed tag. Without a name, the hash chose it.
                let is_named = choice.reference.as_ref().is_none_or(|reference| {
                    reference.strip_prefix("refs/tags/").is_some_and(|wanted| wanted.as_bytes() == name)
                });
                let found = if is_named {
                    signature(tag_parts(&contents), field(&contents, b"tagger ").map(time), signers)
                } else {
                    Err("its signature does not count for another name".to_owned())
                };
                (format!("tag {}", String::from_utf8_lossy(name)), tag(&contents), found)
            }
            ObjectType::Commit => {
                let seconds = field(&contents, b"committer ").map(time);
                (format!("commit {at}"), None, signature(commit_parts(&contents), seconds, signers))
            }
            // The checkout refuses it.
            _ => break,
        };
        match found {
            Ok(signer) => return Ok(signer),
            Err(why) => refusals.push(format!("{what}: {why}")),
        }
        let Some(next) = next else { break };
        at = next;
    }
    let error = Error::source(format!("{}: --verify requires a valid SSH signature", objects.what));
    Err(refusals.into_iter().fold(error, |error, why| error.because(crate::redact::clean(&why))).hint(HINT))
}

/// What was signed, and the signatures in it.
type Parts = (Vec<u8>, Vec<Vec<u8>>);

/// A commit has its signature in a header, with a space before each further line.
fn commit_parts(contents: &[u8]) -> Parts {
    let (mut signed, mut signatures, mut is_inside, mut is_header) = (Vec::new(), Vec::new(), false, true);
    for line in contents.split_inclusive(|byte| *byte == b'\n') {
        is_header &= line != b"\n";
        let header = HEADERS.iter().position(|name| is_header && line.starts_with(name));
        is_inside = header.is_some() || is_inside && is_header && line.starts_with(b" ");
        match header {
            Some(0) => signatures.push(line[HEADERS[0].len()..].to_owned()),
            Some(_) => signatures.push(Vec::new()),
            None if is_inside => {
                if let Some(signature) = signatures.last_mut().filter(|signature| !signature.is_empty()) {
                    signature.extend_from_slice(&line[1..]);
                }
            }
            None => signed.extend_from_slice(line),
        }
    }
    signatures.retain(|signature| !signature.is_empty());
    (signed, signatures)
}

/// A tag has its signature at its end.
fn tag_parts(contents: &[u8]) -> Parts {
    let (mut start, mut at) = (None, 0);
    for line in contents.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(SSH) || OTHERS.iter().any(|(begin, _)| line.starts_with(begin)) {
            start = Some(at);
        }
        at += line.len();
    }
    let (signed, signature) = contents.split_at(start.unwrap_or(contents.len()));
    (commit_parts(signed).0, if start.is_some() { vec![signature.to_owned()] } else { Vec::new() })
}

/// Verifies one signature, which was made at that time, in seconds since 1970.
fn signature((signed, signatures): Parts, at: Option<i64>, signers: &AllowedSigners) -> Result<SignedBy, String> {
    let [signature] = &signatures[..] else {
        return Err(if signatures.is_empty() { "it is not signed" } else { "it has several signatures" }.to_owned());
    };
    if let Some((_, name)) = OTHERS.iter().find(|(begin, _)| signature.starts_with(begin)) {
        return Err(format!("it has an {name} signature, which podstrap does not support"));
    }
    let at = at.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or_default();
    let text = std::str::from_utf8(signature).map_err(|_| "its signature is no text")?;
    signers.verify(&signed, text, SystemTime::UNIX_EPOCH + Duration::from_secs(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signed_text_has_no_signature() {
        let text = b"tree a\ngpgsig -----BEGIN\n x\n \n -----END\ncommitter b\n\nmessage\ngpgsig no\n";
        let (signed, signatures) = commit_parts(text);
        assert_eq!(signed, b"tree a\ncommitter b\n\nmessage\ngpgsig no\n");
        assert_eq!(signatures, [b"-----BEGIN\nx\n\n-----END\n".to_vec()]);
        let both = b"tree a\ngpgsig-sha256 x\n y\ngpgsig z\nmergetag m\n more\n\nt\n";
        assert_eq!(commit_parts(both), (b"tree a\nmergetag m\n more\n\nt\n".to_vec(), vec![b"z\n".to_vec()]));
        assert_eq!(commit_parts(b"gpgsig a\ngpgsig b\n\n").1.len(), 2);
        let tag = b"object a\ntag v1\n\nmessage\n-----BEGIN SSH SIGNATURE-----\nx\n";
        let (signed, signatures) = tag_parts(tag);
        assert_eq!(signed, b"object a\ntag v1\n\nmessage\n");
        assert_eq!(signatures, [b"-----BEGIN SSH SIGNATURE-----\nx\n".to_vec()]);
        assert_eq!(tag_parts(b"object a\n\nmessage\n").1, Vec::<Vec<u8>>::new());
    }
}
