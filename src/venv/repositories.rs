//! Git repositories among the requirements. An engine leaves their download to git, and explains no failure of it.
//!
//! podstrap asks for each repository as for the one of --repo: with the same logins and tries, and with the same errors.
//! A branch becomes its commit, so that both engines and every try install the same. The settings give the logins to
//! Git. If the image configures Git itself, podstrap leaves that to Git.

use std::collections::HashMap;

use super::requirements::{Flat, Requirement};
use super::settings::Settings;
use crate::error::{Error, Result};
use crate::files;
use crate::plan::{GitUrl, Ssh};
use crate::redact::RemoteUrl;
use crate::retry::Deadline;
use crate::source::Revision;

/// The characters of a shortened commit.
const SHORTENED: std::ops::Range<usize> = 7..40;

/// The parts of `git+URL@REVISION#FRAGMENT`.
struct Repository<'a> {
    url: GitUrl,
    /// Without `@REVISION`.
    place: &'a str,
    revision: Option<&'a str>,
    fragment: Option<&'a str>,
}

impl<'a> Repository<'a> {
    /// `None` for another kind of URL, and for a repository that podstrap cannot ask.
    fn new(text: &'a str) -> Option<Self> {
        let (text, fragment) = text.split_once('#').map_or((text, None), |(text, fragment)| (text, Some(fragment)));
        let address = text.strip_prefix("git+")?;
        let path = address.find("://").and_then(|at| Some(at + 3 + address[at + 3..].find('/')?))?;
        let (place, revision) = match address[path..].rfind('@').map(|at| path + at) {
            Some(at) => (&address[..at], Some(&address[at + 1..])),
            None => (address, None),
        };
        let url: RemoteUrl = place.parse().ok()?;
        let url = match url.url().scheme() {
            "http" | "https" => GitUrl::Url(url),
            "ssh" => GitUrl::Ssh(Ssh::from_url(&url).ok()?),
            _ => return None,
        };
        Some(Self { url, place, revision, fragment })
    }

    /// The text with a commit as its revision.
    fn at(&self, commit: &str) -> String {
        let fragment = self.fragment.map(|fragment| format!("#{fragment}")).unwrap_or_default();
        format!("git+{}@{commit}{fragment}", self.place)
    }

    /// Finds the revision.
    async fn ask(&self, settings: &Settings, deadline: Deadline) -> Result<Option<Revision>> {
        let wanted = self.revision.filter(|revision| !revision.is_empty());
        let found = settings.revision(self.url.clone(), wanted.map(str::to_owned), deadline).await;
        let short = wanted
            .is_some_and(|name| SHORTENED.contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match found {
            // Git finds a shortened commit after the download.
            Err(error) if short && !error.is_unreachable() => {
                settings.revision(self.url.clone(), None, deadline).await.map(|_| None)
            }
            found => found.map(Some),
        }
    }
}

/// Asks for all repositories over HTTP and SSH, and replaces branches by their commits.
///
/// # Errors
/// A server refuses a repository or has no such revision. Or there is no git.
pub(super) async fn resolve(
    flat: &mut Flat,
    packages: &mut [String],
    settings: &Settings,
    deadline: Deadline,
) -> Result<()> {
    let mut known: HashMap<String, Option<String>> = HashMap::new();
    for (requirement, at) in flat.requirements_mut() {
        let Some(url) = requirement.url().filter(|url| url.starts_with("git+")) else { continue };
        let place = format!("{at}: ");
        if let Some(pinned) = pinned(url, &place, settings, &mut known, deadline).await? {
            requirement.set_url(pinned);
        }
    }
    for package in packages {
        let Some(requirement) = Requirement::read(package) else { continue };
        let Some(url) = requirement.url().filter(|url| url.starts_with("git+")) else { continue };
        if let Some(pinned) = pinned(url, "", settings, &mut known, deadline).await? {
            *package = package.replacen(url, &pinned, 1);
        }
    }
    Ok(())
}

/// The URL with the commit of its branch. `None`: it stays.
async fn pinned(
    url: &str,
    place: &str,
    settings: &Settings,
    known: &mut HashMap<String, Option<String>>,
    deadline: Deadline,
) -> Result<Option<String>> {
    if let Some(found) = known.get(url) {
        return Ok(found.clone());
    }
    missing("git", url, place, settings)?;
    let Some(repository) = Repository::new(url) else { return Ok(None) };
    let ssh = matches!(repository.url, GitUrl::Ssh(_));
    if ssh {
        missing("ssh", url, place, settings)?;
    }
    let mut found = None;
    if !settings.git_has_own_logins(ssh)? {
        let asked = repository.ask(settings, deadline).await;
        let revision =
            asked.map_err(|error| if place.is_empty() { error } else { error.within(place.trim_end_matches(": ")) })?;
        // A tag stays, so that the same requirement of another package has the same URL.
        let branch =
            revision.filter(|found| found.reference.as_deref().is_some_and(|name| !name.starts_with("refs/tags/")));
        found = branch.map(|revision| repository.at(&revision.commit));
    }
    known.insert(url.to_owned(), found.clone());
    Ok(found)
}

/// The error of a missing program.
fn missing(program: &str, url: &str, place: &str, settings: &Settings) -> Result<()> {
    let other = program == "ssh" && settings.get("GIT_SSH_COMMAND").is_some();
    if other {
        return Ok(());
    }
    for dir in settings.path() {
        if files::metadata_if_allowed(&dir.join(program))?.is_some_and(|meta| meta.is_file()) {
            return Ok(());
        }
    }
    let package = if program == "ssh" { "openssh-client (Alpine: openssh-client-default)" } else { "git" };
    Err(Error::environment(format!("{place}this image has no {program}, which {} needs", crate::redact::clean(url)))
        .because(format!("found no {program} in PATH"))
        .hint(format!(
            "run podstrap in an image with {program}: Docker's python images have it, their slim and alpine variants \
             do not (install {package} there); or use a wheel or an archive of this package instead"
        )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_repository_are_found() {
        for (text, place, revision) in [
            ("git+https://host/x.git@v1#egg=x", "https://host/x.git", Some("v1")),
            ("git+https://u:p@host/x.git", "https://u:p@host/x.git", None),
            ("git+ssh://git@host.example/x.git@feature/y", "ssh://git@host.example/x.git", Some("feature/y")),
            ("git+ssh://git@host:22/x.git", "ssh://git@host:22/x.git", None),
        ] {
            let found = Repository::new(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((found.place, found.revision), (place, revision), "{text}");
            assert!(found.at("ab").starts_with(&format!("git+{place}@ab")), "{text}");
        }
        for text in ["https://host/x.whl", "hg+https://host/x", "git+file:///srv/x.git", "git+git@host:x.git"] {
            assert!(Repository::new(text).is_none(), "{text}");
        }
    }
}
