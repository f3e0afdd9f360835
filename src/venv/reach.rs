//! Finds what else decides an installation: configuration files that request builds, and the Git repositories of all
//! inputs.

use std::io::ErrorKind;
use std::path::PathBuf;

use super::form::{Form, PYPROJECT};
use super::inputs::Inputs;
use super::requirements::{self, Flat};
use super::settings::Settings;
use crate::error::{Kind, Result};
use crate::files;

/// A configuration file that requests builds.
pub(super) fn configured(inputs: &Inputs, settings: &Settings) -> Result<Option<PathBuf>> {
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

/// The URLs of Git repositories over HTTP, for their logins.
pub(super) fn repositories(inputs: &Inputs, flat: &Flat) -> Vec<url::Url> {
    let mut places = Vec::new();
    let of_lines = flat.requirements().filter_map(|(found, _)| found.url().map(str::to_owned));
    let files = inputs.requirements.iter().filter(|file| Form::of(file) != Form::Requirements);
    let of_files = files.filter_map(|file| requirements::contents(file).ok());
    let of_files = of_files.map(|text| String::from_utf8_lossy(&text).into_owned());
    for text in of_lines.chain(of_files).chain(inputs.packages.iter().cloned()) {
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
