//! The Python that will run the environment: by default the one that builds it, else the one that
//! `--target-python` and `--target-platform` describe.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::elf::{self, Elf};
use super::interpreter;
use super::python::Python;
use crate::error::{Error, Result};
use crate::plan::{AppTarget, Libc, Platform};

/// What is to run the environment.
#[derive(Debug, Clone)]
pub(super) struct App {
    pub(super) python: (u32, u32),
    /// `3.13.1`, or `3.13` of another Python than the one that builds.
    pub(super) version: String,
    /// It has no global lock: its modules are others (PEP 703).
    pub(super) free_threaded: bool,
    /// `CPython`; of another implementation modules are not known by their names.
    pub(super) cpython: bool,
    /// As `uname -m` says it.
    pub(super) machine: String,
    /// What the program and everything that it loads must be.
    pub(super) elf: Elf,
    /// site-packages as a path in the environment.
    pub(super) site: PathBuf,
    /// Where its interpreter is.
    pub(super) interpreter: PathBuf,
    /// It is another Python than the one that builds.
    pub(super) other_python: bool,
    /// It is on another platform, or may be.
    pub(super) platform: Option<Platform>,
    /// What markers ask for, by its name ("Dependency specifiers" of the packaging standards).
    pub(super) markers: BTreeMap<&'static str, String>,
}

/// Where Docker's `python` and Unit's `-python` images have their interpreter.
const USUAL_PLACE: &str = "/usr/local/bin/python";

/// `e_machine` and the word size of the processors that wheels are for, as `uname -m` calls them.
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
    /// `python` builds, and is at `path`; `place` is where the app's image has its own.
    ///
    /// # Errors
    /// The target's Python is too old.
    pub(super) fn new(target: &AppTarget, python: &Python, path: &Path, place: Option<&Path>) -> Result<Self> {
        let own = elf::read(path).unwrap_or_default();
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

    /// Whether the engine has to be told, because what fits the Python that builds may not fit this one.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.other_python || self.platform.is_some()
    }

    /// `cp313`, `cp313t`: what a module's name and a wheel's tag must say.
    pub(super) fn tag(&self) -> String {
        let (major, minor) = self.python;
        format!("cp{major}{minor}{}", if self.free_threaded { "t" } else { "" })
    }
}

fn markers(python: &Python, target: &AppTarget, machine: &str) -> BTreeMap<&'static str, String> {
    let (major, minor) = target.python.unwrap_or(python.number);
    // Of another Python the minor version is known, not which release of it.
    let other = target.python.filter(|number| *number != python.number).map(|_| format!("{major}.{minor}.0"));
    let implementation = if other.is_some() { "cpython" } else { &python.implementation };
    let named = match implementation {
        "cpython" => "CPython",
        "pypy" => "PyPy",
        other => other,
    };
    // Nothing is known of the kernel that will run it; uv says as much of another platform.
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

/// `cp313 manylinux x86_64`: what a wheel must be for.
impl std::fmt::Display for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(platform) = &self.platform {
            return write!(f, "{} {platform}", self.tag());
        }
        let libc = if self.elf.libc == Some(Libc::Musl) { "musllinux" } else { "manylinux" };
        write!(f, "{} {libc} {}", self.tag(), self.machine)
    }
}
