//! Finds paths of the container in the tree, and collects the findings.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::files::{There, at, near};
use crate::check::finding::{Finding, pointer};
use crate::config::applications::{applications_in, targets_in};
use crate::config::json::{Document, Id};
use crate::config::localize::{Mapping, ends_alike};
use crate::files;
use crate::plan::{Tree, normal};

/// The state of the check of one tree.
pub struct Look<'a> {
    pub document: &'a Document<'a>,
    pub tree: &'a Tree,
    /// Maps paths of the container to the tree.
    pub mapping: Option<Mapping>,
    /// The JSON Pointer of the current application.
    pub pointer: String,
    /// The `user` of the current application.
    pub user: Option<String>,
    /// Paths already reported as unreadable, with the user.
    pub unreadable: HashSet<(Option<String>, PathBuf)>,
    pub findings: Vec<Finding>,
}

/// The value of a member, its offset in the file, and its JSON Pointer.
pub struct Named {
    pub text: String,
    pub at: usize,
    pub pointer: String,
}

impl Look<'_> {
    pub fn applications(&self) -> Vec<(String, Id)> {
        let apps = applications_in(self.document).iter();
        apps.map(|found| (String::from_utf8_lossy(&found.name).into_owned(), found.value)).collect()
    }

    pub fn named(&self, id: Id, name: &str) -> Option<Named> {
        let value = self.document.get(id, name)?;
        let text = self.document.string(value)?;
        Some(Named { text, at: self.document.span(value).start, pointer: format!("{}/{name}", self.pointer) })
    }

    pub fn add(&mut self, named: &Named, finding: Finding) -> &mut Finding {
        self.findings.push(Finding { offset: named.at, pointer: named.pointer.clone(), ..finding });
        let last = self.findings.len() - 1;
        &mut self.findings[last]
    }
    pub fn error(&mut self, rule: &'static str, named: &Named, message: impl Into<String>) -> &mut Finding {
        self.add(named, Finding::error(rule, named.at, message))
    }
    pub fn warn(&mut self, rule: &'static str, named: &Named, message: impl Into<String>) -> &mut Finding {
        self.add(named, Finding::warning(rule, named.at, message))
    }

    /// Determines the path of the tree in the container.
    pub fn find_place(&mut self) {
        if let Some(there) = &self.tree.final_path {
            self.mapping = Some(Mapping::new(there.clone(), self.tree.dir.clone()));
            return;
        }
        let Some(home) = self.applications().into_iter().find_map(|(name, app)| {
            let pointer = pointer(["applications", &name, "home"]);
            self.named(app, "home").map(|home| Named { pointer, ..home })
        }) else {
            let root = Named {
                text: String::new(),
                at: self.document.span(self.document.root()).start,
                pointer: String::new(),
            };
            let message = "no application has a \"home\" that locates the tree, so podstrap checks no paths";
            self.warn("tree-place", &root, message).hint =
                Some("set the tree's path in the app's container with --tree-final-path".to_owned());
            return;
        };
        if !ends_alike(Path::new(&home.text), &self.tree.venv) {
            let message =
                format!("\"home\" does not end with --venv {}, so podstrap checks no paths", self.tree.venv.display());
            self.warn("tree-place", &home, message).hint = Some(
                "set --venv to the environment's directory in the tree, or --tree-final-path to the tree's \
                     path in the container"
                    .to_owned(),
            );
            return;
        }
        self.mapping = Some(Mapping::by_environment(Path::new(&home.text), &self.tree.venv, &self.tree.dir));
    }

    /// Maps a path of the container to this machine; None outside the tree.
    pub fn here(&self, path: &str) -> Option<PathBuf> {
        self.mapping.as_ref()?.here(&normal(Path::new(path)))
    }

    /// The absolute form of a path that is relative to the working directory.
    pub fn absolute(app_directory: Option<&Named>, path: &str) -> Option<String> {
        if path.starts_with('/') {
            return Some(path.to_owned());
        }
        app_directory.map(|directory| format!("{}/{path}", directory.text))
    }

    /// Checks the kind of a path, and adds a finding if it is missing or another kind.
    ///
    /// Returns its path on this machine. Skips paths outside the tree.
    pub fn expect(
        &mut self,
        rule: &'static str,
        named: &Named,
        path: &str,
        wanted: There,
        fatal: bool,
    ) -> Option<PathBuf> {
        let here = self.here(path)?;
        let what = if wanted == There::Directory { "directory" } else { "file" };
        let problem = match at(&here) {
            There::Unknown => return None,
            found if found == wanted => {
                self.readable(named, &here);
                return Some(here);
            }
            There::Nothing => format!("the {what} {path} is not in the tree"),
            There::Directory | There::File => format!("{path} is not a {what} in the tree"),
        };
        let hint = near(&here);
        let finding = if fatal { self.error(rule, named, problem) } else { self.warn(rule, named, problem) };
        finding.hint = hint.map(|name| format!("did you mean {name}?"));
        None
    }

    /// Warns unless all users can read a file and enter its directories, up to the root of the tree.
    pub fn readable(&mut self, named: &Named, path: &Path) {
        if self.user.as_deref() == Some("root")
            || self.findings.iter().any(|f| f.rule == "permissions" && f.pointer == named.pointer)
        {
            return;
        }
        for part in path.ancestors().take_while(|part| part.starts_with(&self.tree.dir) && *part != self.tree.dir) {
            let Ok(Some(metadata)) = files::metadata(part) else { continue };
            // Entering a directory does not need the permission to list it.
            let needed = if metadata.is_dir() { 0o001 } else { 0o004 };
            if metadata.permissions().mode() & needed != 0 {
                continue;
            }
            let shown = part.strip_prefix(&self.tree.dir).unwrap_or(part).display().to_string();
            let user = match &self.user {
                Some(user) => format!("the user {user}"),
                None => "the user that Unit runs applications as".to_owned(),
            };
            let mode = metadata.permissions().mode() & 0o777;
            let message = format!("{user} may be unable to read {shown} (mode {mode:04o})");
            if !self.unreadable.insert((self.user.clone(), part.to_owned())) {
                return;
            }
            self.warn("permissions", named, message).hint =
                Some("make it readable for all users with chmod o+rX".to_owned());
            return;
        }
    }

    /// Calls a function for the application, or for each of its targets.
    pub fn each_entry(&mut self, app: Id, mut each: impl FnMut(&mut Self, Id)) {
        let Some(targets) = targets_in(self.document, app) else { return each(self, app) };
        let outer = self.pointer.clone();
        for target in targets {
            self.pointer = outer.clone() + &pointer(["targets", &*String::from_utf8_lossy(&target.name)]);
            each(self, target.value);
        }
        self.pointer = outer;
    }
}
