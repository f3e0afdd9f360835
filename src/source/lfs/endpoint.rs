//! `.lfsconfig`, and the address of a repository's LFS server (git-lfs, docs/api/server-discovery.md).
//!
//! The author of the file decides which server podstrap asks, as with `.gitmodules`. So the address must be one of a
//! server, and podstrap reads only the keys that change what a checkout contains.

use std::path::{Path, PathBuf};

use url::Url;

use crate::error::{Error, Kind, Result, refuse_bare_login};
use crate::plan::{GitUrl, Ssh};
use crate::redact::RemoteUrl;
use crate::source::access::web::target;
use crate::source::remote::{config, submodules::shown};

/// Its path in the repository.
pub(crate) const FILE: &str = ".lfsconfig";

/// The file, as far as podstrap uses it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Config {
    /// `lfs.url`, or else `remote.origin.lfsurl`.
    pub(crate) url: Option<String>,
    /// Patterns of paths: git-lfs fetches the contents of these only, if there are any.
    pub(crate) include: Vec<String>,
    /// And not of these.
    pub(crate) exclude: Vec<String>,
}

/// Who has the contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// The URL of the API.
    Web(RemoteUrl),
    /// A repository whose host gives the URL of the API.
    Ssh(Ssh),
    /// The directory of objects of a repository on this machine.
    Local(PathBuf),
}

/// Parses the file's `text`, by way of a file in `scratch`.
pub(crate) fn read(text: &[u8], scratch: &Path) -> Result<Config> {
    let (mut read, mut of_remote) = (Config::default(), None);
    for (name, value) in config::entries(FILE, text, scratch)? {
        let value = String::from_utf8_lossy(&value).into_owned();
        let patterns = || value.split(',').map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned).collect();
        // The last one of a name applies.
        match &*name {
            "lfs.url" => read.url = Some(value),
            "remote.origin.lfsurl" => of_remote = Some(value),
            "lfs.fetchinclude" => read.include = patterns(),
            "lfs.fetchexclude" => read.exclude = patterns(),
            _ => {}
        }
    }
    read.url = read.url.or(of_remote).filter(|url| !url.is_empty());
    Ok(read)
}

impl Endpoint {
    /// The server of the repository at `home`. `objects` are its own objects, if it is on this machine.
    pub(super) fn of(config: &Config, home: &GitUrl, objects: Option<&Path>) -> Result<Self> {
        match (&config.url, home, objects) {
            (Some(url), ..) => named(url, home),
            (None, GitUrl::Ssh(ssh), _) => Ok(Self::Ssh(ssh.clone())),
            (None, GitUrl::Url(_), Some(objects)) => Ok(Self::Local(objects.with_file_name("lfs").join("objects"))),
            (None, GitUrl::Url(url), None) => Ok(Self::Web(RemoteUrl::at(beside(url.url()), url.userinfo().cloned()))),
        }
    }
}

/// The server of a repository without `lfs.url`: `https://host/app` has `https://host/app.git/info/lfs`.
pub(super) fn beside(repository: &Url) -> Url {
    let path = repository.path().trim_end_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    let mut url = repository.clone();
    url.set_path(&format!("{path}.git/info/lfs"));
    url.set_fragment(None);
    url
}

/// The server that the file names.
fn named(url: &str, home: &GitUrl) -> Result<Endpoint> {
    const USE: &str = "use a URL with https:// or ssh:// as lfs.url, or --lfs off to publish the pointers";
    let refused = |why: &str| Error::source(format!("{FILE} names {:?} as lfs.url", shown(url))).because(why).hint(USE);
    refuse_bare_login(Kind::Source, &format!("{FILE} names"), url)?;
    if let Some(ssh) = Ssh::from_scp(url).filter(|_| !url.contains("::")) {
        return ssh.map(Endpoint::Ssh).map_err(|error| refused(&error.told()));
    }
    let parsed: RemoteUrl = url.parse().map_err(|_| refused("it is not the URL of a server"))?;
    match parsed.url().scheme() {
        "https" | "http" => {
            // The same rule as for a redirect: HTTPS does not lead to plain HTTP.
            let from = home.web().map(RemoteUrl::url).filter(|url| matches!(url.scheme(), "https" | "http"));
            if let Some(Ok(Err(why))) = from.map(|from| target(from, parsed.url().as_str())) {
                return Err(refused(&why.replace("the target", "it")));
            }
            Ok(Endpoint::Web(parsed.without_fragment()))
        }
        "ssh" | "git+ssh" | "ssh+git" => {
            Ssh::from_url(&parsed).map(Endpoint::Ssh).map_err(|error| refused(&error.told()))
        }
        "file" => Err(refused("podstrap does not support LFS servers in directories (file://)")),
        _ => Err(refused("it is not the URL of a server")),
    }
}

/// For any file, podstrap asks only servers, and over HTTPS if the repository is there over HTTPS.
#[cfg(fuzzing)]
pub(super) fn fuzz(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for (home, is_secure) in [("https://host/group/app.git?token=x", true), ("me@host:app.git", false)] {
        let home: GitUrl = home.parse().expect("it is an address");
        let config = Config { url: Some(text.clone().into_owned()), ..Config::default() };
        match Endpoint::of(&config, &home, None) {
            Ok(Endpoint::Web(url)) => {
                assert!(url.url().scheme() == "https" || !is_secure && url.url().scheme() == "http")
            }
            Ok(Endpoint::Ssh(_)) | Err(_) => {}
            Ok(Endpoint::Local(path)) => panic!("{}", path.display()),
        }
    }
    let scratch = std::env::temp_dir().join(format!("podstrap-fuzz-lfs-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).expect("the temporary directory is writable");
    let _ = read(data, &scratch);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: Option<&str>, home: &str) -> Result<String, String> {
        let config = Config { url: url.map(str::to_owned), ..Config::default() };
        match Endpoint::of(&config, &home.parse().unwrap(), None) {
            Ok(Endpoint::Web(url)) => {
                Ok(format!("{}{}", url.url(), if url.userinfo().is_some() { " as somebody" } else { "" }))
            }
            Ok(Endpoint::Ssh(ssh)) => Ok(format!("over SSH {ssh}")),
            Ok(Endpoint::Local(path)) => Ok(path.display().to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_server_is_beside_the_repository_or_where_the_file_says() {
        for (url, home, wanted) in [
            (None, "https://host/foo/bar", "https://host/foo/bar.git/info/lfs"),
            (None, "https://host/foo/bar.git/", "https://host/foo/bar.git/info/lfs"),
            (None, "https://me:pw@host:8443/a.git?t=x", "https://host:8443/a.git/info/lfs?t=x as somebody"),
            (None, "git@host:foo/bar.git", "over SSH git@host:foo/bar.git"),
            (Some("https://lfs.example/x"), "https://host/a.git", "https://lfs.example/x"),
            (Some("https://lfs.example/x"), "git@host:a.git", "https://lfs.example/x"),
            (Some("http://lfs.example/x"), "git@host:a.git", "http://lfs.example/x"),
            (Some("http://lfs.example/x"), "http://host/a.git", "http://lfs.example/x"),
            (Some("https://me:pw@lfs.example/x#y"), "http://host/a.git", "https://lfs.example/x as somebody"),
            (Some("git@other:foo.git"), "https://host/a.git", "over SSH git@other:foo.git"),
            (Some("ssh://git@other:2222/foo.git"), "https://host/a.git", "over SSH ssh://git@other:2222/foo.git"),
        ] {
            assert_eq!(of(url, home).as_deref(), Ok(wanted), "{url:?} {home}");
        }
        let objects = Path::new("/srv/app.git/objects");
        let local = Endpoint::of(&Config::default(), &"file:///srv/app.git".parse().unwrap(), Some(objects)).unwrap();
        assert_eq!(local, Endpoint::Local("/srv/app.git/lfs/objects".into()));
    }

    #[test]
    fn an_address_that_is_none_of_a_server_is_refused() {
        for (url, why) in [
            ("file:///srv/lfs", "does not support LFS servers in directories"),
            ("/srv/lfs", "it is not the URL of a server"),
            ("ext::sh -c id", "it is not the URL of a server"),
            ("ftp://host/x?token=s3cret", "it is not the URL of a server"),
            ("http://host/x?token=s3cret", "it does not use HTTPS"),
            ("ssh://-oProxyCommand=x/a", "cannot start with a hyphen"),
            ("me:s3cret@host/lfs", "looks like a password"),
        ] {
            let error = of(Some(url), "https://host/a.git").unwrap_err();
            assert!(error.contains(why) && !error.contains("s3cret"), "{url}: {error}");
        }
    }

    #[test]
    fn only_the_keys_of_a_checkout_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let read = |text: &str| read(text.as_bytes(), dir.path());
        let all = read(
            "[lfs]\n\turl = https://a\n\turl = https://b # c\n\tfetchexclude = *.psd, big/ ,\n\tlocksverify = true\n\
             [lfs \"customtransfer.x\"]\npath = /bin/sh\n[remote \"origin\"]\nlfsurl = https://c\n[core]\nsshCommand = id",
        );
        let exclude = vec!["*.psd".to_owned(), "big/".to_owned()];
        assert_eq!(all.unwrap(), Config { url: Some("https://b".into()), include: vec![], exclude });
        assert_eq!(read("[remote \"origin\"]\nlfsurl = https://c").unwrap().url.as_deref(), Some("https://c"));
        assert_eq!(read("[remote \"other\"]\nlfsurl = https://c\n[lfs]\nurl").unwrap(), Config::default());
        assert!(read("[include]\npath = x").unwrap_err().to_string().contains("includes other files"));
        let error = read("[lfs\nurl").unwrap_err().to_string();
        assert!(error.contains("cannot read .lfsconfig of the repository"), "{error}");
    }
}
