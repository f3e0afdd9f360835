//! Checks before the app starts that its Python can load every extension module: name, processor and C
//! library.
//!
//! An engine installs packages for its own machine. If the app's machine differs, numpy fails when the app
//! starts, and markupsafe silently runs without its C code.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::app::{App, machine_name};
use super::child::child_error;
use super::elf::{self, Elf};
use super::explain;
use super::installed::Installed;
use super::interpreter::BARE;
use super::settings::Settings;
use crate::command::Output;
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::plan::Libc;
use crate::retry::Deadline;
use crate::runtime::blocking;

/// Finds the modules that a distribution can work without, from its sources.
const GUARD: &str = include_str!("guard.py");

/// Extensions of the sources and stubs of a compiled module.
const COMPILED_FROM: &[&str] = &["c", "cc", "cpp", "pyx", "pyi"];

/// A file that the app's Python cannot load.
#[derive(Debug)]
struct Misfit {
    /// `markupsafe 3.0.2`
    dist: String,
    /// The path in the environment.
    file: PathBuf,
    /// `cp311 x86_64 musl`
    is_for: String,
    /// Its dotted name, if known.
    module: Option<String>,
    /// Python source next to it is imported instead.
    replaced: bool,
}

/// A question to `guard.py`: modules that a distribution may work without, and its sources.
#[derive(Debug, serde::Serialize)]
struct Question {
    modules: BTreeSet<String>,
    files: BTreeMap<String, PathBuf>,
}

/// The result of the search.
#[derive(Debug, Default)]
struct Found {
    misfits: Vec<Misfit>,
    questions: Vec<Question>,
    /// Distributions without compiled parts, and modules that may be missing from their builds.
    unbuilt: Vec<(String, String)>,
}

/// Checks every extension module and library in `site`. Returns a sentence for each package that works
/// without its compiled part.
///
/// # Errors
/// The app's Python cannot load a module or library that a distribution needs.
pub(super) async fn check(
    root: &Path,
    dists: std::sync::Arc<Vec<Installed>>,
    app: &App,
    python: &Path,
    (settings, scratch): (&Settings, &Path),
    deadline: Deadline,
) -> Result<Vec<String>> {
    let (root, own) = (root.to_owned(), app.clone());
    let found = blocking(move || look(&root, &dists, &own)).await?;
    if found.misfits.is_empty() && found.unbuilt.is_empty() {
        return Ok(Vec::new());
    }
    let dispensable = if found.questions.is_empty() {
        BTreeSet::new()
    } else {
        let questions = serde_json::to_vec(&found.questions)
            .map_err(|error| Error::internal("cannot serialize the questions about sources").because(error))?;
        let asked = settings.command(python, scratch).args(BARE).args(["-c", GUARD]).stdin(questions).run(deadline);
        let what = "cannot read the sources of incompatible packages";
        let Output { status, stdout, stderr } = asked.await.map_err(|failure| child_error(what, failure))?;
        if !status.success() {
            return Err(Error::environment(what).because(status.to_string()).excerpt(explain::excerpt(&stderr)));
        }
        String::from_utf8_lossy(&stdout).lines().map(str::to_owned).collect()
    };
    found.judge(app, &dispensable)
}

impl Found {
    fn judge(self, app: &App, dispensable: &BTreeSet<String>) -> Result<Vec<String>> {
        let mut by_dist: BTreeMap<&str, Vec<&Misfit>> = BTreeMap::new();
        for misfit in &self.misfits {
            by_dist.entry(&misfit.dist).or_default().push(misfit);
        }
        let mut warnings = Vec::new();
        let mut failures = Vec::new();
        for (dist, misfits) in by_dist {
            let needed = |misfit: &&&Misfit| {
                !misfit.replaced && misfit.module.as_ref().is_none_or(|module| !dispensable.contains(module))
            };
            let first_needed = misfits.iter().find(needed);
            let shown = first_needed.or(misfits.first()).copied();
            let Some(Misfit { file, is_for, .. }) = shown else { continue };
            let more = match misfits.len() {
                1 => String::new(),
                others => format!(" (and {} more)", others - 1),
            };
            let sentence = format!("{} is for {is_for}{more}; the app has {}", file.display(), describe(app));
            if first_needed.is_some() {
                failures.push(format!("{dist}: {sentence}"));
            } else {
                warnings.push(format!("{dist} works without its compiled module: {sentence}"));
            }
        }
        warnings.extend(
            self.unbuilt
                .iter()
                .filter(|(_, module)| dispensable.contains(module))
                .map(|(dist, module)| format!("{dist} was built without its compiled module {module}: it has no wheel for {app}, and the build continued without a compiler")),
        );
        let Some(first) = failures.first() else { return Ok(warnings) };
        let error =
            Error::environment("the app's Python cannot load some installed packages").because(first.as_str()).hint(
                "run podstrap in the app's own image, or describe it with --target-python and --target-platform \
             (manylinux_2_28_x86_64, musllinux_1_2_aarch64, …) to install wheels for it",
            );
        Err(if failures.len() > 1 { error.excerpt(failures.join("\n")) } else { error })
    }
}

/// `cp313 x86_64 musl`
fn describe(app: &App) -> String {
    let tag = if app.cpython { app.tag() } else { format!("Python {}", app.version) };
    format!("{tag}{}", describe_elf(app.elf))
}

fn describe_elf(elf: Elf) -> String {
    let machine = elf.machine.map(|machine| match (machine_name(machine), elf.bits) {
        // This processor has two kinds.
        (name, Some(32)) if name == "x86_64" => " x86_64 (32-bit)".to_owned(),
        (name, _) => format!(" {name}"),
    });
    let libc = elf.libc.map_or(String::new(), |libc| format!(" {}", libc.name()));
    format!("{}{libc}", machine.unwrap_or_default())
}

/// The kind of a shared object, by its file name.
#[derive(Debug, PartialEq, Eq)]
enum SharedObject<'a> {
    /// An extension module, `name.cpython-313-x86_64-linux-gnu.so` or `name.abi3.so`: name and tag.
    Module(&'a str, &'a str),
    /// A library, or a module without a tag for its Python.
    Library(&'a str),
    Other,
}

impl<'a> SharedObject<'a> {
    /// Source: PEP 3149, PEP 384; `importlib.machinery.EXTENSION_SUFFIXES`.
    fn of(file: &'a str) -> Self {
        let Some((stem, rest)) = file.split_once('.') else { return Self::Other };
        if rest == "so" || rest.starts_with("so.") || rest.contains(".so.") {
            return Self::Library(stem);
        }
        let Some(tag) = rest.strip_suffix(".so") else { return Self::Other };
        let python = ["abi3", "cpython-", "pypy", "graalpy"].iter().any(|kind| tag.starts_with(kind));
        if python { Self::Module(stem, tag) } else { Self::Library(stem) }
    }
}

/// Whether the app's Python imports modules with this tag in the name.
fn fits_name(tag: &str, app: &App) -> bool {
    if !app.cpython {
        return true;
    }
    if tag == "abi3" {
        // Modules for the stable ABI need the global lock.
        return !app.free_threaded;
    }
    let (major, minor) = app.python;
    let threads = if app.free_threaded { "t" } else { "" };
    let Some(rest) = tag.strip_prefix(&format!("cpython-{major}{minor}{threads}")) else { return false };
    // Names contain the platform since 3.5, and musl since 3.10.
    match app.elf.libc {
        _ if rest.is_empty() => true,
        _ if !rest.starts_with('-') => false,
        Some(Libc::Glibc) => !rest.ends_with("-musl"),
        Some(Libc::Musl) => app.python < (3, 10) || !rest.contains("-linux-gnu"),
        None => true,
    }
}

/// `cpython-311-x86_64-linux-gnu` → `cp311`
fn short(tag: &str) -> String {
    match tag.strip_prefix("cpython-") {
        Some(rest) => format!("cp{}", rest.split('-').next().unwrap_or_default()),
        None => tag.split('-').next().unwrap_or_default().to_owned(),
    }
}

fn look(root: &Path, dists: &[Installed], app: &App) -> Result<Found> {
    let read = |path: &Path| {
        let path = root.join(path);
        elf::read(&path)
            .map_err(|error| files::unreadable(Kind::Environment, format!("cannot read {}", path.display()), &error))
    };
    let mut found = Found::default();
    for dist in dists {
        let pure = dist.tags.iter().all(|tag| tag.ends_with("-any"));
        let mut modules: BTreeMap<PathBuf, Vec<(&Path, &str)>> = BTreeMap::new();
        let mut libraries = Vec::new();
        for (path, _) in &dist.files {
            match SharedObject::of(path.file_name().and_then(|name| name.to_str()).unwrap_or_default()) {
                SharedObject::Module(name, tag) => {
                    modules.entry(path.with_file_name(name)).or_default().push((path, tag));
                }
                SharedObject::Library(name) => libraries.push((path.as_path(), name)),
                SharedObject::Other => {}
            }
        }
        let mut misfits = Vec::new();
        let mut fitting = 0;
        for (module, variants) in &modules {
            let wrong = |(path, tag): &(&Path, &str)| {
                let named = fits_name(tag, app);
                let elf = read(path)?;
                let misfit = !named || elf.is_none_or(|elf| !elf.fits(app.elf));
                Ok(misfit.then_some((named, elf.unwrap_or_default())))
            };
            let judged = variants.iter().map(|variant| Ok((variant, wrong(variant)?)));
            let judged = judged.collect::<Result<Vec<_>>>()?;
            if let Some(((path, tag), Some((named, elf)))) = judged.first()
                && judged.iter().all(|(_, wrong)| wrong.is_some())
            {
                // Python does not import a module with another tag, so that module hides no source.
                let hides = judged.iter().any(|(_, wrong)| wrong.is_some_and(|(named, _)| named));
                let source = dist
                    .files
                    .iter()
                    .any(|(file, _)| *file == module.with_extension("py") || *file == module.join("__init__.py"));
                let libc = libc_of_tag(tag).filter(|_| elf.libc.is_none() && !named);
                misfits.push(Misfit {
                    dist: dist.shown(),
                    file: path.to_path_buf(),
                    is_for: format!("{}{}", short(tag), describe_elf(Elf { libc: elf.libc.or(libc), ..*elf })),
                    module: dotted(module, app),
                    replaced: source && !hides,
                });
            } else {
                fitting += 1;
            }
        }
        let mut strange = Vec::new();
        for (path, name) in libraries {
            match read(path)? {
                Some(elf) if elf.fits(app.elf) => fitting += 1,
                Some(elf) => strange.push(Misfit {
                    dist: dist.shown(),
                    file: path.to_owned(),
                    is_for: describe_elf(elf).trim_start().to_owned(),
                    module: dotted(&path.with_file_name(name), app),
                    replaced: false,
                }),
                // For example, a linker script.
                None => {}
            }
        }
        // Some packages bring a library for each of several platforms, and load the right one.
        if fitting == 0 && !pure {
            misfits.extend(strange);
        }
        let mut asked: BTreeSet<String> = misfits.iter().filter_map(|misfit| misfit.module.clone()).collect();
        if modules.is_empty() && fitting == 0 {
            let unbuilt = unbuilt(dist, app);
            found.unbuilt.extend(unbuilt.iter().map(|module| (dist.shown(), module.clone())));
            asked.extend(unbuilt);
        }
        if !asked.is_empty() {
            found.questions.push(Question { modules: asked, files: sources(root, dist, app) });
        }
        found.misfits.extend(misfits);
    }
    Ok(found)
}

/// The C library in the tag of a module.
fn libc_of_tag(tag: &str) -> Option<Libc> {
    if tag.ends_with("-musl") {
        return Some(Libc::Musl);
    }
    tag.contains("-linux-gnu").then_some(Libc::Glibc)
}

/// Modules that have only sources or stubs of their compiled form.
fn unbuilt(dist: &Installed, app: &App) -> BTreeSet<String> {
    let there: BTreeSet<PathBuf> = dist
        .files
        .iter()
        .filter(|(path, _)| path.extension().is_some_and(|extension| extension == "py"))
        .map(|(path, _)| if path.ends_with("__init__.py") { path.with_file_name("") } else { path.with_extension("") })
        .collect();
    dist.files
        .iter()
        .filter(|(path, _)| {
            path.extension().and_then(|extension| extension.to_str()).is_some_and(|it| COMPILED_FROM.contains(&it))
        })
        .map(|(path, _)| path.with_extension(""))
        .filter(|path| !there.contains(path) && !path.ends_with("__init__"))
        .filter_map(|path| dotted(&path, app))
        .collect()
}

/// The Python sources of a distribution, by dotted name.
fn sources(root: &Path, dist: &Installed, app: &App) -> BTreeMap<String, PathBuf> {
    let python = dist.files.iter().filter(|(path, _)| path.extension().is_some_and(|extension| extension == "py"));
    python.filter_map(|(path, _)| Some((dotted(&path.with_extension(""), app)?, root.join(path)))).collect()
}

/// The dotted name for a path in the environment without its extension.
fn dotted(path: &Path, app: &App) -> Option<String> {
    let names: Option<Vec<&str>> = path.strip_prefix(&app.site).ok()?.iter().map(|name| name.to_str()).collect();
    Some(names?.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_modules_from_libraries() {
        assert_eq!(SharedObject::of("_x.abi3.so"), SharedObject::Module("_x", "abi3"));
        assert_eq!(
            SharedObject::of("_x.cpython-313t-x86_64-linux-musl.so"),
            SharedObject::Module("_x", "cpython-313t-x86_64-linux-musl")
        );
        for library in ["x.so", "libz.so.1", "libz.so.1.2.13", "libopenblas-r0-0c.3.23.dev.so", "libx-1.2.so.5"] {
            assert!(matches!(SharedObject::of(library), SharedObject::Library(_)), "{library}");
        }
        for other in ["x.py", "so", "x.solid", "x"] {
            assert_eq!(SharedObject::of(other), SharedObject::Other, "{other}");
        }
    }

    #[test]
    fn a_name_fits_one_python() {
        let app = |minor, free_threaded, libc| App {
            python: (3, minor),
            version: String::new(),
            free_threaded,
            cpython: true,
            machine: "x86_64".into(),
            elf: Elf { machine: Some(62), bits: Some(64), libc: Some(libc) },
            site: "lib".into(),
            interpreter: "/usr/bin/python3".into(),
            other_python: false,
            platform: None,
            markers: BTreeMap::new(),
        };
        let (gnu, musl) = (Libc::Glibc, Libc::Musl);
        for (tag, fits) in [
            ("cpython-313-x86_64-linux-gnu", [true, false, false, false]),
            ("cpython-313-x86_64-linux-musl", [false, true, false, false]),
            ("cpython-313", [true, true, false, false]),
            ("cpython-313t-x86_64-linux-gnu", [false, false, true, false]),
            ("cpython-39-x86_64-linux-gnu", [false, false, false, true]),
            ("cpython-3133-x86_64-linux-gnu", [false, false, false, false]),
            ("abi3", [true, true, false, true]),
            ("pypy310-pp73-x86_64-linux-gnu", [false, false, false, false]),
        ] {
            let apps = [app(13, false, gnu), app(13, false, musl), app(13, true, gnu), app(9, false, musl)];
            assert_eq!(apps.map(|app| fits_name(tag, &app)), fits, "{tag}");
        }
    }
}
