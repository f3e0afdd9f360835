//! Explains why a package without a wheel could not be built.

use super::failed::{Failed, Requirement};
use super::output::limit;
use super::phrases;
use crate::error::Error;
use crate::venv::interpreter::executable;
use crate::venv::requirements::name_of;

impl Failed<'_> {
    /// The error of a package that needs a build, although --only-binary forbids builds.
    pub(super) fn unbuilt(&self) -> Option<Error> {
        if !self.settings.only_binary() {
            return None;
        }
        let named = self
            .named(phrases::NEEDS_BUILD)
            .or_else(|| {
                let before = self.stderr.split_once(phrases::MARKED_NO_BUILD)?.0;
                before.rsplit_once('`')?.0.rsplit_once('`').map(|(_, name)| name)
            })
            .or_else(|| self.named(phrases::NO_WHEEL));
        if named.is_none() && !self.stderr.contains(phrases::BUILDS_DISABLED) {
            return None;
        }
        let name = Requirement(named.map(|named| {
            // Show only the last part of a directory's URL.
            let named = if named.starts_with("file://") { named.rsplit('/').next().unwrap_or(named) } else { named };
            Some(name_of(named)).filter(|name| !name.is_empty()).unwrap_or(named)
        }));
        let error = Error::environment(format!(
            "{name} has no wheel for {} and would have to be built, which --only-binary forbids",
            self.platform
        ))
        .hint(
            "pin a version with a wheel, or build a wheel (pip wheel) where the package's code may run, and give the \
             wheel's directory with --find-links",
        );
        let implied =
            "run podstrap in the app's own image to build it: another Python or platform implies --only-binary";
        Some(if self.elsewhere { error.hint(implied) } else { error })
            // Engines print some of these phrases for an unknown name too.
            .filter(|_| !self.stderr.contains(phrases::UNKNOWN_NAME))
    }

    /// The error of a build requirement that is not available. Engines install these into a separate environment.
    pub(super) async fn build_requirement(&self) -> Option<Error> {
        if !self.says(phrases::BUILD_REQUIREMENTS) {
            return None;
        }
        let lacking = self.sought().0?;
        for index in self.settings.indexes().into_iter().filter(|_| !self.settings.no_index()) {
            if let Err(error) = self.ask_index(index, name_of(lacking)).await {
                return Some(error);
            }
        }
        let package = self.built().unwrap_or("the package");
        Some(
            Error::environment(format!("the build of {package} requires {lacking}, which is not available"))
                .because(
                    "a build runs in a separate environment, with only the packages that its [build-system] requires",
                )
                .hint(format!(
                    "supply {} in the package indexes or with --find-links, or supply a wheel of {package}",
                    name_of(lacking)
                )),
        )
    }

    /// The package whose build failed.
    fn built(&self) -> Option<&str> {
        self.named(phrases::BUILT)?.split(" @ ").next().map(str::trim)
    }

    /// The error of a failed build: the package, the tags that a wheel needs, and the missing tool.
    pub(super) fn build(&self) -> Error {
        let name = Requirement(self.built());
        let compilers = ["cc", "gcc", "clang", "x86_64-linux-gnu-gcc", "aarch64-linux-gnu-gcc"];
        let path = self.settings.path();
        let present =
            compilers.iter().any(|compiler| path.iter().any(|dir| executable(&dir.join(compiler)).unwrap_or_default()));
        let output = format!("{}\n", self.stderr);
        let asked = phrases::COMPILERS
            .iter()
            .any(|compiler| phrases::NO_COMMAND.iter().any(|end| output.contains(&format!("{compiler}{end}"))));
        if asked && !present {
            return Error::environment(format!(
                "{name} has no wheel for {} and this image has no C compiler",
                self.platform
            ))
            .hint("pin a version with a wheel, use another image, or supply a wheelhouse (--find-links)");
        }
        if let Some((lacking, package)) = lacking(self.stderr) {
            return Error::environment(format!(
                "{name} has no wheel for {} and its build finds no {lacking}",
                self.platform
            ))
            .hint(format!(
                "pin a version with a wheel, use an image with {package}, or supply a wheelhouse (--find-links)"
            ));
        }
        if let Some(module) = self.named(phrases::NO_MODULE) {
            return Error::environment(format!(
                "{name} has no wheel for {} and its build imports {module}, which its [build-system] does not list",
                self.platform
            ))
            .hint(format!(
                "pin a version with a wheel, or supply a wheelhouse (--find-links); the package's authors can add \
                 {module} to [build-system]"
            ));
        }
        Error::environment(format!("{name} has no wheel for {} and could not be built", self.platform)).hint(
            limit(&self.status, self.stderr)
                .unwrap_or("pin a version with a wheel, or use an image with the tools that its build needs"),
        )
    }

    /// Whether a package's own build failed, and not the installation of its build requirements.
    pub(super) fn of_backend(&self) -> bool {
        self.stderr.contains(phrases::BACKEND_FAILED)
            || self.stderr.contains(phrases::PIP_CHILD_FAILED) && !self.stderr.contains(phrases::PIP_BUILD_REQUIREMENTS)
    }
}

/// The header, program or library that a build did not find, and the package that contains it.
fn lacking(stderr: &str) -> Option<(String, String)> {
    let line = |mark: &str| stderr.lines().find(|line| line.contains(mark));
    let says = |marks: &[&str]| marks.iter().any(|mark| stderr.contains(mark));
    let (gcc, gcc_end) = phrases::NO_HEADER_GCC;
    let (clang, clang_end) = phrases::NO_HEADER_CLANG;
    let what = None
        .or_else(|| {
            let text = line(gcc)?.split_once(gcc_end)?.0;
            Some(text[text.rfind([' ', '\'', '"', '`'])? + 1..].to_owned()).filter(|word| !word.is_empty())
        })
        .or_else(|| {
            let rest = line(clang)?.split_once(clang)?.1;
            Some(rest.split(clang_end).next()?.to_owned()).filter(|name| !name.is_empty())
        })
        .or_else(|| stderr.contains(phrases::NO_PG_CONFIG).then(|| "pg_config".to_owned()))
        .or_else(|| (says(phrases::NO_MYSQL) && stderr.contains("mysql")).then(|| "mysql_config".to_owned()))
        .or_else(|| says(phrases::NO_RUST).then(|| "Rust compiler".to_owned()))
        .or_else(|| says(phrases::NO_CMAKE).then(|| "CMake".to_owned()))
        .or_else(|| {
            let rest = line(phrases::NO_PKG_CONFIG)?.split_once("Package ")?.1;
            Some(rest.split([' ', ',']).next()?.trim_matches('\'').to_owned())
        })
        .or_else(|| {
            let rest = line(phrases::NO_LIBRARY)?.split_once(phrases::NO_LIBRARY)?.1;
            Some(format!("lib{}", rest.split([':', ' ']).next()?))
        })?;
    let known = phrases::BRINGS.iter().find(|(name, _)| what.starts_with(name));
    let package =
        known.map_or_else(|| format!("the -dev package that contains {what}"), |(_, package)| (*package).to_owned());
    Some((what, package))
}
