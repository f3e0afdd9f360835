//! Whether the app's Python can load what was installed: every extension module's name, processor and
//! C library, before a Pod finds out.
//!
//! An installer takes what fits the machine that it runs on. Where that is another than the app's, numpy
//! fails at the app's start, and markupsafe works on without its C code and says nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::app::{App, machine_name};
use super::child::child_error;
use super::elf::{self, Elf};
use super::explain;
use super::interpreter::BARE;
use super::record::Installed;
use super::settings::Settings;
use crate::command::Output;
use crate::error::{Error, Result};
use crate::plan::Libc;
use crate::retry::Deadline;
use crate::runtime::blocking;

/// Tells from its sources whether a distribution can do without a module.
const GUARD: &str = include_str!("guard.py");

/// What a package's compiled part is made from, or described by.
const COMPILED_FROM: &[&str] = &["c", "cc", "cpp", "pyx", "pyi"];

/// Something that the app's Python cannot load.
#[derive(Debug)]
struct Misfit {
    /// `markupsafe 3.0.2`
    dist: String,
    /// As a path in the environment.
    file: PathBuf,
    /// `cp311 x86_64 musl`
    is_for: String,
    /// Its name in an import, as far as that is known.
    module: Option<String>,
    /// Python's own code is beside it, and is taken instead.
    replaced: bool,
}

/// A distribution whose sources tell whether it can do without something.
#[derive(Debug, serde::Serialize)]
struct Question {
    modules: BTreeSet<String>,
    files: BTreeMap<String, PathBuf>,
}

/// What was found.
#[derive(Debug, Default)]
struct Found {
    misfits: Vec<Misfit>,
    questions: Vec<Question>,
    /// Modules that a distribution without compiled parts may have been built without, and whose they are.
    unbuilt: Vec<(String, String)>,
}

/// Looks at every extension module and library in `site`. Returns what works all the same, but not as
/// it should: a sentence each.
///
/// # Errors
/// Something that a distribution needs cannot be loaded.
pub(super) async fn check(
    root: &Path,
    dists: std::sync::Arc<Vec<Installed>>,
    app: &App,
    python: &Path,
    (settings, scratch): (&Settings, &Path),
    deadline: Deadline,
) -> Result<Vec<String>> {
    let (root, own) = (root.to_owned(), app.clone());
    let found = blocking(move || Ok(look(&root, &dists, &own))).await?;
    if found.misfits.is_empty() && found.unbuilt.is_empty() {
        return Ok(Vec::new());
    }
    let dispensable = if found.questions.is_empty() {
        BTreeSet::new()
    } else {
        let questions = serde_json::to_vec(&found.questions)
            .map_err(|error| Error::internal("cannot write down what is asked of sources").because(error))?;
        let asked = settings.command(python, scratch).args(BARE).args(["-c", GUARD]).stdin(questions).run(deadline);
        let what = "cannot read the sources of what does not fit";
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
                others => format!(", as {} more are", others - 1),
            };
            let sentence = format!("{} is for {is_for}{more}; the app has {}", file.display(), describe(app));
            if first_needed.is_some() {
                failures.push(format!("{dist}: {sentence}"));
            } else {
                warnings.push(format!("{dist} loses its compiled part: {sentence}"));
            }
        }
        warnings.extend(
            self.unbuilt
                .iter()
                .filter(|(_, module)| dispensable.contains(module))
                .map(|(dist, module)| format!("{dist} was built without its compiled part {module}: it has no wheel for {app}, and the build went on without a compiler")),
        );
        let Some(first) = failures.first() else { return Ok(warnings) };
        let error = Error::environment("the app's Python cannot load what was installed").because(first.as_str()).hint(
            "run podstrap in the app's own image, or say what that is with --target-python and --target-platform \
             (manylinux_2_28_x86_64, musllinux_1_2_x86_64, …), so that wheels for it are installed",
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
        // Of one name there are two kinds.
        (name, Some(32)) if name == "x86_64" => " x86_64 (32-bit)".to_owned(),
        (name, _) => format!(" {name}"),
    });
    let libc = elf.libc.map_or(String::new(), |libc| format!(" {}", libc.name()));
    format!("{}{libc}", machine.unwrap_or_default())
}

/// What a file's name says of a shared object.
#[derive(Debug, PartialEq, Eq)]
enum Kind<'a> {
    /// An extension module, `name.cpython-313-x86_64-linux-gnu.so` or `name.abi3.so`: its name, and the tag.
    Module(&'a str, &'a str),
    /// A library, or a module that does not say which Python it is for.
    Library(&'a str),
    Other,
}

impl<'a> Kind<'a> {
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

/// Whether the app's Python looks for modules whose name has this tag.
fn fits_name(tag: &str, app: &App) -> bool {
    if !app.cpython {
        return true;
    }
    if tag == "abi3" {
        // Those of the stable ABI are for builds with the lock.
        return !app.free_threaded;
    }
    let (major, minor) = app.python;
    let threads = if app.free_threaded { "t" } else { "" };
    let Some(rest) = tag.strip_prefix(&format!("cpython-{major}{minor}{threads}")) else { return false };
    // The platform is a part of the name since 3.5; musl's own since 3.10.
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

fn look(root: &Path, dists: &[Installed], app: &App) -> Found {
    let mut found = Found::default();
    for dist in dists {
        let pure = dist.tags.iter().all(|tag| tag.ends_with("-any"));
        let mut modules: BTreeMap<PathBuf, Vec<(&Path, &str)>> = BTreeMap::new();
        let mut libraries = Vec::new();
        for (path, _) in &dist.files {
            match Kind::of(path.file_name().and_then(|name| name.to_str()).unwrap_or_default()) {
                Kind::Module(name, tag) => modules.entry(path.with_file_name(name)).or_default().push((path, tag)),
                Kind::Library(name) => libraries.push((path.as_path(), name)),
                Kind::Other => {}
            }
        }
        let mut misfits = Vec::new();
        let mut fitting = 0;
        for (module, variants) in &modules {
            let wrong = |(path, tag): &(&Path, &str)| {
                let named = fits_name(tag, app);
                let elf = elf::read(&root.join(path));
                (!named || elf.is_none_or(|elf| !elf.fits(app.elf))).then_some((named, elf.unwrap_or_default()))
            };
            let judged: Vec<_> = variants.iter().map(|variant| (variant, wrong(variant))).collect();
            if let Some(((path, tag), Some((named, elf)))) = judged.first()
                && judged.iter().all(|(_, wrong)| wrong.is_some())
            {
                // What is not looked for hides nothing.
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
            match elf::read(&root.join(path)) {
                Some(elf) if elf.fits(app.elf) => fitting += 1,
                Some(elf) => strange.push(Misfit {
                    dist: dist.shown(),
                    file: path.to_owned(),
                    is_for: describe_elf(elf).trim_start().to_owned(),
                    module: dotted(&path.with_file_name(name), app),
                    replaced: false,
                }),
                // A linker script, say.
                None => {}
            }
        }
        // Some bring a library for each of several platforms, and load the one that fits.
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
    found
}

/// The C library that a module's name tells of.
fn libc_of_tag(tag: &str) -> Option<Libc> {
    if tag.ends_with("-musl") {
        return Some(Libc::Musl);
    }
    tag.contains("-linux-gnu").then_some(Libc::Glibc)
}

/// Modules of which there is only what they would be built from.
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

/// The sources of a distribution by their modules' names.
fn sources(root: &Path, dist: &Installed, app: &App) -> BTreeMap<String, PathBuf> {
    let python = dist.files.iter().filter(|(path, _)| path.extension().is_some_and(|extension| extension == "py"));
    python.filter_map(|(path, _)| Some((dotted(&path.with_extension(""), app)?, root.join(path)))).collect()
}

/// The name in an import of what is at this path in the environment, without its extension.
fn dotted(path: &Path, app: &App) -> Option<String> {
    let names: Option<Vec<&str>> = path.strip_prefix(&app.site).ok()?.iter().map(|name| name.to_str()).collect();
    Some(names?.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_modules_from_libraries() {
        assert_eq!(Kind::of("_x.abi3.so"), Kind::Module("_x", "abi3"));
        assert_eq!(
            Kind::of("_x.cpython-313t-x86_64-linux-musl.so"),
            Kind::Module("_x", "cpython-313t-x86_64-linux-musl")
        );
        for library in ["x.so", "libz.so.1", "libz.so.1.2.13", "libopenblas-r0-0c.3.23.dev.so", "libx-1.2.so.5"] {
            assert!(matches!(Kind::of(library), Kind::Library(_)), "{library}");
        }
        for other in ["x.py", "so", "x.solid", "x"] {
            assert_eq!(Kind::of(other), Kind::Other, "{other}");
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
