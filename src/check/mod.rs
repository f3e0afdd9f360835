//! `podstrap check`: checks a Unit configuration without a Unit.
//!
//! ```text
//! bytes ──▶ config::json ──▶ validate ──▶ tree ──▶ print: findings with their lines
//!           Unit's JSON      Unit's       files in
//!           (syntax)         rules        the tree
//!                            (schema)
//! ```
//!
//! [`Finding::refused`] marks errors that Unit answers with 400. Unit accepts the other errors and then
//! fails. Findings that depend on the running Unit are warnings.

mod finding;
mod print;
mod schema;
mod spelling;
mod syntax;
mod tree;
mod validate;

use std::path::{Path, PathBuf};

use crate::config::{Config, json, read_config};
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::plan::{self, Tree};
use crate::size::count;
use print::Report;

pub use finding::{Checked, Finding, Severity, Upload};

/// Checks a configuration, and the files of the tree if one is given.
pub fn check(bytes: &[u8], tree: Option<&Tree>) -> Checked {
    let document = match json::parse(bytes) {
        Ok(document) => document,
        Err(flaw) => return Checked { findings: vec![syntax::flawed(bytes, &flaw)], hidden: flaw.hidden },
    };
    let mut findings = validate::validate(&document);
    if let Some(tree) = tree {
        findings.extend(tree::look(&document, tree));
    }
    findings.sort_by_key(|finding| finding.offset);
    Checked { findings, hidden: document.hidden }
}

/// Fails with the first error that a configuration has for a tree.
///
/// # Errors
/// `UnitRefused`: Unit would refuse the configuration, or could not run it.
pub fn refuse(config: &Config, tree: &Tree) -> Result<()> {
    let checked = check(&config.bytes, Some(tree));
    let mut errors = checked.findings.iter().filter(|finding| finding.severity == Severity::Error);
    let Some(first) = errors.next() else { return Ok(()) };
    let what = format!("{} does not fit its tree", config.path.display());
    let error = Error::new(Kind::UnitRefused, what).because(format!("{}: {}", first.pointer, first.message));
    let error = match errors.count() {
        0 => error,
        more => error.because(format!("and {more} more")),
    };
    Err(error.hint(first.hint.clone().unwrap_or_else(|| "run `podstrap check CONFIG --tree DIR`".to_owned())))
}

/// Checks the files, prints the findings to stdout, and fails if one is an error.
///
/// # Errors
/// `Usage`: a file is unreadable. `UnitRefused`: a file has errors.
pub fn run(plan: &plan::Check) -> Result<()> {
    if let Some(tree) = &plan.tree
        && !files::is_dir(&tree.dir)?
    {
        return Err(Error::usage(format!("--tree {} is not a directory", tree.dir.display()))
            .hint("use a published tree or a checkout"));
    }
    let (configs, beside) = configs(&plan.config)?;
    let mut report = Report::new(plan.json);
    for path in &configs {
        let config = read_config(path)?;
        let mut checked = check(&config.bytes, plan.tree.as_ref());
        // The image's entrypoint uploads the files next to the configuration first.
        let is_beside = |upload: &Upload| beside.contains(&upload.file());
        checked.findings.retain(|finding| !finding.needs.as_ref().is_some_and(is_beside));
        report.add(&config, &checked)?;
    }
    let what = match &configs[..] {
        [path] => path.display().to_string(),
        all => count(all.iter().map(|_| 1).sum(), "file"),
    };
    report.print(&what, plan.tree.is_some())?;
    if !report.has_errors() {
        return Ok(());
    }
    let what = format!("{} is not valid for Unit: {}", plan.config.display(), report.counted());
    Err(Error::new(Kind::UnitRefused, what).hint("read the findings and their lines on stdout"))
}

/// The file itself, or the directory's `*.json` in order; and the names of all entries of the directory.
fn configs(path: &Path) -> Result<(Vec<PathBuf>, Vec<String>)> {
    if !files::is_dir(path)? {
        return Ok((vec![path.to_owned()], Vec::new()));
    }
    let listing = files::list(path)
        .map_err(|error| files::unreadable(Kind::Usage, format!("cannot read {}", path.display()), &error))?;
    let names: Vec<_> = listing.iter().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
    let json = |name: &&String| Path::new(name).extension().is_some_and(|extension| extension == "json");
    let configs: Vec<_> = names.iter().filter(json).map(|name| path.join(name)).collect();
    if configs.is_empty() {
        return Err(Error::usage(format!("no *.json in {}", path.display()))
            .hint("give the configuration file, or a directory with *.json"));
    }
    Ok((configs, names))
}

#[cfg(fuzzing)]
pub mod fuzzing {
    pub use super::fuzz as check;
    pub use super::tree::python_source;
}

/// For any text: findings lie in it and can be printed, and the parser agrees about its JSON.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    use crate::config::{dialect, position};
    let tree = Tree { dir: "/nonexistent".into(), venv: "venv".into(), final_path: None };
    let config = Config::new("c.json".into(), data.to_vec());
    let value = dialect::to_value(data);
    for tree in [None, Some(&tree)] {
        let checked = check(data, tree);
        let json = checked.findings.iter().any(|finding| finding.rule == "json");
        assert_eq!(json, json::parse(data).is_err());
        if std::str::from_utf8(position::without_bom(data)).is_ok() {
            assert_eq!(json, value.is_err());
        }
        print::fuzz(&config, &checked);
        for finding in &checked.findings {
            assert!(!finding.refused || finding.severity == Severity::Error, "{finding:?}");
            // The pointer refers to a value, whatever its escapes.
            if !json && let Ok(value) = &value {
                assert!(value.pointer(&finding.pointer).is_some(), "{finding:?}");
            }
        }
    }
}
