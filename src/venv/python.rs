//! Creates an empty environment, and describes its interpreter.

use std::path::{Path, PathBuf};

use super::child::child_error;
use super::settings::Settings;
use super::{explain, interpreter};
use crate::error::{Error, Result};
use crate::retry::Deadline;

/// The description that the interpreter gives of itself.
#[derive(Debug)]
pub(super) struct Python {
    pub(super) version: String,
    /// `(3, 13)` for 3.13.
    pub(super) number: (u32, u32),
    /// `cpython-313-x86_64-linux-gnu`
    pub(super) soabi: String,
    pub(super) free_threaded: bool,
    /// `3.13.1rc1`. This and the fields below are the values of markers.
    pub(super) full_version: String,
    /// `cpython`
    pub(super) implementation: String,
    pub(super) implementation_version: String,
    pub(super) machine: String,
    pub(super) release: String,
    pub(super) kernel: String,
    /// The import path of `pip`, and its version.
    pub(super) pip: Option<(PathBuf, String)>,
    /// site-packages as a path in the environment.
    pub(super) site: PathBuf,
}

/// Creates the empty environment and gets the description, with one start of the interpreter.
pub(super) async fn create(
    settings: &Settings,
    python: &Path,
    dir: &Path,
    final_path: &Path,
    scratch: &Path,
    deadline: Deadline,
) -> Result<Python> {
    let what = || format!("cannot create a virtual environment with {}", python.display());
    let output = settings
        .command(python, scratch)
        .args(interpreter::BARE)
        .args(["-c", include_str!("environment.py")])
        .arg(dir)
        .arg(final_path)
        .run(deadline)
        .await
        .map_err(|failure| child_error(&what(), failure))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    if let Some(version) = said("version") {
        let mut numbers = version.split('.').map(|number| number.parse().unwrap_or_default());
        let number = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        interpreter::refuse_old(python, version, number)?;
        if said("missing").is_some() {
            return Err(Error::environment(what()).because("its standard library has no venv module").hint(
                "install the missing part (python3-venv on Debian and Ubuntu), or use an image with a complete Python",
            ));
        }
        if output.status.success() && said("created").is_some() {
            let known = |name: &str| said(name).unwrap_or_default().to_owned();
            return Ok(Python {
                version: version.to_owned(),
                number,
                soabi: known("soabi"),
                free_threaded: said("free_threaded") == Some("1"),
                full_version: known("full_version"),
                implementation: known("implementation"),
                implementation_version: known("implementation_version"),
                machine: known("machine"),
                release: known("release"),
                kernel: known("kernel"),
                pip: said("pip").zip(said("pip_version")).map(|(place, version)| (place.into(), version.to_owned())),
                site: known("site").into(),
            });
        }
    }
    if let Some(error) = explain::full(&what(), &output.stderr) {
        return Err(error.excerpt(explain::excerpt(&output.stderr)));
    }
    Err(Error::environment(what()).because(output.status.to_string()).excerpt(explain::excerpt(&output.stderr)).hint(
        explain::limit(&output.status.to_string(), &output.stderr)
            .unwrap_or("run the same interpreter by hand to see the error: python3 -m venv --without-pip DIR"),
    ))
}
