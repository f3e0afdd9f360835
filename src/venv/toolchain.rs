//! Finds the interpreter and the engine of a build, without starting either where possible.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::elf;
use super::identity::{Identities, Identity};
use super::interpreter::{self, executable};
use super::settings::Settings;
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::plan::{EngineRequest, PythonRequest};
use crate::retry::Deadline;
use crate::runtime::blocking;

/// The interpreter and the engine. They show whether an existing environment still fits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toolchain {
    pub python: Program,
    /// The shared library with most of the interpreter, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub libpython: Option<Program>,
    /// The loader of the interpreter, which belongs to its C library: the library's version decides which wheels fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loader: Option<Program>,
    /// `None` for pip, which belongs to the interpreter.
    pub uv: Option<Program>,
    /// The user requires uv: if it does not run, podstrap does not use pip instead.
    pub uv_required: bool,
}

/// A program or a library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Links are resolved.
    pub path: PathBuf,
    pub identity: Identity,
}

impl Program {
    fn new(path: &Path, identities: &Identities, deadline: Deadline) -> Result<Self> {
        let failed = |error: &_| files::unreadable(Kind::Environment, format!("cannot read {}", path.display()), error);
        let real = path.canonicalize().map_err(|error| failed(&error))?;
        let identity = identities.of(&real, deadline).map_err(|error| failed(&error))?;
        Ok(Self { path: real, identity })
    }
}

/// Finds the interpreter and the engine.
///
/// # Errors
/// A required interpreter or engine is missing.
pub async fn locate(
    settings: &Settings,
    python: &PythonRequest,
    engine: &EngineRequest,
    identities: &Identities,
    deadline: Deadline,
) -> Result<Toolchain> {
    settings.check()?;
    let python = interpreter::locate(python, settings, deadline).await?;
    let uv = locate_uv(engine, settings)?;
    let uv_required = matches!(engine, EngineRequest::Uv | EngineRequest::UvAt(_));
    let identities = identities.clone();
    blocking(move || {
        let program = |path: &Path| Program::new(path, &identities, deadline);
        let links = elf::links(&python).map_err(|error| {
            files::unreadable(Kind::Environment, format!("cannot read {}", python.display()), &error)
        })?;
        Ok(Toolchain {
            libpython: libpython(&python, links.as_ref())?.as_deref().map(program).transpose()?,
            loader: loader(links.as_ref())?.as_deref().map(program).transpose()?,
            python: program(&python)?,
            uv: uv.as_deref().map(program).transpose()?,
            uv_required,
        })
    })
    .await
}

/// The uv to use. `None` for pip.
fn locate_uv(request: &EngineRequest, settings: &Settings) -> Result<Option<PathBuf>> {
    let required = match request {
        EngineRequest::Pip => return Ok(None),
        EngineRequest::UvAt(path) => {
            if !executable(path)? {
                return Err(Error::environment(format!("--engine {} is not an executable file", path.display()))
                    .hint("give the path of a uv binary, or use --engine auto or pip"));
            }
            return Ok(Some(path.clone()));
        }
        EngineRequest::Auto => false,
        EngineRequest::Uv => true,
    };
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.to_owned()));
    for uv in beside.into_iter().chain(settings.path()).map(|dir| dir.join("uv")) {
        if executable(&uv)? {
            return Ok(Some(uv));
        }
    }
    if required {
        return Err(Error::environment("found no uv next to podstrap or on PATH")
            .hint("put a static uv binary next to podstrap, give its path with --engine, or use --engine pip"));
    }
    Ok(None)
}

/// The shared libpython that an interpreter loads.
fn libpython(python: &Path, links: Option<&elf::Links>) -> Result<Option<PathBuf>> {
    let Some(links) = links else { return Ok(None) };
    let name = links.needed.iter().find(|name| name.starts_with("libpython"));
    let (Some(name), Some(own)) = (name, python.parent()) else { return Ok(None) };
    let Some(prefix) = own.parent() else { return Ok(None) };
    let run_path = links.run_path.iter().map(|dir| match dir.strip_prefix("$ORIGIN") {
        Some(rest) => own.join(rest.trim_start_matches('/')),
        None => PathBuf::from(dir),
    });
    for file in run_path.chain([prefix.join("lib"), prefix.join("lib64")]).map(|dir| dir.join(name)) {
        if files::is_file(&file)? {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

/// The loader that an interpreter names.
fn loader(links: Option<&elf::Links>) -> Result<Option<PathBuf>> {
    let Some(loader) = links.and_then(|links| links.loader.as_ref()).map(PathBuf::from) else { return Ok(None) };
    Ok(files::is_file(&loader)?.then_some(loader))
}

impl Toolchain {
    /// The pips that the interpreter may find, by the names of their metadata directories: `pip-24.2.dist-info`.
    /// Empty with uv.
    pub(super) fn pips(&self) -> Vec<String> {
        let prefix = self.python.path.parent().and_then(Path::parent).filter(|_| self.uv.is_none());
        let entries = |dir: PathBuf| {
            // A pip that cannot be read now changes the key when it can.
            let names = files::names(&dir).unwrap_or_default().into_iter();
            names.filter_map(|name| name.into_string().ok())
        };
        let mut pips = Vec::new();
        for lib in prefix.into_iter().flat_map(|prefix| [prefix.join("lib"), prefix.join("local/lib")]) {
            for python in entries(lib.clone()).filter(|name| name.starts_with("python3")) {
                for packages in ["site-packages", "dist-packages"] {
                    let here = entries(lib.join(&python).join(packages));
                    pips.extend(here.filter(|name| name.starts_with("pip-") && name.ends_with("-info")));
                }
            }
        }
        pips.sort();
        pips
    }
}
