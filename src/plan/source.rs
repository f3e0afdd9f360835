//! Where the tree comes from, and how much of it is wanted.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::paths::{TreePath, absolute, one_name};
use super::ssh::Ssh;
use crate::cli::{self, CheckoutArgs};
use crate::error::{Error, Result};
use crate::redact::RemoteUrl;

/// What the path of an archive's URL ends with. What the archive is, its first bytes tell.
const ARCHIVES: &[&str] = &[".tar.gz", ".tgz", ".tar", ".zip"];
/// Hexadecimal digits of a SHA-256.
const SHA256_DIGITS: usize = 64;

/// Where the tree comes from. `Display` shows it without secrets.
#[derive(Debug, Clone)]
pub struct Source {
    pub origin: Origin,
    /// This directory of it becomes the tree.
    pub subdir: Option<TreePath>,
    /// Files and directories with credentials, which are read anew for each try.
    pub auth: Vec<PathBuf>,
    /// A PEM file with CAs that are trusted besides the usual ones.
    pub ca_file: Option<PathBuf>,
    /// Whether Git LFS pointers may be published as they are.
    pub lfs_pointers: bool,
}

#[derive(Debug, Clone)]
pub enum Origin {
    Git(GitSource),
    Download(Download),
    /// A directory on this machine, copied as it is; or an archive or a file.
    Local(PathBuf, Unpack),
}

#[derive(Debug, Clone)]
pub struct GitSource {
    pub url: GitUrl,
    /// None: the remote's HEAD.
    pub reference: Option<String>,
    /// Commits of history; 0 for all.
    pub depth: u32,
    pub submodules: Submodules,
    /// Whether the tree gets a `.git`.
    pub keep_git: bool,
}

/// How deep submodules are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Submodules {
    Off,
    /// The repository's own.
    Shallow,
    /// Theirs as well.
    Recursive,
}

impl From<cli::Submodules> for Submodules {
    fn from(typed: cli::Submodules) -> Self {
        match typed {
            cli::Submodules::Off => Self::Off,
            cli::Submodules::Shallow => Self::Shallow,
            cli::Submodules::Recursive => Self::Recursive,
        }
    }
}

/// Where a repository is. `Display` shows no secret of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GitUrl {
    /// Over HTTP, or a `file://`.
    Url(RemoteUrl),
    Ssh(Ssh),
}

impl GitUrl {
    /// The URL, if there is a login for it: SSH has keys.
    pub fn web(&self) -> Option<&RemoteUrl> {
        match self {
            Self::Url(url) => Some(url),
            Self::Ssh(_) => None,
        }
    }
}

impl FromStr for GitUrl {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        if let Some(ssh) = Ssh::from_scp(text) {
            return ssh.map(Self::Ssh);
        }
        let url = parsed(text)?;
        match url.url().scheme() {
            "http" | "https" | "file" => Ok(Self::Url(url)),
            "ssh" | "git+ssh" | "ssh+git" => Ssh::from_url(&url).map(Self::Ssh),
            other => Err(Error::usage(format!("--repo {}: the scheme {other}: is not supported", shown(text)))
                .hint("use https://, http://, ssh://, file:// or a local directory")),
        }
    }
}

impl fmt::Display for GitUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => url.fmt(f),
            Self::Ssh(ssh) => ssh.fmt(f),
        }
    }
}

/// A file on a web server: an archive, or a file of the tree.
#[derive(Debug, Clone)]
pub struct Download {
    pub url: RemoteUrl,
    /// What it must be, in lower-case digits.
    pub sha256: Option<String>,
    pub unpack: Unpack,
}

/// How a file becomes a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unpack {
    /// How many leading components of an archive's paths are dropped.
    pub strip: usize,
    /// It is the tree's only file, and this is its name.
    pub file: Option<String>,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Git(git) => git.url.fmt(f),
            Origin::Download(download) => download.url.fmt(f),
            Origin::Local(path, _) => path.display().fmt(f),
        }
    }
}

impl Source {
    /// A directory as it is.
    pub fn directory(path: PathBuf) -> Self {
        let origin = Origin::Local(path, Unpack::default());
        Self { origin, subdir: None, auth: Vec::new(), ca_file: None, lfs_pointers: false }
    }

    pub fn new(repo: &str, args: CheckoutArgs) -> Result<Self> {
        if repo.is_empty() {
            return Err(Error::usage("--repo is empty").hint("give a URL or a directory"));
        }
        let subdir = args.subdir.as_deref().filter(|path| *path != Path::new(".")).map(subdir).transpose()?;
        let source = Self {
            subdir,
            auth: args.auth.iter().map(|path| absolute("--auth", path)).collect::<Result<_>>()?,
            ca_file: args.ca_file.as_deref().map(|path| absolute("--ca-file", path)).transpose()?,
            lfs_pointers: args.allow_lfs_pointers,
            origin: Origin::new(repo, args)?,
        };
        source.check()
    }

    /// Refuses what would be ignored.
    fn check(self) -> Result<Self> {
        let clash = |flag: &str, why: &str| Err(Error::usage(format!("{flag} does not go with {self}")).hint(why));
        match &self.origin {
            Origin::Git(git) if git.keep_git && self.subdir.is_some() => {
                clash("--keep-git --subdir", "a .git is of the whole repository: drop one of the two")
            }
            Origin::Download(Download { unpack, .. }) | Origin::Local(_, unpack)
                if unpack.file.is_some() && (unpack.strip > 0 || self.subdir.is_some()) =>
            {
                clash("--file", "it is for a single file: drop --strip-components and --subdir")
            }
            _ => Ok(self),
        }
    }

    /// Whether the tree gets a `.git`.
    pub fn keeps_git(&self) -> bool {
        matches!(&self.origin, Origin::Git(git) if git.keep_git)
    }

    /// How much of it is taken, and how: with the source and its revision, all that decides the tree.
    pub fn shape(&self) -> Shape {
        let subdir = self.subdir.as_ref().map(|path| path.as_path().to_owned());
        let shape = Shape { lfs_pointers: self.lfs_pointers, subdir, ..Shape::default() };
        match &self.origin {
            Origin::Git(git) => {
                Shape { submodules: Some(git.submodules), git_depth: git.keep_git.then_some(git.depth), ..shape }
            }
            Origin::Download(Download { unpack, .. }) | Origin::Local(_, unpack) => {
                Shape { strip_components: unpack.strip, file: unpack.file.clone(), ..shape }
            }
        }
    }
}

/// How much of a source is taken, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Shape {
    /// Git LFS pointers may be in it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lfs_pointers: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subdir: Option<PathBuf>,
    /// Of a repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submodules: Option<Submodules>,
    /// Of a tree with a `.git`: how many commits that has, 0 for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub git_depth: Option<u32>,
    /// Of an archive.
    #[serde(skip_serializing_if = "is_zero")]
    pub strip_components: usize,
    /// Of a single file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Origin {
    fn new(repo: &str, args: CheckoutArgs) -> Result<Self> {
        let unpack = Unpack { strip: args.strip_components, file: args.file.clone().map(file_name).transpose()? };
        let ssh = Ssh::from_scp(repo).is_some();
        if !repo.contains("://") && !ssh {
            only_git(&args, &repo, &format!("for a commit of its repository use file://{repo}"))?;
            return Ok(Self::Local(absolute("--repo", Path::new(repo))?, unpack));
        }
        let web = if ssh { None } else { Some(parsed(repo)?) };
        if let Some(url) = web {
            let archive = is_archive(Path::new(url.url().path()));
            let scheme = url.url().scheme();
            if matches!(scheme, "http" | "https")
                && (archive || unpack.file.is_some() || url.url().fragment().is_some())
            {
                only_git(&args, &url, "that is for Git repositories; which version it is, its URL and #sha256= say")?;
                let sha256 = url.url().fragment().map(|fragment| pin(fragment, &url)).transpose()?;
                return Ok(Self::Download(Download { url: url.without_fragment(), sha256, unpack }));
            }
            if scheme == "file" && url.url().fragment().is_some() {
                return Err(Error::usage(format!("--repo {url}: what stands behind # is for downloads"))
                    .hint("a file of this machine is published as it is; write %23 for a # in its name"));
            }
            if scheme == "file" && archive {
                only_git(&args, &url, "that is for Git repositories")?;
                let path = url.url().to_file_path();
                let path = path.map_err(|()| Error::usage(format!("--repo {url} names no path on this machine")))?;
                return Ok(Self::Local(path, unpack));
            }
        }
        let url: GitUrl = repo.parse()?;
        if unpack != Unpack::default() {
            return Err(Error::usage(format!("--strip-components and --file do not go with the Git repository {url}"))
                .hint("they are for archives and files; for a part of a repository use --subdir"));
        }
        Ok(Self::Git(GitSource {
            url,
            reference: args.reference,
            depth: args.depth,
            submodules: args.submodules.into(),
            keep_git: args.keep_git,
        }))
    }
}

fn parsed(repo: &str) -> Result<RemoteUrl> {
    repo.parse().map_err(|error| Error::usage(format!("--repo {} is no URL", shown(repo))).because(format!("{error}")))
}

/// Whether a path is named like an archive.
pub fn is_archive(path: &Path) -> bool {
    let name = path.as_os_str().as_encoded_bytes().to_ascii_lowercase();
    ARCHIVES.iter().any(|end| name.ends_with(end.as_bytes()))
}

/// Refuses what only a repository has.
fn only_git(args: &CheckoutArgs, what: &dyn fmt::Display, hint: &str) -> Result<()> {
    let flag = match args {
        CheckoutArgs { reference: Some(_), .. } => "--ref",
        CheckoutArgs { keep_git: true, .. } => "--keep-git",
        _ => return Ok(()),
    };
    Err(Error::usage(format!("{flag} does not go with {what}, which is no Git repository")).hint(hint))
}

/// The digits behind `#sha256=`.
fn pin(fragment: &str, url: &RemoteUrl) -> Result<String> {
    let digits = fragment.strip_prefix("sha256=").map(str::to_ascii_lowercase);
    digits
        .filter(|digits| digits.len() == SHA256_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .ok_or_else(|| {
            Error::usage(format!("--repo {url}: what stands behind # is no pin"))
                .hint("write #sha256= and the 64 digits that sha256sum prints")
        })
}

fn subdir(path: &Path) -> Result<TreePath> {
    TreePath::new(path).ok_or_else(|| {
        Error::usage(format!("--subdir {} is not inside the source", path.display()))
            .hint("give a path relative to the source's top, without ..")
    })
}

fn file_name(name: String) -> Result<String> {
    one_name("--file", name, "give the name that the file gets at the top of the tree, without a slash")
}

/// What may be an address: where https:// was forgotten, or stands behind it, a token is before the host.
fn shown(repo: &str) -> String {
    repo.rsplit_once('@').map_or_else(|| repo.to_owned(), |(_, place)| format!("***@{place}"))
}

/// An address reads the same when it is shown, and no refusal shows a password.
#[cfg(fuzzing)]
pub fn fuzz(text: &str) {
    use crate::cli::{Cli, Command};
    let said = text.replace(char::is_control, "").contains("s3cretX");
    let cli = Cli::try_parse(["podstrap", "init", "--repo", "x", "--root", "/x"].map(Into::into)).expect("a command");
    let Command::Init(args) = cli.command else { unreachable!("it is init") };
    for repo in [text.to_owned(), format!("https://me:s3cretX@{text}"), format!("me:s3cretX@{text}")] {
        match Source::new(&repo, args.checkout.clone()) {
            Ok(source) => {
                assert!(!format!("{source} {source:?} {:?}", source.shape()).contains("s3cretX") || said, "{repo}");
                match source.origin {
                    Origin::Git(git) => {
                        let web = git.url.web().map(|url| url.url().scheme());
                        assert!(web.is_none_or(|scheme| matches!(scheme, "http" | "https" | "file")));
                    }
                    Origin::Download(Download { url, sha256, .. }) => {
                        assert!(matches!(url.url().scheme(), "http" | "https") && url.url().fragment().is_none());
                        assert!(sha256.is_none_or(|digits| digits.len() == SHA256_DIGITS));
                    }
                    Origin::Local(path, _) => assert!(path.is_absolute()),
                }
            }
            Err(error) => assert!(!error.to_string().contains("s3cretX") || said, "{error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};

    fn source(repo: &str, flags: &[&str]) -> Result<Source> {
        let line = ["podstrap", "init", "--root", "/vol", "--repo", repo];
        let cli = Cli::try_parse(line.iter().chain(flags).map(Into::into)).unwrap();
        let Command::Init(args) = cli.command else { panic!("{cli:?}") };
        Source::new(repo, args.checkout)
    }

    fn refusal(repo: &str, flags: &[&str]) -> String {
        source(repo, flags).unwrap_err().to_string()
    }

    #[test]
    fn a_repository_a_download_and_a_directory_are_told_apart() {
        for git in ["https://host/app.git", "http://host/discord.py", "file:///srv/app.git", "https://host/x.php"] {
            assert!(matches!(source(git, &[]).unwrap().origin, Origin::Git(_)), "{git}");
        }
        for ssh in ["git@host:app.git", "ssh://git@host/app.git", "[::1]:app.git", "host:app.tar.gz"] {
            let Origin::Git(git) = source(ssh, &[]).unwrap().origin else { panic!("{ssh}") };
            assert!(matches!(git.url, GitUrl::Ssh(_)), "{ssh}");
        }
        for local in ["./here", "/srv/app.tar.gz", "file:///srv/app.zip"] {
            assert!(matches!(source(local, &[]).unwrap().origin, Origin::Local(..)), "{local}");
        }
        for archive in ["https://host/a.tar.gz", "https://host/a.TGZ?token=x", "http://host/a.zip"] {
            assert!(matches!(source(archive, &[]).unwrap().origin, Origin::Download(_)), "{archive}");
        }
        let file = source("https://host/adminer-4.7.2.php", &["--file", "adminer.php"]).unwrap();
        let Origin::Download(file) = file.origin else { panic!("{file:?}") };
        assert_eq!((file.unpack.file.as_deref(), file.sha256), (Some("adminer.php"), None));
        let pinned = source(&format!("https://host/a.php#sha256={}", "AB".repeat(32)), &[]).unwrap();
        assert_eq!(pinned.to_string(), "https://host/a.php");
        let Origin::Download(pinned) = pinned.origin else { panic!("{pinned:?}") };
        assert_eq!(pinned.sha256, Some("ab".repeat(32)));
    }

    #[test]
    fn addresses_that_are_of_no_use_are_refused_without_their_passwords() {
        let error = refusal("me:s3cret@https://host/app.git", &[]);
        assert!(error.contains("the scheme me: is not supported") && !error.contains("s3cret"), "{error}");
        let error = refusal("me:s3cret@host/app.git", &[]);
        assert!(error.contains("looks like a password") && !error.contains("s3cret"), "{error}");
        assert!(refusal("ftp://host/x", &[]).contains("ftp"));
        assert!(!refusal("https://user:s3cret@/", &[]).contains("s3cret"));
        assert!(refusal("https://host/a.zip#sha256=12", &[]).contains("is no pin"));
        assert!(refusal("https://host/a.zip#md5=12", &[]).contains("is no pin"));
        for pinned in ["file:///srv/a.zip#sha256=12", "file:///srv/app.git#sha256=12"] {
            assert!(refusal(pinned, &[]).contains("what stands behind # is for downloads"), "{pinned}");
        }
    }

    #[test]
    fn flags_that_would_be_ignored_are_refused() {
        assert!(refusal("https://host/a.zip", &["--ref", "main"]).contains("--ref does not go with"));
        assert!(refusal("./here", &["--keep-git"]).contains("--keep-git does not go with"));
        assert!(refusal("https://host/a.git", &["--strip-components", "1"]).contains("--strip-components"));
        assert!(refusal("https://host/a.git", &["--keep-git", "--subdir", "x"]).contains("--subdir"));
        assert!(refusal("https://host/a", &["--file", "a", "--subdir", "x"]).contains("--file does not go with"));
        assert!(refusal("https://host/a", &["--file", "a/b"]).contains("no usable name"));
        assert!(refusal("https://host/a.git", &["--subdir", "../x"]).contains("is not inside the source"));
        assert_eq!(source("https://host/a.git", &["--subdir", "."]).unwrap().subdir, None);
    }
}
