//! The source: a Git repository, a download or a local path, and the part of it to publish.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::paths::{TreePath, absolute, one_name};
use super::ssh::Ssh;
use crate::cli::{self, CheckoutArgs};
use crate::error::{Error, Kind, Result, refuse_bare_login};
use crate::formats::Format;
use crate::redact::RemoteUrl;

/// Number of hexadecimal digits in a SHA-256.
const SHA256_DIGITS: usize = 64;

/// The source of a tree. `Display` shows no secrets.
#[derive(Debug, Clone)]
pub struct Source {
    pub origin: Origin,
    /// The directory of the source that becomes the tree.
    pub subdir: Option<TreePath>,
    /// Files and directories with credentials. Each try reads them again.
    pub auth: Vec<PathBuf>,
    /// A PEM file of CAs to trust besides the usual ones.
    pub ca_file: Option<PathBuf>,
    /// Publish Git LFS pointer files instead of their contents.
    pub lfs_pointers: bool,
}

#[derive(Debug, Clone)]
pub enum Origin {
    Git(GitSource),
    Download(Download),
    /// A directory on this machine, copied unchanged; or an archive or a file.
    Local(PathBuf, Unpack),
}

#[derive(Debug, Clone)]
pub struct GitSource {
    pub url: GitUrl,
    /// `None` means the remote's HEAD.
    pub reference: Option<String>,
    /// Number of commits to fetch; 0 for the whole history.
    pub depth: u32,
    pub submodules: Submodules,
    /// Keep a `.git` in the tree.
    pub keep_git: bool,
    /// The keys of which one must have signed the commit, or the annotated tag that names it.
    pub verify: Option<PathBuf>,
}

/// The submodules to fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Submodules {
    Off,
    /// Direct ones.
    Shallow,
    /// Nested ones too.
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

/// The address of a Git repository. `Display` shows no secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GitUrl {
    /// `http://`, `https://` or `file://`.
    Url(RemoteUrl),
    Ssh(Ssh),
}

impl GitUrl {
    /// The URL, for a login by user and password. `None` for SSH, which uses keys.
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

/// A file on a web server: an archive, or a file for the tree.
#[derive(Debug, Clone)]
pub struct Download {
    pub url: RemoteUrl,
    /// The expected hash, in lower-case digits.
    pub sha256: Option<String>,
    pub unpack: Unpack,
}

/// How a file becomes a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unpack {
    /// Leading components to strip from the paths in an archive.
    pub strip: usize,
    /// The name for a single file, which becomes the whole tree.
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
    /// A local directory, copied unchanged.
    pub fn directory(path: PathBuf) -> Self {
        let origin = Origin::Local(path, Unpack::default());
        Self { origin, subdir: None, auth: Vec::new(), ca_file: None, lfs_pointers: false }
    }

    pub fn new(repo: &str, args: CheckoutArgs) -> Result<Self> {
        if repo.is_empty() {
            return Err(Error::usage("--repo is empty").hint("give a URL or a directory"));
        }
        if args.allow_lfs_pointers {
            return Err(Error::usage("--allow-lfs-pointers (PODSTRAP_ALLOW_LFS_POINTERS) has another name now")
                .hint("write --lfs off, or set PODSTRAP_LFS=off"));
        }
        let subdir = args.subdir.as_deref().filter(|path| *path != Path::new(".")).map(subdir).transpose()?;
        let source = Self {
            subdir,
            auth: args.auth.iter().map(|path| absolute("--auth", path)).collect::<Result<_>>()?,
            ca_file: args.ca_file.as_deref().map(|path| absolute("--ca-file", path)).transpose()?,
            lfs_pointers: args.lfs == cli::Lfs::Off,
            origin: Origin::new(repo, args)?,
        };
        source.check()
    }

    /// Refuses flags that would have no effect.
    fn check(self) -> Result<Self> {
        let clash = |what: &str, hint: &str| Err(Error::usage(what).hint(hint));
        match &self.origin {
            Origin::Git(git) if git.keep_git && self.subdir.is_some() => clash(
                "--keep-git cannot be used with --subdir",
                "remove one of the flags: a .git always has the whole repository",
            ),
            Origin::Download(Download { unpack, .. }) | Origin::Local(_, unpack)
                if unpack.file.is_some() && (unpack.strip > 0 || self.subdir.is_some()) =>
            {
                clash(
                    "--file cannot be used with --strip-components or --subdir",
                    "remove --strip-components and --subdir: --file publishes a single file",
                )
            }
            _ => Ok(self),
        }
    }

    /// Its URL, if it is on the web.
    pub fn home(&self) -> Option<RemoteUrl> {
        match &self.origin {
            Origin::Git(git) => git.url.web().cloned(),
            Origin::Download(download) => Some(download.url.clone()),
            Origin::Local(..) => None,
        }
    }

    /// Whether the tree keeps a `.git`.
    pub fn keeps_git(&self) -> bool {
        matches!(&self.origin, Origin::Git(git) if git.keep_git)
    }

    /// The options that, together with the source and its revision, determine the tree.
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

/// The part of a source to publish, and how to unpack it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Shape {
    /// The tree may contain Git LFS pointer files.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lfs_pointers: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subdir: Option<PathBuf>,
    /// Only for a repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submodules: Option<Submodules>,
    /// Only for a tree with a `.git`: its number of commits, 0 for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub git_depth: Option<u32>,
    /// Only for an archive.
    #[serde(skip_serializing_if = "is_zero")]
    pub strip_components: usize,
    /// Only for a single file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde needs a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Origin {
    fn new(repo: &str, args: CheckoutArgs) -> Result<Self> {
        refuse_bare_login(Kind::Usage, "--repo", repo)?;
        let unpack = Unpack { strip: args.strip_components, file: args.file.clone().map(file_name).transpose()? };
        let ssh = Ssh::from_scp(repo).is_some();
        if !repo.contains("://") && !ssh {
            only_git(&args, &repo, &format!("use file://{repo} for a commit of that repository"))?;
            return Ok(Self::Local(absolute("--repo", Path::new(repo))?, unpack));
        }
        let web = if ssh { None } else { Some(parsed(repo)?) };
        if let Some(url) = web {
            let archive = Format::of_name(Path::new(url.url().path())).is_some();
            let scheme = url.url().scheme();
            if matches!(scheme, "http" | "https")
                && (archive || unpack.file.is_some() || url.url().fragment().is_some())
            {
                only_git(&args, &url, "remove the flag, and select the version by the URL and #sha256=")?;
                let sha256 = url.url().fragment().map(|fragment| pin(fragment, &url)).transpose()?;
                return Ok(Self::Download(Download { url: url.without_fragment(), sha256, unpack }));
            }
            if scheme == "file" && url.url().fragment().is_some() {
                return Err(Error::usage(format!("--repo {url}: #sha256= works only with http:// and https://"))
                    .hint("remove #sha256=…, or write %23 for a # in the name"));
            }
            if scheme == "file" && archive {
                only_git(&args, &url, "remove the flag, which works only for Git repositories")?;
                let path = url.url().to_file_path();
                let path = path.map_err(|()| {
                    Error::usage(format!("--repo {url} is not a path on this machine"))
                        .hint("write file:///absolute/path")
                })?;
                return Ok(Self::Local(path, unpack));
            }
        }
        let url: GitUrl = repo.parse()?;
        if unpack != Unpack::default() {
            return Err(Error::usage(format!(
                "--strip-components and --file cannot be used with the Git repository {url}"
            ))
            .hint("use --subdir for a part of a repository; these two flags are for archives and files"));
        }
        Ok(Self::Git(GitSource {
            url,
            reference: args.reference,
            depth: args.depth,
            submodules: args.submodules.into(),
            keep_git: args.keep_git,
            verify: args.verify.as_deref().map(|path| absolute("--verify", path)).transpose()?,
        }))
    }
}

fn parsed(repo: &str) -> Result<RemoteUrl> {
    repo.parse().map_err(|error| {
        let error = Error::usage(format!("--repo {} is not a URL", shown(repo))).because(format!("{error}"));
        // The form of `git clone git@host:path` with ssh:// before it.
        let scp = repo.strip_prefix("ssh://").filter(|rest| Ssh::from_scp(rest).is_some());
        let error = match scp {
            Some(rest) => error.hint(format!("write {rest}, without ssh://, if that is the address for git clone")),
            None => error,
        };
        error.hint("write https://, http://, ssh://, git@host:path, file:///absolute/path, or a local path")
    })
}

/// Refuses flags that only Git repositories support.
fn only_git(args: &CheckoutArgs, what: &dyn fmt::Display, hint: &str) -> Result<()> {
    let flag = match args {
        CheckoutArgs { reference: Some(_), .. } => "--ref",
        CheckoutArgs { keep_git: true, .. } => "--keep-git",
        CheckoutArgs { verify: Some(_), .. } => "--verify",
        _ => return Ok(()),
    };
    Err(Error::usage(format!("{flag} cannot be used with {what}, which is not a Git repository")).hint(hint))
}

/// The digits after `#sha256=`.
fn pin(fragment: &str, url: &RemoteUrl) -> Result<String> {
    let digits = fragment.strip_prefix("sha256=").map(str::to_ascii_lowercase);
    digits
        .filter(|digits| digits.len() == SHA256_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .ok_or_else(|| {
            Error::usage(format!("--repo {url}: invalid pin after #"))
                .hint("write #sha256= followed by the 64 digits that sha256sum prints")
        })
}

fn subdir(path: &Path) -> Result<TreePath> {
    TreePath::new(path).ok_or_else(|| {
        Error::usage(format!("--subdir {} is not inside the source", path.display()))
            .hint("give a path relative to the top of the source, without ..")
    })
}

fn file_name(name: String) -> Result<String> {
    one_name("--file", name, "give the name of the file at the top of the tree, without a slash")
}

/// Hides the text before an `@`: it may be a token, even if https:// is missing or follows it.
fn shown(repo: &str) -> String {
    repo.rsplit_once('@').map_or_else(|| repo.to_owned(), |(_, place)| format!("***@{place}"))
}

/// An accepted address has a known scheme, and neither it nor an error shows a password.
#[cfg(fuzzing)]
pub fn fuzz(text: &str) {
    use crate::cli::{Cli, Command};
    let said = text.replace(char::is_control, "").contains("s3cretX");
    let cli = Cli::try_parse(["podstrap", "init", "--repo", "x", "--root", "/x"].map(Into::into)).expect("a command");
    let Command::Init(args) = cli.command else { unreachable!("it is init") };
    for repo in [text.to_owned(), format!("https://me:s3cretX@{text}"), format!("me:s3cretX@{text}")] {
        match Source::new(&repo, args.release.checkout.clone()) {
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
        Source::new(repo, args.release.checkout)
    }

    fn refusal(repo: &str, flags: &[&str]) -> String {
        source(repo, flags).unwrap_err().to_string()
    }

    #[test]
    fn an_address_for_scp_with_a_scheme_gets_a_hint() {
        let text = refusal("ssh://git@host:v3/org/project/repo", &[]);
        assert!(text.contains("hint: write git@host:v3/org/project/repo, without ssh://"), "{text}");
        assert!(!refusal("ssh://[x/y", &[]).contains("without ssh://"));
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
        for local in ["./here", "/srv/app.tar.gz", "file:///srv/app.zip", "file:///srv/app.tar.xz", "file:///srv/a.7z"]
        {
            assert!(matches!(source(local, &[]).unwrap().origin, Origin::Local(..)), "{local}");
        }
        for archive in [
            "https://host/a.tar.gz",
            "https://host/a.TGZ?token=x",
            "http://host/a.zip",
            "https://host/a.txz",
            "https://host/a.rar",
        ] {
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
        assert!(refusal("https://host/a.zip#sha256=12", &[]).contains("invalid pin after #"));
        assert!(refusal("https://host/a.zip#md5=12", &[]).contains("invalid pin after #"));
        for pinned in ["file:///srv/a.zip#sha256=12", "file:///srv/app.git#sha256=12"] {
            assert!(refusal(pinned, &[]).contains("#sha256= works only with http:// and https://"), "{pinned}");
        }
    }

    #[test]
    fn flags_that_would_be_ignored_are_refused() {
        assert!(refusal("https://host/a.zip", &["--ref", "main"]).contains("--ref cannot be used with"));
        assert!(refusal("./here", &["--keep-git"]).contains("--keep-git cannot be used with"));
        assert!(refusal("https://host/a.git", &["--strip-components", "1"]).contains("--strip-components"));
        assert!(refusal("https://host/a.git", &["--keep-git", "--subdir", "x"]).contains("--subdir"));
        assert!(refusal("https://host/a", &["--file", "a", "--subdir", "x"]).contains("--file cannot be used with"));
        assert!(refusal("https://host/a", &["--file", "a/b"]).contains("is not a valid name"));
        assert!(refusal("https://host/a.git", &["--subdir", "../x"]).contains("is not inside the source"));
        assert_eq!(source("https://host/a.git", &["--subdir", "."]).unwrap().subdir, None);
    }
}
