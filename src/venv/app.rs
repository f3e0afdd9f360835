//! The Python that runs the environment: by default the one that builds it, else the one that
//! `--target-python` and `--target-platform` describe.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::elf::{self, Elf};
use super::interpreter;
use super::python::Python;
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::plan::{AppTarget, Libc, Platform};

/// The Python and the platform that run the environment.
#[derive(Debug, Clone)]
pub(super) struct App {
    pub(super) python: (u32, u32),
    /// `3.13.1`, or `3.13` if another Python builds.
    pub(super) version: String,
    /// It has no global lock, so it needs other extension modules (PEP 703).
    pub(super) free_threaded: bool,
    /// It is `CPython`. The module names of other implementations are not known.
    pub(super) cpython: bool,
    /// As in `uname -m`.
    pub(super) machine: String,
    /// The format that its program and every loaded library must have.
    pub(super) elf: Elf,
    /// The path of site-packages in the environment.
    pub(super) site: PathBuf,
    /// The path of its interpreter.
    pub(super) interpreter: PathBuf,
    /// Another Python builds the environment.
    pub(super) other_python: bool,
    /// The platform, if it is or may be another one.
    pub(super) platform: Option<Platform>,
    /// The values of markers by name ("Dependency specifiers" of the packaging standards).
    pub(super) markers: BTreeMap<&'static str, String>,
}

/// The interpreter in Docker's `python` and Unit's `-python` images, without its version.
const USUAL_PLACE: &str = "/usr/local/bin/python";

/// `uname -m`, `e_machine` and the word size of each processor that has wheels.
/// Source: System V ABI, "Machine"; PEP 600 for the names.
const MACHINES: &[(&str, u16, u8)] = &[
    ("x86_64", 62, 64),
    ("aarch64", 183, 64),
    ("i686", 3, 32),
    ("armv7l", 40, 32),
    ("armv6l", 40, 32),
    ("ppc64le", 21, 64),
    ("ppc64", 21, 64),
    ("s390x", 22, 64),
    ("riscv64", 243, 64),
    ("loongarch64", 258, 64),
];

/// The name of a processor.
pub(super) fn machine_name(machine: u16) -> String {
    let known = MACHINES.iter().find(|(_, number, _)| *number == machine);
    known.map_or_else(|| format!("ELF machine {machine}"), |(name, ..)| (*name).to_owned())
}

impl App {
    /// `python` at `path` builds the environment; `place` is the interpreter in the app's image.
    ///
    /// # Errors
    /// The Python of `target` is too old.
    pub(super) fn new(target: &AppTarget, python: &Python, path: &Path, place: Option<&Path>) -> Result<Self> {
        let own = elf::read(path)
            .map_err(|error| files::unreadable(Kind::Environment, format!("cannot read {}", path.display()), &error))?
            .unwrap_or_default();
        let libc = own.libc.or(if python.soabi.ends_with("musl") { Some(Libc::Musl) } else { Some(Libc::Glibc) });
        let number = target.python.unwrap_or(python.number);
        let (major, minor) = number;
        if number < interpreter::OLDEST {
            let (major, minor) = interpreter::OLDEST;
            return Err(Error::usage(format!("--target-python {}.{} is too old", number.0, number.1))
                .because(format!("podstrap needs Python {major}.{minor} or newer"))
                .hint("use an app image with a newer Python, and Unit's module for it"));
        }
        let other_python = number != python.number;
        let (machine, elf) = match &target.platform {
            Some(platform) => {
                let known = MACHINES.iter().find(|(name, ..)| *name == platform.machine);
                let elf = Elf {
                    machine: known.map(|(_, machine, _)| *machine),
                    bits: known.map(|(.., bits)| *bits),
                    libc: Some(platform.libc),
                };
                (platform.machine.clone(), elf)
            }
            None => (python.machine.clone(), Elf { libc, ..own }),
        };
        let free_threaded = python.free_threaded && !other_python;
        let interpreter = match place {
            Some(place) => place.to_owned(),
            None if other_python => format!("{USUAL_PLACE}{major}.{minor}").into(),
            None => path.to_owned(),
        };
        let site =
            if other_python { format!("lib/python{major}.{minor}/site-packages").into() } else { python.site.clone() };
        let version = if other_python { format!("{major}.{minor}") } else { python.version.clone() };
        let markers = markers(python, target, &machine);
        let cpython = other_python || python.implementation == "cpython";
        Ok(Self {
            python: number,
            version,
            free_threaded,
            cpython,
            machine,
            elf,
            site,
            interpreter,
            other_python,
            platform: target.platform.clone(),
            markers,
        })
    }

    /// Whether the engine needs this target, because packages for the building Python may not fit it.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.other_python || self.platform.is_some()
    }

    /// `cp313`, `cp313t`: the tag in the name of a module or a wheel.
    pub(super) fn tag(&self) -> String {
        let (major, minor) = self.python;
        format!("cp{major}{minor}{}", if self.free_threaded { "t" } else { "" })
    }
}

fn markers(python: &Python, target: &AppTarget, machine: &str) -> BTreeMap<&'static str, String> {
    let (major, minor) = target.python.unwrap_or(python.number);
    // For another Python, only the minor version is known.
    let other = target.python.filter(|number| *number != python.number).map(|_| format!("{major}.{minor}.0"));
    let implementation = if other.is_some() { "cpython" } else { &python.implementation };
    let named = match implementation {
        "cpython" => "CPython",
        "pypy" => "PyPy",
        other => other,
    };
    // The kernel of another platform is unknown. uv leaves it empty too.
    let kernel = |own: &str| if target.platform.is_some() { String::new() } else { own.to_owned() };
    [
        ("implementation_name", implementation.to_owned()),
        ("implementation_version", other.clone().unwrap_or(python.implementation_version.clone())),
        ("os_name", "posix".to_owned()),
        ("platform_machine", machine.to_owned()),
        ("platform_python_implementation", named.to_owned()),
        ("platform_release", kernel(&python.release)),
        ("platform_system", "Linux".to_owned()),
        ("platform_version", kernel(&python.kernel)),
        ("python_full_version", other.unwrap_or(python.full_version.clone())),
        ("python_version", format!("{major}.{minor}")),
        ("sys_platform", "linux".to_owned()),
    ]
    .into()
}

/// `cp313 manylinux x86_64`: the tags that a wheel needs.
impl std::fmt::Display for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(platform) = &self.platform {
            return write!(f, "{} {platform}", self.tag());
        }
        let libc = if self.elf.libc == Some(Libc::Musl) { "musllinux" } else { "manylinux" };
        write!(f, "{} {libc} {}", self.tag(), self.machine)
    }
}
