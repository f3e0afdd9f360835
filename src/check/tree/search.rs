//! Searches modules as Python does.

use std::path::{Path, PathBuf};

use super::files::{There, at, is_a, names};
use super::look::{Look, Named};
use crate::check::spelling::meant;

/// The search path.
#[derive(Default)]
pub struct Search {
    /// In order.
    pub dirs: Vec<PathBuf>,
    /// Python also searches places that podstrap cannot see.
    pub elsewhere: bool,
}

impl Search {
    /// The directory that contains a module, and the module's file.
    pub fn module(&self, name: &str) -> Option<(PathBuf, PathBuf)> {
        let relative: PathBuf = Some(name).filter(|name| !name.contains('/'))?.split('.').collect();
        self.dirs.iter().find_map(|dir| Some((dir.clone(), module_in(dir, &relative)?)))
    }

    pub fn hint(&self, name: &str, look: &Look, directory: Option<&Named>) -> Option<String> {
        if let Some(stem) = name.strip_suffix(".py") {
            return Some(format!("use the name of the module without .py: \"{}\"", stem.replace('/', ".")));
        }
        if name.contains('/') {
            return Some(format!("use dots for a module in a package: \"{}\"", name.replace('/', ".")));
        }
        let relative: PathBuf = name.split('.').collect();
        let beside =
            directory.filter(|dir| look.here(&dir.text).is_some_and(|dir| module_in(&dir, &relative).is_some()));
        if let Some(directory) = beside {
            return Some(format!("Python does not search working_directory; set \"path\": \"{}\"", directory.text));
        }
        let names: Vec<_> = self.dirs.iter().flat_map(|dir| names(dir)).collect();
        let stems = names.iter().map(|name| name.strip_suffix(".py").unwrap_or(name));
        meant(name, stems).map(|meant| format!("did you mean \"{meant}\"?"))
    }
}

/// The file of a module, or the directory of a package without `__init__.py`.
fn module_in(dir: &Path, relative: &Path) -> Option<PathBuf> {
    let base = dir.join(relative);
    let init = base.join("__init__.py");
    let source = base.with_file_name(format!("{}.py", base.file_name()?.to_string_lossy()));
    if at(&init) == There::File {
        return Some(init);
    }
    if at(&source) == There::File {
        return Some(source);
    }
    // Compiled modules: foo.cpython-311-x86_64-linux-gnu.so, foo.abi3.so, foo.pyc.
    let stem = format!("{}.", base.file_name()?.to_string_lossy());
    let parent = base.parent()?;
    let compiled =
        names(parent).into_iter().find(|name| name.starts_with(&stem) && (is_a(name, "so") || is_a(name, "pyc")));
    compiled.map(|name| parent.join(name)).or_else(|| (at(&base) == There::Directory).then_some(base))
}
