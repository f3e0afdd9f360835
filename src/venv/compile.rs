//! Compiles all Python files of the environment to bytecode, on all processors.
//!
//! The tests that a package ships (`tests/test_*.py`) are left out: no app imports them, and numpy, pandas and scikit-learn
//! have many. They still work.
//!
//! An app's user usually cannot write `__pycache__`, so otherwise every start would compile again. A fixed
//! rule assigns the files to the workers: the same environment on the same number of processors gives the
//! same bytes. Earlier files of a worker affect which strings a file shares: with another number of
//! workers, 2 of 3,000 files had different bytes for the same code.

use std::cmp::Reverse;
use std::path::Path;

use tokio::task::JoinSet;

use super::child::child_error;
use super::explain;
use super::installed::EnvironmentFiles;
use super::interpreter::BARE;
use super::settings::Settings;
use crate::error::{Error, Result};
use crate::retry::Deadline;

const SCRIPT: &str = include_str!("compile.py");

/// Source bytes that justify one more worker: about 25 ms of compilation.
const BYTES_PER_WORKER: u64 = 64 * 1024;

/// The interpreter and the paths for the compilation.
#[derive(Debug)]
pub(super) struct Job<'a> {
    /// The base interpreter. It starts faster than the environment's.
    pub(super) python: &'a Path,
    pub(super) root: &'a Path,
    /// The path that tracebacks show.
    pub(super) final_path: &'a Path,
    pub(super) scratch: &'a Path,
    /// An unchanged environment of an earlier release for the same interpreter and path.
    pub(super) earlier: Option<&'a Path>,
}

/// A Python file that is no test. Apps do import other modules in directories named `tests`, such as astropy's runner.
fn is_for_apps(name: &Path) -> bool {
    let is_test = name.file_name().is_some_and(|file| file.as_encoded_bytes().starts_with(b"test_"))
        && name.parent().is_some_and(|dir| dir.iter().any(|part| part == "tests"));
    !is_test && name.extension().is_some_and(|extension| extension == "py")
}

/// Compiles the `*.py` in site-packages. Skips files with invalid syntax, as pip does.
pub(super) async fn compile(
    job: Job<'_>,
    files: &EnvironmentFiles,
    site: &Path,
    settings: &Settings,
    deadline: Deadline,
) -> Result<()> {
    let mut sources: Vec<(u64, &str)> = files
        .iter()
        .filter(|(name, _)| name.starts_with(site) && is_for_apps(name))
        .filter_map(|(name, size)| Some(((*size)?, name.to_str()?)))
        .collect();
    let count = sources.len();
    if count == 0 {
        return Ok(());
    }
    let bytes: u64 = sources.iter().map(|(size, _)| size).sum();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = cores.min(usize::try_from(bytes / BYTES_PER_WORKER).unwrap_or(cores)).clamp(1, count);

    // Assign the largest files first, each to the worker with the least work.
    sources.sort_by_key(|(size, name)| (Reverse(*size), *name));
    let mut shares: Vec<(u64, Vec<&str>)> = vec![(0, Vec::new()); workers];
    for (size, name) in sources {
        if let Some(share) = shares.iter_mut().min_by_key(|(load, _)| *load) {
            // An empty file also takes time.
            share.0 += size + 512;
            share.1.push(name);
        }
    }
    let (mut running, mut taken) = (JoinSet::new(), 0);
    for (_, names) in shares {
        let command = settings
            .command(job.python, job.scratch)
            .args(BARE)
            .args(["-W", "ignore", "-X", "utf8", "-c", SCRIPT])
            .arg(job.root)
            .arg(job.final_path)
            .args(job.earlier)
            .stdin(names.join("\0"));
        running.spawn(command.run(deadline));
    }
    while let Some(finished) = running.join_next().await {
        let output = finished
            .map_err(|error| Error::internal("a compile task failed").because(error))?
            .map_err(|failure| child_error("cannot compile the bytecode", failure))?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            if let Some(number) = line.strip_prefix("taken ").and_then(|number| number.parse::<usize>().ok()) {
                taken += number;
            } else {
                tracing::debug!("not compiled: {line}");
            }
        }
        if !output.status.success() {
            if let Some(error) = explain::full("cannot write the bytecode", &output.stderr) {
                return Err(error.excerpt(explain::excerpt(&output.stderr)));
            }
            return Err(Error::environment(format!("the bytecode compiler failed: {}", output.status))
                .excerpt(output.stderr)
                .hint(explain::limit(&output.status.to_string(), "").unwrap_or(explain::READ_OUTPUT)));
        }
    }
    let rest = if taken == 0 { String::new() } else { format!(", {taken} of them from an earlier environment") };
    tracing::debug!("bytecode of {count} files{rest}");
    Ok(())
}
