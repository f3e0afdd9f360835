//! The store of ready environments.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::paths::absolute;
use crate::cli::{self, StoreAction};
use crate::error::{Error, Result};
use crate::http;
use crate::size::Size;

/// Default of `--size-limit`: enough for two large environments, the old and the new one, and a bound
/// for archives that unpack to more.
pub const SIZE_LIMIT: Size = Size(32 << 30);

/// Longest name of a repository (OCI distribution specification, "Pulling manifests").
const NAME: usize = 255;
/// The start of a registry's URL.
const OCI: &str = "oci://";
/// The names of Docker Hub, and the host of its API.
const HUB: ([&str; 2], &str) = (["docker.io", "index.docker.io"], "registry-1.docker.io");

/// The place of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    Directory(PathBuf),
    Registry(Registry),
}

/// A repository of an OCI registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// With the port, if there is one.
    pub host: String,
    pub repository: String,
    /// It is on this host: it may speak HTTP without TLS.
    pub is_here: bool,
}

/// Where ready environments are, and which of them to use.
#[derive(Debug, Clone)]
pub struct Store {
    pub at: Location,
    /// How long an entry is good whose requirements do not name every version.
    pub max_age: Duration,
    /// A private key for new entries.
    pub sign: Option<PathBuf>,
    /// The keys that must have signed an entry.
    pub verify: Option<PathBuf>,
    /// The most bytes of the store after a new entry.
    pub limit: Option<Size>,
    /// The most bytes of a restored environment.
    pub size_limit: Size,
    /// Fill the store, and publish nothing.
    pub only: bool,
}

/// The plan of `podstrap store`.
#[derive(Debug)]
pub struct Shelves {
    pub action: StoreAction,
    pub at: Location,
    /// Files with the login of a registry.
    pub auth: Vec<PathBuf>,
    pub ca_file: Option<PathBuf>,
    pub verify: Option<PathBuf>,
    pub limit: Option<Size>,
    pub json: bool,
}

impl Store {
    /// `None` without `--store`.
    ///
    /// # Errors
    /// Another flag needs it.
    pub(super) fn new(args: &cli::StoreFlags) -> Result<Option<Self>> {
        let Some(dir) = &args.store else {
            let needs = [
                ("--store-sign", args.sign.is_some()),
                ("--store-verify", args.verify.is_some()),
                ("--store-limit", args.limit.is_some()),
            ];
            return match needs.into_iter().find(|(_, given)| *given) {
                None => Ok(None),
                Some((flag, _)) => Err(Error::usage(format!("{flag} needs --store"))
                    .hint("give the store with --store: a directory, or oci://HOST/REPOSITORY")),
            };
        };
        let file = |flag: &str, file: &Option<PathBuf>| file.as_deref().map(|file| absolute(flag, file)).transpose();
        let at = Location::new(dir)?;
        if args.limit.is_some() {
            at.can_be_limited()?;
        }
        Ok(Some(Self {
            at,
            max_age: args.max_age,
            sign: file("--store-sign", &args.sign)?,
            verify: file("--store-verify", &args.verify)?,
            limit: args.limit,
            size_limit: SIZE_LIMIT,
            only: false,
        }))
    }
}

impl Shelves {
    pub fn new(args: cli::StoreArgs) -> Result<Self> {
        if args.action == StoreAction::Prune && args.limit.is_none() {
            return Err(Error::usage("podstrap store prune needs --store-limit")
                .hint("give the size that the store may have, such as --store-limit 10Gi"));
        }
        let at = Location::new(&args.store)?;
        if args.action == StoreAction::Prune {
            at.can_be_limited()?;
        }
        let file = |flag: &str, file: &PathBuf| absolute(flag, file);
        Ok(Self {
            action: args.action,
            at,
            auth: args.auth.iter().map(|path| file("--auth", path)).collect::<Result<_>>()?,
            ca_file: args.ca_file.as_ref().map(|path| file("--ca-file", path)).transpose()?,
            verify: args.verify.as_ref().map(|path| file("--store-verify", path)).transpose()?,
            limit: args.limit,
            json: args.format == cli::OutputFormat::Json,
        })
    }
}

impl Location {
    fn new(place: &Path) -> Result<Self> {
        let Some((scheme, rest)) = place.to_str().and_then(|text| text.split_once("://")) else {
            return absolute("--store", place).map(Self::Directory);
        };
        if scheme != "oci" {
            let scheme = if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) { scheme } else { "?" };
            return Err(Error::usage(format!("--store does not support {scheme}://"))
                .hint("give a directory that all Pods share, or oci://HOST/REPOSITORY for a registry"));
        }
        Registry::new(rest).map(Self::Registry)
    }

    fn can_be_limited(&self) -> Result<()> {
        match self {
            Self::Directory(_) => Ok(()),
            Self::Registry(registry) => {
                Err(Error::usage(format!("podstrap deletes nothing from the registry {registry}"))
                    .because("--store-limit and `podstrap store prune` are for directories")
                    .hint("set the registry's own rules for retention: delete tags that nobody pulled for some time"))
            }
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(dir) => dir.display().fmt(f),
            Self::Registry(registry) => registry.fmt(f),
        }
    }
}

impl Registry {
    /// From `HOST[:PORT]/REPOSITORY`.
    fn new(text: &str) -> Result<Self> {
        // The text may contain a password.
        let invalid = |why: &str| {
            Err(Error::usage("--store has no valid oci:// URL")
                .because(why.to_owned())
                .hint("write oci://HOST/REPOSITORY or oci://HOST:PORT/REPOSITORY, such as oci://ghcr.io/team/envs"))
        };
        if text.contains('@') {
            return invalid("it has an @: a login belongs into a file for --auth, and podstrap chooses tag and digest");
        }
        let Some((host, repository)) = text.split_once('/') else { return invalid("it has no repository") };
        let is_name = |part: &str| {
            let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            part.bytes().all(|byte| inside(byte) || b"._-".contains(&byte))
                && part.bytes().next().is_some_and(inside)
                && part.bytes().last().is_some_and(inside)
        };
        if !repository.split('/').all(is_name) || repository.len() > NAME {
            return invalid("a repository has lower-case letters, digits, and `/`, `.`, `_` or `-` between them");
        }
        let Some(url) = Url::parse(&format!("https://{host}/")).ok().filter(|url| url.path() == "/" && url.has_host())
        else {
            return invalid("it has no valid host");
        };
        let is_here = http::is_here(&url);
        let host = if HUB.0.contains(&host) { HUB.1 } else { host }.to_owned();
        Ok(Self { host, repository: repository.to_owned(), is_here })
    }
}

impl fmt::Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{OCI}{}/{}", self.host, self.repository)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::init::tests::{plan, refusal};

    #[test]
    fn flags_of_the_store_need_it() {
        assert!(plan(&[]).environment.store.is_none());
        let store = plan(&["--store", "/envs", "--store-limit", "2Gi"]).environment.store.unwrap();
        assert_eq!((store.at, store.limit), (Location::Directory("/envs".into()), Some(Size(2 << 30))));
        assert_eq!(store.max_age, Duration::from_hours(24));
        assert_eq!(store.size_limit, SIZE_LIMIT);
        let limited = plan(&["--store", "/envs", "--size-limit", "1Gi"]).environment.store.unwrap();
        assert_eq!(limited.size_limit, Size(1 << 30));
        for flag in ["--store-sign", "--store-verify"] {
            assert!(refusal(&[flag, "/key"]).contains(&format!("{flag} needs --store")));
        }
        assert!(refusal(&["--store-only"]).contains("--store-only needs --store"));
        assert!(refusal(&["--store", "s3://host/envs"]).contains("does not support s3://"));
        assert!(refusal(&["--store", "oci://host/envs", "--store-limit", "1Gi"]).contains("deletes nothing"));
        assert!(refusal(&["--store", "/envs", "--store-only", "--venv", "none"]).contains("--venv none"));
    }

    #[test]
    fn a_registry_has_a_host_and_a_repository() {
        for (text, shown, is_here) in [
            ("oci://ghcr.io/team/envs", "oci://ghcr.io/team/envs", false),
            ("oci://localhost:5000/a", "oci://localhost:5000/a", true),
            ("oci://127.8.0.1:5000/a/b_c.d-e", "oci://127.8.0.1:5000/a/b_c.d-e", true),
            ("oci://[::1]:5000/a", "oci://[::1]:5000/a", true),
            ("oci://docker.io/me/envs", "oci://registry-1.docker.io/me/envs", false),
        ] {
            let Location::Registry(registry) = Location::new(Path::new(text)).unwrap() else { panic!("{text}") };
            assert_eq!((registry.to_string().as_str(), registry.is_here), (shown, is_here));
        }
        for (text, why) in [
            ("oci://host", "no repository"),
            ("oci://host/", "a repository has"),
            ("oci://host/A", "a repository has"),
            ("oci://host/a:tag", "a repository has"),
            ("oci://host/a?b", "a repository has"),
            ("oci://host/../a", "a repository has"),
            ("oci:///a", "no valid host"),
            ("oci://host:x/a", "no valid host"),
            ("oci://user:s3cret@host/a", "a login belongs into"),
        ] {
            let error = Location::new(Path::new(text)).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("s3cret"), "{text}: {error}");
        }
    }
}
