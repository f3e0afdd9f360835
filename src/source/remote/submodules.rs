//! Reads `.gitmodules`: the addresses of a tree's submodules.
//!
//! libgit2 reads the file as configuration. The author of the file decides which servers podstrap contacts, so
//! an address must be one of a server: never a path, a program (`ext::`) or an option.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result, refuse_bare_login};
use crate::plan::{GitUrl, Ssh};
use crate::redact::RemoteUrl;
use crate::source::remote::config;

/// Its path in the repository.
pub(crate) const FILE: &str = ".gitmodules";

/// A submodule in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedModule {
    pub(crate) path: PathBuf,
    /// As written, relative or not.
    pub(crate) url: String,
}

/// Parses the file's `text`, by way of a file in `scratch`. Leaves out submodules with `update = none`, and
/// those without a path or a URL (gitmodules(5)).
pub(crate) fn read(text: &[u8], scratch: &Path) -> Result<Vec<NamedModule>> {
    #[derive(Default)]
    struct Section {
        name: String,
        path: Option<PathBuf>,
        url: Option<String>,
        none: bool,
    }
    let mut sections: Vec<Section> = Vec::new();
    for (name, value) in config::entries(FILE, text, scratch)? {
        let Some((name, key)) = name.strip_prefix("submodule.").and_then(|name| name.rsplit_once('.')) else {
            continue;
        };
        let at = sections.iter().position(|section| section.name == name).unwrap_or_else(|| {
            sections.push(Section { name: name.to_owned(), ..Section::default() });
            sections.len() - 1
        });
        let section = &mut sections[at];
        match key {
            "path" => section.path = Some(PathBuf::from(OsStr::from_bytes(&value))),
            "url" => section.url = Some(String::from_utf8_lossy(&value).into_owned()),
            "update" => section.none = value == b"none",
            _ => {}
        }
    }
    let whole = |section: Section| Some(NamedModule { path: section.path?, url: section.url? });
    Ok(sections.into_iter().filter(|section| !section.none).filter_map(whole).collect())
}

/// Resolves a URL of the file in the repository at `parent`.
///
/// # Errors
/// The URL is not one of a server. A repository on this machine (file://) may name its neighbours.
pub(crate) fn address(url: &str, parent: &GitUrl) -> Result<GitUrl> {
    let refused = |why: &str| {
        Error::source(format!("{FILE} names {:?}", shown(url)))
            .because(why)
            .hint("use a URL with https://, http:// or ssh://, or one relative to the repository's own (../other.git)")
    };
    refuse_bare_login(Kind::Source, &format!("{FILE} names"), url)?;
    if url.starts_with("./") || url.starts_with("../") {
        return beside(url, parent)
            .ok_or_else(|| refused(&format!("it points outside the server's paths, relative to {parent}")))?;
    }
    if let Some(ssh) = Ssh::from_scp(url).filter(|_| !url.contains("::")) {
        return ssh.map(GitUrl::Ssh).map_err(|error| refused(&error.told()));
    }
    let target: RemoteUrl = url.parse().map_err(|_| refused("it is not the URL of a server"))?;
    match target.url().scheme() {
        "https" | "http" => Ok(GitUrl::Url(target)),
        "ssh" | "git+ssh" | "ssh+git" => {
            Ssh::from_url(&target).map(GitUrl::Ssh).map_err(|error| refused(&error.told()))
        }
        "file" if parent.web().is_some_and(|parent| parent.url().scheme() == "file") => Ok(GitUrl::Url(target)),
        _ => Err(refused("it is not the URL of a server")),
    }
}

/// A foreign URL without the parts that may be secret: before an `@`, and after a `?`.
pub(crate) fn shown(url: &str) -> String {
    let (place, query) = url.split_once('?').map_or((url, ""), |(place, _)| (place, "?***"));
    let place = place.rsplit_once('@').map_or_else(|| place.to_owned(), |(_, place)| format!("***@{place}"));
    place + query
}

/// Resolves a relative URL. `None` if it points outside the server.
fn beside(url: &str, parent: &GitUrl) -> Option<Result<GitUrl>> {
    match parent {
        GitUrl::Url(parent) => {
            let mut target = parent.url().clone();
            target.set_query(None);
            target.set_path(&relative(parent.url().path(), url)?);
            Some(Ok(GitUrl::Url(RemoteUrl::at(target, parent.userinfo().cloned()))))
        }
        GitUrl::Ssh(parent) => Some(parent.at(&relative(parent.path(), url)?).map(GitUrl::Ssh)),
    }
}

/// Resolves `url` against `path`: each `../` removes a component, as in `git submodule`.
fn relative(path: &str, url: &str) -> Option<String> {
    let (mut base, mut rest) = (path.trim_end_matches('/'), url);
    loop {
        if let Some(after) = rest.strip_prefix("./") {
            rest = after;
        } else if let Some(after) = rest.strip_prefix("../") {
            // A path relative to a home has no slash before its first part.
            let parent = base.rfind('/').or((!base.is_empty()).then_some(0))?;
            base = &base[..parent];
            rest = after;
        } else {
            let slash = if base.is_empty() && !path.starts_with('/') { "" } else { "/" };
            return Some(format!("{base}{slash}{}", rest.trim_end_matches('/')));
        }
    }
}

/// For any file, podstrap contacts only servers, with the scheme in the file. A relative address stays on its
/// server.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for parent in ["https://host:8443/group/app.git?token=x", "me@host:group/app.git", "ssh://me@host/a/b.git"] {
        let parent: GitUrl = parent.parse().expect("it is an address");
        let Ok(address) = address(&text, &parent) else { continue };
        assert!(address.web().is_none_or(|url| matches!(url.url().scheme(), "https" | "http")), "{address}");
        if text.starts_with("./") || text.starts_with("../") {
            let origin = |address: &GitUrl| address.web().map(|url| url.url().origin());
            assert_eq!(origin(&address), origin(&parent));
            // A URL loses its tabs and line ends.
            let said = text.replace(char::is_control, "");
            assert!(!address.to_string().contains("token=x") || said.contains("token=x"));
        }
    }
    let scratch = std::env::temp_dir().join(format!("podstrap-fuzz-modules-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).expect("the temporary directory is writable");
    let _ = read(data, &scratch);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str, parent: &str) -> Result<String, String> {
        let address = address(url, &parent.parse().unwrap()).map_err(|error| error.to_string())?;
        let somebody = address.web().is_some_and(|url| url.userinfo().is_some());
        Ok(format!("{address}{}", if somebody { " as somebody" } else { "" }))
    }

    #[test]
    fn relative_addresses_are_beside_the_repository() {
        let parent = "https://me:s3cret@host/group/app.git/?token=x";
        for (url, wanted) in [
            ("../lib.git", "https://host/group/lib.git as somebody"),
            ("../../other/lib", "https://host/other/lib as somebody"),
            ("./lib.git", "https://host/group/app.git/lib.git as somebody"),
            (".././lib.git/", "https://host/group/lib.git as somebody"),
            ("https://other/lib.git", "https://other/lib.git"),
        ] {
            assert_eq!(of(url, parent).as_deref(), Ok(wanted), "{url}");
        }
        assert_eq!(of("../lib.git", "file:///srv/app.git").as_deref(), Ok("file:///srv/lib.git"));
        for (parent, url, wanted) in [
            ("git@host:group/app.git", "../lib.git", "git@host:group/lib.git"),
            ("git@host:app.git", "../lib.git", "git@host:lib.git"),
            ("host:/srv/app.git", "../../lib.git", "host:/lib.git"),
            ("[host:2222]:~ada/app.git", "../lib.git", "[host:2222]:~ada/lib.git"),
            ("ssh://me@host:2222/srv/a%20b.git", "../l b.git", "ssh://me@host:2222/srv/l%20b.git"),
            ("ssh://host/~ada/app.git", "../lib.git", "ssh://host/~ada/lib.git"),
            ("https://host/app.git", "git@other:lib.git", "git@other:lib.git"),
        ] {
            assert_eq!(of(url, parent).as_deref(), Ok(wanted), "{parent} {url}");
        }
        assert!(of("../../lib.git", "git@host:app.git").unwrap_err().contains("points outside the server's paths"));
    }

    #[test]
    fn addresses_that_are_none_of_a_server_are_refused() {
        let parent = "https://me:s3cret@host/app.git";
        for url in [
            "ext::sh -c id",
            "file:///etc",
            "/etc/app.git",
            "-uhost",
            "--upload-pack=id",
            "../../../x",
            "",
            "x",
            "ssh://-oProxyCommand=x/a",
            "me:s3cret@host/lib",
            "ftp://host/x?token=s3cret",
            "http:host/lib",
            "-x:a",
        ] {
            let error = of(url, parent).unwrap_err();
            assert!(error.contains(".gitmodules names") && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn the_file_is_read_as_configuration_and_includes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let read = |text: &str| read(text.as_bytes(), dir.path());
        let text = "[submodule \"a.b\"]\n\tpath = libs/a\n\turl = ../a.git # x\n[submodule \"c\"]\n\
            path=\"l i b\"\nurl=https://host/c\n[submodule \"none\"]\npath=n\nurl=n\nupdate=none\n[submodule \"half\"]\npath=h\n";
        let entry = |path: &str, url: &str| NamedModule { path: path.into(), url: url.into() };
        assert_eq!(read(text).unwrap(), [entry("libs/a", "../a.git"), entry("l i b", "https://host/c")]);
        for hostile in ["[include]\npath=/etc/passwd", "[a][ InClude]\npath = x", "[includeIf \"x\"]\npath=x"] {
            assert!(read(hostile).unwrap_err().to_string().contains("includes other files"), "{hostile}");
        }
        assert!(
            read("[submodule\npath").unwrap_err().to_string().contains("cannot read .gitmodules of the repository")
        );
    }
}
