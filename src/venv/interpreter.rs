//! Finds the base interpreter, without starting it if its file name is enough.
//!
//! podstrap records the real file: an image update changes the link `/usr/bin/python3`, and the `python` of
//! a venv links to its base interpreter. podstrap runs a script in that place (a pyenv shim) once, to get
//! the interpreter.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::child::child_error;
use super::settings::Settings;
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::plan::PythonRequest;
use crate::retry::Deadline;

/// The oldest Python with a reliable `venv`, `compile` and wheels.
pub(super) const OLDEST: (u32, u32) = (3, 8);

const HINT: &str =
    "run podstrap in an image with this Python, ideally the app's own, or give an interpreter's path with --python";

/// Flags for every start: no site-packages, no working directory, nothing from PYTHON*.
pub(super) const BARE: &[&str] = &["-E", "-s", "-S", "-B"];

/// An interpreter, and its version if known without starting it.
struct Found {
    path: PathBuf,
    version: Option<(u32, u32)>,
}

/// Finds the requested interpreter.
pub(super) async fn locate(request: &PythonRequest, settings: &Settings, deadline: Deadline) -> Result<PathBuf> {
    let names: Vec<String> = match request {
        PythonRequest::Path(path) => {
            if !files::exists(path)? {
                return Err(Error::environment(format!("--python {}: no such file", path.display())).hint(HINT));
            }
            let found = resolve(path, settings, deadline).await?.map_err(|reason| {
                Error::environment(format!("--python {} is not a usable interpreter", path.display()))
                    .because(reason)
                    .hint(HINT)
            })?;
            return accept(&found);
        }
        PythonRequest::Default => vec!["python3".into(), "python".into()],
        PythonRequest::Version { major, minor } => {
            vec![format!("python{major}.{minor}"), "python3".into(), "python".into()]
        }
    };
    let mut seen = Vec::new();
    for name in &names {
        for dir in settings.path() {
            let candidate = dir.join(name);
            if !executable(&candidate)? {
                continue;
            }
            let mut found = match resolve(&candidate, settings, deadline).await? {
                Ok(found) => found,
                Err(reason) => {
                    tracing::debug!("skipping {}: {reason}", candidate.display());
                    seen.push(format!("{}: {reason}", candidate.display()));
                    continue;
                }
            };
            if let PythonRequest::Version { major, minor } = request {
                if found.version.is_none() {
                    found = match ask(&found.path, settings, deadline).await? {
                        Ok(found) => found,
                        Err(reason) => {
                            seen.push(format!("{}: {reason}", candidate.display()));
                            continue;
                        }
                    };
                }
                if let Some((has_major, has_minor)) = found.version
                    && (has_major, has_minor) != (*major, *minor)
                {
                    seen.push(format!("{} is Python {has_major}.{has_minor}", candidate.display()));
                    continue;
                }
            }
            return accept(&found);
        }
    }
    let what = match request {
        PythonRequest::Version { major, minor } => format!("found no Python {major}.{minor}"),
        _ => "found no Python".to_owned(),
    };
    let path: Vec<_> = settings.path().iter().map(|dir| dir.display().to_string()).collect();
    let error = Error::environment(what)
        .because(format!("looked for {} in PATH ({})", names.join(", "), path.join(":")))
        .hint(HINT);
    Err(if seen.is_empty() { error } else { error.excerpt(seen.join("\n")) })
}

fn accept(found: &Found) -> Result<PathBuf> {
    if let Some((major, minor)) = found.version {
        refuse_old(&found.path, &format!("{major}.{minor}"), (major, minor))?;
    }
    Ok(found.path.clone())
}

/// Fails for a Python that is too old to build an environment.
pub(super) fn refuse_old(path: &Path, version: &str, number: (u32, u32)) -> Result<()> {
    if number >= OLDEST {
        return Ok(());
    }
    let (major, minor) = OLDEST;
    Err(Error::environment(format!("{} is Python {version}, which is too old", path.display()))
        .because(format!("podstrap needs Python {major}.{minor} or newer"))
        .hint("use an app image with a newer Python (and Unit's module for it), or another interpreter with --python"))
}

/// An interpreter, or why it cannot be used.
type Resolved = Result<Found, String>;

/// Follows links to the real interpreter. Starts the candidate only if it is not an ELF program.
///
/// # Errors
/// The system fails: another interpreter is no remedy.
async fn resolve(candidate: &Path, settings: &Settings, deadline: Deadline) -> Result<Resolved> {
    let Some(real) = files::real(candidate)? else { return Ok(Err("it leads nowhere".to_owned())) };
    if !executable(&real)? {
        return Ok(Err("not an executable file".to_owned()));
    }
    let mut magic = [0; 4];
    let read = files::open(&real).and_then(|mut file| file.read_exact(&mut magic));
    if let Err(error) = read.as_ref()
        && !files::is_of_file(error)
    {
        return Err(files::unreadable(Kind::Environment, format!("cannot read {}", real.display()), error));
    }
    let elf = read.is_ok() && &magic == b"\x7fELF";
    // A venv with copies instead of links: its base interpreter is elsewhere.
    let config = real.ancestors().nth(2).map(|venv| venv.join("pyvenv.cfg"));
    let copied = config.map_or(Ok(false), |config| files::exists(&config))?;
    if elf && !copied {
        let version = real.file_name().and_then(version_in_name);
        return Ok(Ok(Found { path: real, version }));
    }
    ask(candidate, settings, deadline).await
}

/// `python3.11` → (3, 11).
fn version_in_name(name: &OsStr) -> Option<(u32, u32)> {
    let (major, minor) = name.to_str()?.strip_prefix("python")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

async fn ask(candidate: &Path, settings: &Settings, deadline: Deadline) -> Result<Resolved> {
    const QUESTION: &str = "import sys; print('%d %d' % sys.version_info[:2]); \
        print(getattr(sys, '_base_executable', None) or sys.executable)";
    let output = settings.command(candidate, Path::new("/tmp")).args(BARE).args(["-c", QUESTION]).run(deadline).await;
    let output = match output {
        Ok(output) => output,
        Err(failure) if failure.is_of_system() => {
            return Err(child_error(&format!("cannot get the version of {}", candidate.display()), failure));
        }
        Err(failure) => return Ok(Err(child_error("cannot get its version", failure).summary())),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let answer = text.split_once('\n').and_then(|(version, path)| {
        let (major, minor) = version.split_once(' ')?;
        Some(((major.parse().ok()?, minor.parse().ok()?), PathBuf::from(path.trim_end_matches('\n'))))
    });
    match answer {
        Some((version, path)) if output.status.success() => {
            let Some(real) = files::real(&path)? else { return Ok(Err(format!("there is no {}", path.display()))) };
            Ok(Ok(Found { path: real, version: Some(version) }))
        }
        _ => Ok(Err(format!(
            "does not run ({}){}",
            output.status,
            output.stderr.lines().next().map(|line| format!(": {line}")).unwrap_or_default()
        ))),
    }
}

/// Whether a path is an executable file.
///
/// # Errors
/// The system cannot tell.
pub(super) fn executable(path: &Path) -> Result<bool> {
    let found = files::metadata_if_allowed(path)?;
    Ok(found.is_some_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_names() {
        assert_eq!(version_in_name(OsStr::new("python3.11")), Some((3, 11)));
        assert_eq!(version_in_name(OsStr::new("python3")), None);
        assert_eq!(version_in_name(OsStr::new("python3.11-config")), None);
        assert_eq!(version_in_name(OsStr::new("python3.13t")), None);
    }
}
