//! Resolves a reference to a commit, with the remote's list of references. No I/O.
//!
//! A name is a full refname, a branch or a tag. 40 hexadecimal digits are a commit. No name means the remote's
//! HEAD. A name of both a branch and a tag is an error: podstrap does not guess.

use std::fmt::Display;

use git2::Oid;

use crate::error::{Error, Result};
use crate::source::remote::pktline::{FLUSH, Framer, Malformed, SECTION, packet, payload};

/// Number of names in a hint.
const LISTED: usize = 5;
/// The longest name of a reference: libgit2's limit (`GIT_REFNAME_MAX` in refs.h).
const NAME_MAX: usize = 1024;
/// The lowest Jaro-Winkler similarity of a suggested name.
const SIMILAR: f64 = 0.8;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ref {
    pub(crate) name: String,
    pub(crate) oid: Oid,
    /// The object that an annotated tag leads to.
    pub(crate) peeled: Option<Oid>,
}

/// The references of a remote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Refs {
    pub(crate) all: Vec<Ref>,
    /// The branch of HEAD, if the remote names it.
    pub(crate) head: Option<String>,
    /// Where the remote's own history is cut off, if it is.
    pub(crate) shallow: Vec<Oid>,
    /// The capabilities of the server, as sent; empty for a local repository.
    pub(crate) capabilities: String,
}

/// The object to fetch, and the commit to check out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    /// The object to request: a commit or an annotated tag.
    pub(crate) want: Oid,
    /// The commit that it peels to.
    pub(crate) commit: Oid,
    /// The full name; `None` for a bare commit.
    pub(crate) reference: Option<String>,
    /// Whether the remote advertises the object. It may refuse any other.
    pub(crate) advertised: bool,
    /// A branch or tag whose name looks like this commit.
    pub(crate) namesake: Option<String>,
}

/// Why an advertisement is unusable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the list of references is incomplete")]
    Truncated,
    #[error("the server says: {0}")]
    Refused(String),
    #[error("the repository uses {0} object names, which podstrap does not support")]
    ObjectFormat(String),
}

impl Refs {
    /// Parses the answer to `info/refs?service=git-upload-pack`, protocol version 0 or 1 (gitprotocol-http,
    /// "Smart Server Response").
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Unreadable> {
        let mut framer = Framer::default();
        framer.push(body);
        let mut refs = Self::default();
        let mut flushes = 0;
        while flushes < 2 {
            let Some(packet) = framer.next()? else { return Err(Unreadable::Truncated) };
            match payload(packet) {
                None => flushes += 1,
                Some(line) if flushes == 0 && line.starts_with(b"# service=") => {}
                Some(line) => refs.line(&String::from_utf8_lossy(line))?,
            }
        }
        Ok(refs)
    }

    /// The request for the references that [`choose`](Self::choose) needs for `reference` (gitprotocol-v2, "ls-refs").
    pub(crate) fn request(reference: Option<&str>) -> Vec<u8> {
        let prefixes = match reference {
            Some(name) if name.starts_with("refs/") => vec![name.to_owned()],
            Some(name) if name != "HEAD" => {
                ["refs/heads/", "refs/tags/", "refs/"].iter().map(|above| format!("{above}{name}")).collect()
            }
            _ => Vec::new(),
        };
        // HEAD shows whether the repository is empty.
        let prefixes = prefixes.iter().map(String::as_str).chain(["HEAD"]);
        let mut body = [packet(b"command=ls-refs\n").as_slice(), SECTION].concat();
        body.extend([packet(b"peel\n"), packet(b"symrefs\n")].concat());
        body.extend(prefixes.flat_map(|prefix| packet(format!("ref-prefix {prefix}\n").as_bytes())));
        body.extend(FLUSH);
        body
    }

    /// Parses the answer to [`request`](Self::request).
    pub(crate) fn parse_some(body: &[u8]) -> Result<Self, Unreadable> {
        let mut framer = Framer::default();
        framer.push(body);
        let mut refs = Self::default();
        loop {
            let Some(line) = framer.next()?.map(payload) else { return Err(Unreadable::Truncated) };
            let Some(line) = line else { return if framer.is_empty() { Ok(refs) } else { Err(Malformed.into()) } };
            let line = std::str::from_utf8(line).map_err(|_| Malformed)?;
            let mut words = line.trim_end_matches('\n').split(' ');
            let (Some(oid), Some(name)) = (words.next(), words.next()) else { return Err(Malformed.into()) };
            let oid = Oid::from_str(oid).ok().filter(|_| oid.len() == 40).ok_or(Malformed)?;
            let mut found = Ref { name: name.to_owned(), oid, peeled: None };
            for attribute in words {
                match attribute.split_once(':') {
                    Some(("peeled", oid)) => found.peeled = Some(Oid::from_str(oid).map_err(|_| Malformed)?),
                    Some(("symref-target", target)) if name == "HEAD" => refs.head = Some(target.to_owned()),
                    _ => {}
                }
            }
            if is_name(name) {
                refs.all.push(found);
            }
        }
    }

    fn line(&mut self, line: &str) -> Result<(), Unreadable> {
        let line = line.trim_end_matches('\n');
        let (line, capabilities) = line.split_once('\0').unwrap_or((line, ""));
        if let Some(message) = line.strip_prefix("ERR ") {
            return Err(Unreadable::Refused(message.to_owned()));
        }
        for word in capabilities.split(' ') {
            match word.split_once('=') {
                Some(("symref", target)) => self.head = target.strip_prefix("HEAD:").map(str::to_owned),
                Some(("object-format", format)) if format != "sha1" => {
                    return Err(Unreadable::ObjectFormat(format.to_owned()));
                }
                _ => {}
            }
        }
        if !capabilities.is_empty() {
            capabilities.clone_into(&mut self.capabilities);
        }
        if let Some(oid) = line.strip_prefix("shallow ") {
            self.shallow.push(Oid::from_str(oid).map_err(|_| Malformed)?);
            return Ok(());
        }
        let (Some(oid), Some(name)) = (line.get(..40), line.get(41..)) else {
            return if line.starts_with("version ") { Ok(()) } else { Err(Malformed.into()) };
        };
        let oid = Oid::from_str(oid).map_err(|_| Malformed)?;
        match (name, self.all.last_mut()) {
            // The placeholder of an empty list.
            ("capabilities^{}", _) => {}
            (peeled, Some(tag)) if peeled.strip_suffix("^{}") == Some(&tag.name) => tag.peeled = Some(oid),
            // No repository can have other names (git-check-ref-format): `..`, control characters.
            _ if is_name(name) => {
                self.all.push(Ref { name: name.to_owned(), oid, peeled: None });
            }
            _ => tracing::debug!("ignored a reference with an invalid name"),
        }
        Ok(())
    }

    /// Resolves `reference`. `url` is for the error message.
    pub(crate) fn choose(&self, reference: Option<&str>, url: &dyn Display) -> Result<Choice> {
        if self.all.is_empty() {
            return Err(Error::source(format!("{url} is an empty repository")).hint("push a commit to it first"));
        }
        match reference {
            None | Some("HEAD") => self.head(url),
            Some(name) if is_hex(name) && name.len() == 40 => self.commit(name, url),
            Some(name) => self.named(name, url),
        }
    }

    fn head(&self, url: &dyn Display) -> Result<Choice> {
        if let Some(head) = self.find("HEAD") {
            let name = self.head.as_ref().unwrap_or(&head.name);
            return Ok(head.chosen_as(name));
        }
        let target = self.head.as_deref().map(|name| format!(" ({name})")).unwrap_or_default();
        Err(Error::source(format!("HEAD of {url} names a branch without a commit{target}"))
            .hint(format!("choose a branch with --ref: {}", self.listed())))
    }

    fn commit(&self, name: &str, url: &dyn Display) -> Result<Choice> {
        let oid = Oid::from_str(name)
            .map_err(|error| Error::source(format!("cannot look up {name} in {url}")).because(error))?;
        // The object of an annotated tag is as good a name for its commit as the commit's own.
        let tip = self.all.iter().find(|tip| tip.oid == oid || tip.peeled == Some(oid));
        if let Some(tip) = tip {
            return Ok(Choice { reference: None, ..tip.chosen_as("") });
        }
        let namesake = ["refs/heads/", "refs/tags/"].iter().find_map(|at| self.find(&format!("{at}{name}")));
        let namesake = namesake.map(|found| found.name.clone());
        Ok(Choice { want: oid, commit: oid, reference: None, advertised: false, namesake })
    }

    fn named(&self, name: &str, url: &dyn Display) -> Result<Choice> {
        if name.starts_with("refs/") {
            return self.find(name).map(|found| found.chosen_as(name)).ok_or_else(|| self.unknown(name, url));
        }
        let (branch, tag) = (self.find(&format!("refs/heads/{name}")), self.find(&format!("refs/tags/{name}")));
        match (branch, tag) {
            (Some(branch), Some(tag)) => Err(Error::source(format!("{url} has a branch and a tag named {name}"))
                .hint(format!("choose one with --ref {} or --ref {}", branch.name, tag.name))),
            (Some(found), None) | (None, Some(found)) => Ok(found.chosen_as(&found.name)),
            (None, None) => match self.find(&format!("refs/{name}")) {
                Some(found) => Ok(found.chosen_as(&found.name)),
                None => Err(self.unknown(name, url)),
            },
        }
    }

    fn find(&self, name: &str) -> Option<&Ref> {
        self.all.iter().find(|found| found.name == name)
    }

    fn unknown(&self, name: &str, url: &dyn Display) -> Error {
        let error = Error::source(format!("{url} has no branch or tag {name}"));
        if is_hex(name) && (7..40).contains(&name.len()) {
            return error.hint("give all 40 digits of a commit: servers do not look up shortened ones");
        }
        // The prefix in a local clone.
        let name = name.strip_prefix("origin/").unwrap_or(name);
        let close = self
            .all
            .iter()
            .filter_map(|found| {
                found.name.strip_prefix("refs/heads/").or_else(|| found.name.strip_prefix("refs/tags/"))
            })
            .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
            .filter(|(likeness, _)| *likeness >= SIMILAR)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let error = match close {
            Some((_, candidate)) => error.hint(format!("did you mean {candidate}?")),
            None => error,
        };
        error.hint(format!("choose one of: {}", self.listed()))
    }

    /// The first few names: branches, then tags.
    fn listed(&self) -> String {
        let below = |prefix: &'static str| self.all.iter().filter_map(move |found| found.name.strip_prefix(prefix));
        let mut names: Vec<&str> = below("refs/heads/").collect();
        let tags: Vec<&str> = below("refs/tags/").filter(|tag| !names.contains(tag)).collect();
        names.extend(tags);
        let more = names.len().saturating_sub(LISTED);
        names.truncate(LISTED);
        let names = names.join(", ");
        if more == 0 { names } else { format!("{names} and {more} more") }
    }
}

impl Ref {
    fn chosen_as(&self, name: &str) -> Choice {
        Choice {
            want: self.oid,
            commit: self.peeled.unwrap_or(self.oid),
            reference: Some(name.to_owned()),
            advertised: true,
            namesake: None,
        }
    }
}

/// Whether a repository can have a reference of this name.
fn is_name(name: &str) -> bool {
    name.len() <= NAME_MAX && git2::Reference::is_valid_name(name)
}

fn is_hex(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Every name is valid in a repository, a choice is one of them, and no message contains a control character.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let printable = |text: String| assert!(!text.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{text:?}");
    let parsed = Refs::parse(data).or_else(|error| Refs::parse_some(data).map_err(|_| error));
    let refs = match parsed {
        Ok(refs) => refs,
        Err(error) => return printable(Error::source("x").because(error).to_string()),
    };
    assert!(refs.all.iter().all(|found| git2::Reference::is_valid_name(&found.name)));
    let names: Vec<&str> = refs.all.iter().map(|found| found.name.as_str()).collect();
    let short = names.iter().flat_map(|name| name.rsplitn(2, '/').take(1).chain(name.splitn(3, '/').nth(2)));
    for name in [None, Some("main"), Some("0123456")]
        .into_iter()
        .chain(names.iter().chain(&short.collect::<Vec<_>>()).map(|name| Some(*name)))
    {
        match refs.choose(name, &"URL") {
            Ok(choice) => {
                let tip = refs.all.iter().find(|found| found.oid == choice.want);
                assert!(tip.is_some() || !choice.advertised);
                assert!(
                    choice.reference.is_none_or(|chosen| names.contains(&chosen.as_str()) || refs.head == Some(chosen))
                );
            }
            Err(error) => printable(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    /// An advertisement of `lines` (`oid name`), as http-backend sends it.
    fn parse(capabilities: &str, lines: &[&str]) -> Result<Refs, Unreadable> {
        let mut body = [packet(b"# service=git-upload-pack\n"), b"0000".to_vec()].concat();
        for (i, line) in lines.iter().enumerate() {
            let capabilities = if i == 0 { format!("\0{capabilities}") } else { String::new() };
            body.extend(packet(format!("{line}{capabilities}\n").as_bytes()));
        }
        body.extend(b"0000");
        Refs::parse(&body)
    }

    fn refs(names: &[&str]) -> Refs {
        let lines: Vec<String> = names.iter().map(|name| format!("{A} {name}")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        parse("multi_ack symref=HEAD:refs/heads/trunk agent=git/2", &lines).unwrap()
    }

    fn chosen(refs: &Refs, name: Option<&str>) -> Option<String> {
        refs.choose(name, &"URL").unwrap().reference
    }

    fn refused(refs: &Refs, name: Option<&str>) -> String {
        refs.choose(name, &"URL").unwrap_err().to_string()
    }

    #[test]
    fn names_are_full_refnames_branches_or_tags() {
        let refs = refs(&["HEAD", "refs/heads/trunk", "refs/heads/f/x", "refs/tags/v1", "refs/pull/7/head"]);
        for (name, full) in [
            (None, "refs/heads/trunk"),
            (Some("HEAD"), "refs/heads/trunk"),
            (Some("trunk"), "refs/heads/trunk"),
            (Some("f/x"), "refs/heads/f/x"),
            (Some("v1"), "refs/tags/v1"),
            (Some("tags/v1"), "refs/tags/v1"),
            (Some("pull/7/head"), "refs/pull/7/head"),
            (Some("refs/pull/7/head"), "refs/pull/7/head"),
        ] {
            assert_eq!(chosen(&refs, name).as_deref(), Some(full));
        }
    }

    #[test]
    fn an_annotated_tag_is_asked_for_and_its_commit_is_meant() {
        let refs = parse("x", &[&format!("{A} refs/tags/v1"), &format!("{B} refs/tags/v1^{{}}")]).unwrap();
        let tag = refs.choose(Some("v1"), &"URL").unwrap();
        assert_eq!((tag.want.to_string().as_str(), tag.commit.to_string().as_str()), (A, B));
        let commit = refs.choose(Some(B), &"URL").unwrap();
        assert_eq!((commit.want.to_string().as_str(), commit.reference, commit.advertised), (A, None, true));
        assert!(!refs.choose(Some(&A.replace('a', "C")), &"URL").unwrap().advertised);
    }

    #[test]
    fn what_is_not_there_is_explained() {
        let some = refs(&["HEAD", "refs/heads/main", "refs/heads/dev", "refs/tags/dev"]);
        insta::assert_snapshot!(refused(&some, Some("mian")), @r"
        error: URL has no branch or tag mian
        hint: did you mean main?
        hint: choose one of: main, dev
        ");
        insta::assert_snapshot!(refused(&some, Some("refs/heads/no")), @r"
        error: URL has no branch or tag refs/heads/no
        hint: choose one of: main, dev
        ");
        insta::assert_snapshot!(refused(&some, Some("0123abc")), @r"
        error: URL has no branch or tag 0123abc
        hint: give all 40 digits of a commit: servers do not look up shortened ones
        ");
        insta::assert_snapshot!(refused(&some, Some("dev")), @r"
        error: URL has a branch and a tag named dev
        hint: choose one with --ref refs/heads/dev or --ref refs/tags/dev
        ");
        let many =
            refs(&["refs/heads/a", "refs/heads/b", "refs/heads/c", "refs/heads/d", "refs/heads/e", "refs/heads/f"]);
        insta::assert_snapshot!(refused(&many, None), @r"
        error: HEAD of URL names a branch without a commit (refs/heads/trunk)
        hint: choose a branch with --ref: a, b, c, d, e and 1 more
        ");
        let none = parse("x", &[&format!("{} capabilities^{{}}", Oid::ZERO_SHA1)]).unwrap();
        insta::assert_snapshot!(refused(&none, Some("main")), @r"
        error: URL is an empty repository
        hint: push a commit to it first
        ");
    }

    #[test]
    fn the_references_of_one_name_are_enough() {
        let line = |text: &str| packet(format!("{text}\n").as_bytes());
        let answer = |lines: &[String]| {
            let lines: Vec<u8> = lines.iter().flat_map(|text| line(text)).collect();
            Refs::parse_some(&[&lines, FLUSH].concat())
        };
        let tag = format!("{A} refs/tags/v1 peeled:{B}");
        let refs = answer(&[format!("{A} HEAD symref-target:refs/heads/trunk"), tag]).unwrap();
        assert_eq!(chosen(&refs, None).as_deref(), Some("refs/heads/trunk"));
        let choice = refs.choose(Some("v1"), &"URL").unwrap();
        assert_eq!((choice.want.to_string().as_str(), choice.commit.to_string().as_str()), (A, B));
        assert!(refs.choose(Some("trunk"), &"URL").is_err());
        assert!(answer(&[]).unwrap().all.is_empty());
        assert!(answer(&[format!("{A} refs/heads/a..b")]).unwrap().all.is_empty());
        for bad in [&b"<html>"[..], b"", b"0000x", b"0009ERR x", &line(&format!("{A}{A} HEAD")), &line(A)] {
            assert!(Refs::parse_some(&[bad, FLUSH][..=usize::from(!bad.is_empty())].concat()).is_err(), "{bad:?}");
        }
        let asked = |name| String::from_utf8(Refs::request(name)).unwrap();
        assert_eq!(asked(None), "0014command=ls-refs\n00010009peel\n000csymrefs\n0014ref-prefix HEAD\n0000");
        assert!(asked(Some("v1")).contains("ref-prefix refs/heads/v1\n001cref-prefix refs/tags/v1\n"));
    }

    #[test]
    fn an_advertisement_that_cannot_be_used_says_why() {
        assert!(matches!(Refs::parse(b"001e# service=git-upload-pack\n0000"), Err(Unreadable::Truncated)));
        assert!(matches!(Refs::parse(b"<html>"), Err(Unreadable::Malformed(_))));
        assert!(matches!(parse("", &["ERR go away"]), Err(Unreadable::Refused(text)) if text == "go away"));
        let sha256 = parse("object-format=sha256", &[&format!("{A}{} HEAD", &A[..24])]);
        assert!(matches!(sha256, Err(Unreadable::ObjectFormat(format)) if format == "sha256"));
    }
}
