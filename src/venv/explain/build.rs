//! A package that has to be built here, and cannot.

use super::failed::Failed;
use super::output::limit;
use super::phrases;
use crate::error::Error;
use crate::venv::interpreter::executable;
use crate::venv::requirements::name_of;

impl Failed<'_> {
    /// What would have to be built, where nothing may be.
    pub(super) fn unbuilt(&self) -> Option<Error> {
        if !self.settings.only_binary() {
            return None;
        }
        let named = self
            .between("only-binary: ", " would have to be built")
            .or_else(|| self.between("but attempted to build `", "`"))
            .or_else(|| self.between("Building source distributions for `", "`"))
            .or_else(|| self.between("Wheels are required for `", "`"))
            .or_else(|| {
                let at = self.stderr.find("is marked as `--no-build`")?;
                self.stderr[..at].rsplit_once('`')?.0.rsplit_once('`').map(|(_, name)| name)
            })
            .or_else(|| self.between("Because ", " has no usable wheels"))
            .or_else(|| self.between("No matching distribution found for ", "\n"))
            .or_else(|| self.stderr.contains("Building source distributions is disabled").then_some("a requirement"))?;
        // A directory instead of a name: its own says most.
        let named = if named.starts_with("file://") { named.rsplit('/').next().unwrap_or(named) } else { named };
        let name = name_of(named);
        let name = if name.is_empty() || named == "a requirement" { named } else { name };
        let error = Error::environment(format!(
            "{name} has no wheel for {} and would have to be built, which --only-binary forbids",
            self.platform
        ))
        .hint(
            "pin a version with a wheel; or build one where its code may run (pip wheel), and name the directory \
             with --find-links",
        );
        let implied =
            "for another Python or platform --only-binary is meant; in the app's own image podstrap can build";
        Some(if self.elsewhere { error.hint(implied) } else { error })
            // An index without the name at all says the same.
            .filter(|_| !self.stderr.contains("was not found in the"))
    }

    /// What a build itself requires, and cannot have: pip's isolated environment, and uv's.
    pub(super) async fn build_requirement(&self) -> Option<Error> {
        let isolated = [
            "to install build dependencies",
            "Failed to resolve requirements from",
            "Failed to install requirements from",
        ];
        if !self.says(&isolated) {
            return None;
        }
        let lacking = self.sought();
        if lacking == "a requirement" {
            return None;
        }
        for index in self.settings.indexes().into_iter().filter(|_| !self.settings.no_index()) {
            if let Err(error) = self.ask_index(index, name_of(lacking)).await {
                return Some(error);
            }
        }
        let package = self.built().unwrap_or("the package");
        Some(
            Error::environment(format!("the build of {package} needs {lacking}, which is not to be had"))
                .because("a build gets an environment of its own, with what its [build-system] requires")
                .hint(format!(
                    "what a build needs comes from the same indexes and --find-links: supply {} there, or a wheel of {package}",
                    name_of(lacking)
                )),
        )
    }

    /// The package whose build failed.
    fn built(&self) -> Option<&str> {
        let named = self
            .between("Failed building wheel for ", "\n")
            .or_else(|| self.between("Failed to build `", "`"))
            .or_else(|| self.between("Building wheel for ", " "))
            .or_else(|| self.between("Failed to build '", "'"))?;
        named.split(" @ ").next().map(str::trim)
    }

    /// Why a package cannot be built here: its name, what a wheel must be for, and what is missing.
    pub(super) fn build(&self) -> Error {
        let name = self.built().unwrap_or("a requirement");
        let compilers = ["cc", "gcc", "clang", "x86_64-linux-gnu-gcc", "aarch64-linux-gnu-gcc"];
        let path = self.settings.path();
        let present = compilers.iter().any(|compiler| path.iter().any(|dir| executable(&dir.join(compiler))));
        let asked = ["gcc", "cc", "clang", "c++", "g++"].iter().any(|compiler| {
            [format!("{compiler}' failed: No such"), format!("{compiler}'\n"), format!("{compiler}: not found")]
                .iter()
                .any(|phrase| format!("{}\n", self.stderr).contains(phrase))
        });
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
        if let Some(module) = self.between("ModuleNotFoundError: No module named '", "'") {
            return Error::environment(format!(
                "{name} has no wheel for {} and its build imports {module}, which it does not require",
                self.platform
            ))
            .hint(format!(
                "a build sees nothing but what its [build-system] requires: name {module} there, pin a version with a \
                 wheel, or supply a wheelhouse (--find-links)"
            ));
        }
        Error::environment(format!("{name} has no wheel for {} and could not be built", self.platform)).hint(
            limit(&self.status, self.stderr)
                .unwrap_or("pin a version with a wheel, or use an image with what its build asks for"),
        )
    }

    /// Whether it was a package's own code that failed, not the fetching of what that needs.
    pub(super) fn of_backend(&self) -> bool {
        self.stderr.contains("The build backend returned an error")
            || self.stderr.contains("subprocess-exited-with-error")
                && !self.stderr.contains("to install build dependencies")
    }
}

/// What a build looked for and did not find, and what to have for it.
fn lacking(stderr: &str) -> Option<(String, String)> {
    let line = |mark: &str| stderr.lines().find(|line| line.contains(mark));
    let word = |line: &str, end: &str| {
        let text = &line[..line.find(end)?];
        Some(text[text.rfind([' ', '\'', '"', '`'])? + 1..].to_owned()).filter(|word| !word.is_empty())
    };
    let what = None
        // GCC's words, and Clang's.
        .or_else(|| word(line("fatal error: ").filter(|line| line.contains(": No such file"))?, ": No such file"))
        .or_else(|| {
            let rest = line("fatal error: '")?.split_once("fatal error: '")?.1;
            Some(rest.split('\'').next()?.to_owned()).filter(|name| !name.is_empty())
        })
        .or_else(|| line("pg_config executable not found").map(|_| "pg_config".to_owned()))
        .or_else(|| {
            let found = line("mysql_config: not found").or_else(|| line("Can not find valid pkg-config name"));
            found.filter(|_| stderr.contains("mysql")).map(|_| "mysql_config".to_owned())
        })
        .or_else(|| {
            let marks = [
                "can't find Rust compiler",
                "Rust compiler not found",
                "requires Rust",
                "Cargo, the Rust package manager",
            ];
            marks.iter().find_map(|mark| line(mark)).map(|_| "Rust compiler".to_owned())
        })
        .or_else(|| {
            let marks = ["CMake must be installed", "Could not find CMake", "cmake: not found", "'cmake'"];
            marks.iter().find_map(|mark| line(mark)).map(|_| "CMake".to_owned())
        })
        .or_else(|| {
            let rest = line("was not found in the pkg-config search path")?.split_once("Package ")?.1;
            Some(rest.split([' ', ',']).next()?.trim_matches('\'').to_owned())
        })
        .or_else(|| {
            let rest = line("cannot find -l")?.split_once("cannot find -l")?.1;
            Some(format!("lib{}", rest.split([':', ' ']).next()?))
        })?;
    let known = phrases::BRINGS.iter().find(|(name, _)| what.starts_with(name));
    let package =
        known.map_or_else(|| format!("what brings {what} (a -dev package)"), |(_, package)| (*package).to_owned());
    Some((what, package))
}
