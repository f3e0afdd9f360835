//! Collects requests to the engine from the given requirements files and all files that they include.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::form::{Form, PYPROJECT};
use super::inputs::Inputs;
use super::requirements::{self, Refused, RequirementsFile, RequirementsReader};
use super::settings::Settings;
use crate::error::{Error, Kind, Result};
use crate::files;

/// Why files outside the tree are out of bounds.
const ALONE: &str = "the repository must not read other files of this container";

/// Requests to the engine in requirements files.
#[derive(Debug, Default)]
pub(super) struct Reached {
    /// A requirement has a hash. pip then requires one for all.
    pub(super) hashes: bool,
    /// A file for which uv builds, or may build, a package in spite of `--no-build`.
    pub(super) builds: Option<PathBuf>,
    /// The URLs of Git repositories.
    pub(super) repositories: Vec<url::Url>,
}

impl Reached {
    /// # Errors
    /// A file of `tree` includes a file outside it.
    pub(super) fn of(inputs: &Inputs, settings: &Settings, tree: Option<&Path>) -> Result<Self> {
        let mut reader = RequirementsReader::new(settings);
        let named: Vec<PathBuf> = inputs.requirements.iter().chain(&inputs.constraints).cloned().collect();
        if let Some(tree) = tree
            && let Some((file, why)) = requirements::leads_out(&named, &mut reader, tree)?
        {
            return Err(refused(&file, &why));
        }
        let of_settings = settings.files().into_iter().map(PathBuf::from).filter(|file| file.is_absolute());
        let reached = reader.reach(named.into_iter().chain(of_settings));
        // The engine reports a missing file.
        let mut unread = reached.iter().filter_map(|file| Some((&file.path, file.unread.as_ref()?)));
        if let Some((path, error)) = unread.find(|(_, error)| error.kind() != ErrorKind::NotFound) {
            return Err(files::unreadable(Kind::Environment, format!("cannot read {}", path.display()), error));
        }
        let hashes = reached.iter().flat_map(|file| &file.lines).any(requirements::has_hash);
        let builds = reached.iter().find(|file| file.lines.iter().any(requirements::asks_for_builds));
        let builds = builds.map(|file| file.path.clone());
        let builds = if builds.is_some() { builds } else { configured(inputs, settings)? };
        Ok(Self { hashes, builds, repositories: repositories(inputs, &reached) })
    }
}

fn refused(file: &Path, why: &Refused) -> Error {
    let unclear = || Error::environment(format!("{} may include a file outside the tree", file.display()));
    let error = match why {
        Refused::Line(line) => {
            let what = format!("{} includes a file outside the tree: {line}", file.display());
            return Error::environment(what).because(ALONE).hint(
                "give that file with -r or -c, or write -c ${PINS} in the repository and set PINS in the Pod (the name \
                 must contain PINS, CONSTRAINT or REQUIREMENT)",
            );
        }
        Refused::Encoding => unclear()
            .because("its coding comment names an encoding that podstrap does not read")
            .hint("save it as UTF-8, and remove the coding comment"),
        Refused::LineEnds => unclear()
            .because("pip and uv end its lines differently: it has a form feed or a similar character")
            .hint("end its lines only with line feeds"),
    };
    error.because(ALONE)
}

/// A configuration file that requests builds.
fn configured(inputs: &Inputs, settings: &Settings) -> Result<Option<PathBuf>> {
    let beside_locks =
        inputs.of(Form::UvLock).flat_map(|lock| [lock.with_file_name(PYPROJECT), lock.with_file_name("uv.toml")]);
    for file in settings.configuration().into_iter().chain(beside_locks) {
        match requirements::contents(&file) {
            Ok(text) if String::from_utf8_lossy(&text).contains("no-binary") => return Ok(Some(file)),
            Ok(_) => {}
            // uv does not read it either.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {}
            Err(error) => {
                return Err(files::unreadable(Kind::Environment, format!("cannot read {}", file.display()), &error));
            }
        }
    }
    Ok(None)
}

fn repositories(inputs: &Inputs, reached: &[Rc<RequirementsFile>]) -> Vec<url::Url> {
    let mut places = Vec::new();
    for text in reached.iter().map(|file| &file.text).chain(&inputs.packages) {
        for mark in ["git+http", "git = \"http", "git = 'http"] {
            for (at, _) in text.match_indices(mark) {
                let url = &text[at + mark.len() - "http".len()..];
                let end = url.find(|c: char| c.is_whitespace() || "\"'<>".contains(c)).unwrap_or(url.len());
                if let Ok(url) = url::Url::parse(&url[..end])
                    && !places.contains(&url)
                {
                    places.push(url);
                }
            }
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_reached_counts() {
        let tree = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(tree.path().join(name), text).unwrap();
        write("a.txt", "-r b.txt\nx @ git+https://h/x.git@v1");
        write("b.txt", "-c c.txt\n-r a.txt");
        let inputs = Inputs { requirements: vec![tree.path().join("a.txt")], ..Inputs::default() };
        let settings = Settings::from_env([("V".into(), "--hash=sha256:ab".into())]);
        let reached = |c: &str| {
            write("c.txt", c);
            Reached::of(&inputs, &settings, Some(tree.path())).unwrap()
        };
        let found = reached("six==1");
        assert_eq!((found.hashes, found.builds), (false, None));
        assert_eq!(found.repositories, ["https://h/x.git@v1".parse().unwrap()]);
        assert!(reached("six==1 ${V}").hashes);
        assert_eq!(reached("-e ./x").builds, Some(tree.path().join("c.txt")));
        write("b.txt", "-c ../c.txt");
        let error = Reached::of(&inputs, &settings, Some(tree.path())).unwrap_err().to_string();
        assert!(error.contains("b.txt includes a file outside the tree: -c ../c.txt"), "{error}");
        for (text, why) in
            [("# coding: koi8-r\na", "names an encoding"), ("-c c.txt\u{c}\na", "end its lines differently")]
        {
            write("b.txt", text);
            let error = Reached::of(&inputs, &settings, Some(tree.path())).unwrap_err().to_string();
            assert!(error.contains("b.txt may include a file outside the tree") && error.contains(why), "{error}");
        }
    }
}
