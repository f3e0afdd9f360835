//! What an installation would add, without installing: `init --dry-run`.

use std::path::PathBuf;

use reqwest::header::{CONTENT_LENGTH, LOCATION};
use serde::Serialize;
use tokio::task::JoinSet;
use url::Url;

use super::origin::{Archive, is_wheel, without_query};
use super::pyproject::normal;
use super::record::{Distribution, EnvironmentRecord};
use super::relocate::Destination;
use super::settings::Settings;
use crate::error::{Error, Result};
use crate::files;
use crate::http;
use crate::redact;
use crate::retry::Deadline;

/// Requests for the size of an archive at the same time.
const AT_ONCE: usize = 8;
/// Redirects to follow for one of them.
const REDIRECTS: usize = 5;

/// What an environment would take.
#[derive(Debug, Clone, Serialize)]
pub struct Forecast {
    /// Its path in the app's container.
    pub final_path: PathBuf,
    pub python: String,
    /// `uv 0.13.9`
    pub engine: String,
    /// What the store has, if podstrap would restore it from there.
    pub store: Option<String>,
    /// Bytes to download. `None`: the size of a package is unknown.
    pub download: Option<u64>,
    pub packages: Vec<Planned>,
}

/// A package that an installation would add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Planned {
    pub name: String,
    /// Unknown for a directory or a repository.
    pub version: Option<String>,
    /// Where it comes from, without credentials, if only one file fits.
    pub url: Option<String>,
    /// The size of the download: 0 for a directory, unknown for a repository.
    pub bytes: Option<u64>,
    /// It has no wheel for the app: the installation would build it.
    pub builds: Option<bool>,
}

impl Forecast {
    /// The environment comes from the store.
    pub(super) fn of_store(record: &EnvironmentRecord, store: String, bytes: u64) -> Self {
        let package = |package: &Distribution| Planned {
            name: package.name.clone(),
            version: Some(package.version.clone()),
            url: package.source.as_ref().map(|source| source.url.clone()),
            bytes: None,
            builds: Some(false),
        };
        Self {
            final_path: record.final_path.clone(),
            python: record.python.clone(),
            engine: record.engine.clone(),
            store: Some(store),
            download: Some(bytes),
            packages: record.packages.iter().map(package).collect(),
        }
    }
}

impl Planned {
    pub(super) fn requirement(&self) -> String {
        format!("{}=={}", self.name, self.version.as_deref().unwrap_or_default())
    }

    fn direct(name: &str, url: &str) -> Self {
        let path = Url::parse(url).ok().and_then(|url| path_of(&url));
        let is_directory = path.is_some_and(|path| files::is_dir(&path).unwrap_or_default());
        Self {
            name: name.to_owned(),
            version: None,
            url: Some(url.to_owned()),
            bytes: is_directory.then_some(0),
            builds: Some(!is_wheel(url)),
        }
    }

    /// Whether an archive is the one of this package.
    fn is_of(&self, archive: &Archive) -> bool {
        archive.name == normal(&self.name) && self.version.as_ref() == Some(&archive.version)
    }
}

/// The packages in the output of `uv pip install --dry-run` or `uv sync --dry-run`:
///
/// ```text
/// Would install 2 packages
///  + flask==3.1.3
///  + app @ file:///app
/// ```
///
/// # Errors
/// It has none, and does not say so.
pub(super) fn uv_plan(output: &str, engine: &str) -> Result<Vec<Planned>> {
    let mut planned = Vec::new();
    for line in output.lines().filter_map(|line| line.strip_prefix(" + ")) {
        // A package from a URL has it instead of the version, or after it.
        if let Some((name, url)) = line.split_once(" @ ") {
            planned.push(Planned::direct(name, url));
        } else if let Some((name, rest)) = line.split_once("==") {
            let (version, url) = rest.split_once(" (from ").unwrap_or((rest, ""));
            let version = Some(version.to_owned());
            planned.push(match url.strip_suffix(')') {
                Some(url) => Planned { version, ..Planned::direct(name, url) },
                None => Planned { name: name.to_owned(), version, url: None, bytes: None, builds: None },
            });
        }
    }
    if planned.is_empty() && !output.contains("Would make no changes") {
        return Err(Error::environment(format!("podstrap cannot read what {engine} would install"))
            .excerpt(output)
            .hint("use the version of uv that podstrap comes with, or --engine pip"));
    }
    Ok(planned)
}

/// The packages that pip reports.
pub(super) fn pip_plan(archives: Vec<Archive>) -> Vec<Planned> {
    let planned = |archive: Archive| {
        let version = Some(archive.version);
        Planned { version, name: archive.name, ..Planned::direct("", &archive.url) }
    };
    archives.into_iter().map(planned).collect()
}

/// Adds what the archives say about packages of an index. `fitting` are files that fit the app; `all` has files for
/// other Pythons and platforms, too.
pub(super) fn with_archives(planned: &mut [Planned], fitting: &[Archive], all: &[Archive]) {
    for planned in planned.iter_mut().filter(|planned| planned.url.is_none()) {
        let of = |archives: &[Archive]| -> Vec<Archive> {
            archives.iter().filter(|archive| planned.is_of(archive)).cloned().collect()
        };
        let mut found = of(fitting);
        if found.is_empty() {
            found = of(all);
            // Which wheel for which platform fits is unknown.
            if found.iter().any(|file| is_wheel(&file.url) && !without_query(&file.url).ends_with("-none-any.whl")) {
                continue;
            }
        }
        let (wheels, sources): (Vec<_>, Vec<_>) = found.into_iter().partition(|file| is_wheel(&file.url));
        let files = if wheels.is_empty() { &sources } else { &wheels };
        if files.is_empty() {
            continue;
        }
        planned.builds = Some(wheels.is_empty());
        // Of several wheels that fit, uv takes one.
        planned.bytes = files.iter().map(|file| file.size).max().flatten();
        if let [only] = &files[..] {
            planned.url = Some(only.url.clone());
        }
    }
}

/// Asks for the sizes that the index does not say, sorts the packages, and makes the URLs presentable: without secrets,
/// and with the public path of the tree.
pub(super) async fn complete(
    mut planned: Vec<Planned>,
    settings: &Settings,
    destination: &Destination,
    deadline: Deadline,
) -> Vec<Planned> {
    let mut asked = JoinSet::new();
    for at in 0..planned.len() {
        let Planned { url: Some(url), bytes: None, .. } = &planned[at] else { continue };
        let Ok(url) = Url::parse(url) else { continue };
        if asked.len() == AT_ONCE {
            take(asked.join_next().await, &mut planned);
        }
        let settings = settings.clone();
        asked.spawn(async move {
            if let Some(path) = path_of(&url) {
                let meta = files::metadata_if_allowed(&path).ok().flatten();
                return (at, meta.filter(std::fs::Metadata::is_file).map(|meta| meta.len()));
            }
            let limit = deadline.silence().min(deadline.remaining());
            (at, tokio::time::timeout(limit, size(url, &settings)).await.ok().flatten())
        });
    }
    while let Some(answer) = asked.join_next().await {
        take(Some(answer), &mut planned);
    }
    for url in planned.iter_mut().filter_map(|planned| planned.url.as_mut()) {
        *url = redact::clean(&destination.rewrite(&without_query(url)));
    }
    planned.sort_by(|one, other| one.name.cmp(&other.name));
    planned
}

/// The path of a `file:` URL. `Url::to_file_path` accepts other schemes, too.
fn path_of(url: &Url) -> Option<PathBuf> {
    (url.scheme() == "file").then(|| url.to_file_path().ok()).flatten()
}

/// Asks a server for the size of a file, with the login for its host.
async fn size(mut url: Url, settings: &Settings) -> Option<u64> {
    for _ in 0..=REDIRECTS {
        let mut request = http::client().ok()?.head(url.clone());
        if let Some(login) = url.host_str().and_then(|host| settings.login(host)) {
            request = request.basic_auth(&login.username, Some(login.password.reveal()));
        }
        let answer = request.send().await.ok()?;
        let header = |name| answer.headers().get(name)?.to_str().ok();
        if answer.status().is_redirection() {
            url = url.join(header(LOCATION)?).ok()?;
        } else {
            return header(CONTENT_LENGTH).filter(|_| answer.status().is_success())?.parse().ok();
        }
    }
    None
}

type Answer = Result<(usize, Option<u64>), tokio::task::JoinError>;

fn take(answer: Option<Answer>, planned: &mut [Planned]) {
    if let Some(Ok((at, bytes))) = answer {
        planned[at].bytes = bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::super::origin;
    use super::*;

    #[test]
    fn uv_says_what_it_would_install() {
        let output = "Using Python 3.13.1 environment at: venv\nResolved 3 packages in 12ms\nWould install 3 packages\n \
                      + flask==3.1.3\n + app @ file:///app\n + lib==1.0 (from git+https://host/lib@0a1b)\n";
        let planned = uv_plan(output, "uv 0.13.9").unwrap();
        let shown = |one: &Planned| (one.name.clone(), one.version.clone(), one.url.clone(), one.builds);
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            planned.iter().map(shown).collect::<Vec<_>>(),
            [
                ("flask".into(), text("3.1.3"), None, None),
                ("app".into(), None, text("file:///app"), Some(true)),
                ("lib".into(), text("1.0"), text("git+https://host/lib@0a1b"), Some(true)),
            ]
        );
        assert!(uv_plan("Would make no changes\n", "uv 0.13.9").unwrap().is_empty());
        let error = uv_plan("Plan: flask 3.1.3\n", "uv 9").unwrap_err().to_string();
        assert!(error.contains("cannot read what uv 9 would install") && error.contains("Plan: flask"), "{error}");
    }

    #[test]
    fn archives_say_what_is_built_and_how_large_it_is() {
        let lock = |files: &str| origin::lock(&format!("[[packages]]\nname = 'my-app'\nversion = '1'\n{files}"));
        let sdist = "sdist = { url = 'https://h/my_app-1.tar.gz', size = 7 }\n";
        let wheels = "wheels = [{ url = 'https://h/my_app-1-cp313-cp313-manylinux_2_17_x86_64.whl', size = 5 }, \
                      { url = 'https://h/my_app-1-cp313-cp313-manylinux_2_34_x86_64.whl', size = 6 }]\n";
        let pure = "wheels = [{ url = 'https://h/my_app-1-py3-none-any.whl', size = 3 }]\n";
        let both = format!("{sdist}{wheels}");
        let about = |fitting: &str, all: &str| {
            let mut planned = uv_plan(" + My_App==1\n", "uv").unwrap();
            with_archives(&mut planned, &lock(fitting), &lock(all));
            let Planned { url, bytes, builds, .. } = planned.remove(0);
            (url.is_some(), bytes, builds)
        };
        assert_eq!(about(pure, ""), (true, Some(3), Some(false)));
        assert_eq!(about(&both, ""), (false, Some(6), Some(false)));
        assert_eq!(about(sdist, &both), (true, Some(7), Some(true)));
        // uv says nothing, and only the lock has the files: of several wheels, any may fit.
        assert_eq!(about("", pure), (true, Some(3), Some(false)));
        assert_eq!(about("", sdist), (true, Some(7), Some(true)));
        assert_eq!(about("", &both), (false, None, None));
        assert_eq!(about("", ""), (false, None, None));
    }
}
