//! Reads the parts of uv's lock files that podstrap needs.

use std::path::Path;

use toml::{Table, Value};

use super::pyproject;
use super::requirements;
use crate::error::{Kind, Result};
use crate::files;

/// The first package in a lock file whose source is a directory. uv builds the projects of a workspace in spite of
/// `--no-build`. `None` if the file is invalid; uv reports that.
///
/// # Errors
/// The file is unreadable.
pub(super) fn project(lock: &Path) -> Result<Option<String>> {
    Ok(directory(&text(lock)?))
}

fn directory(lock: &str) -> Option<String> {
    let table = lock.parse::<Table>().ok()?;
    let packages = ["package", "packages"].iter().find_map(|name| table.get(*name)?.as_array())?;
    let found = packages.iter().find(|package| {
        let source = package.get("source").and_then(Value::as_table);
        package.get("directory").is_some()
            || source.is_some_and(|source| source.contains_key("editable") || source.contains_key("directory"))
    })?;
    Some(found.get("name").and_then(Value::as_str).unwrap_or("a project").to_owned())
}

/// Whether every source in a uv.lock is remote: nothing is in the tree or elsewhere on this machine.
pub(super) fn is_all_remote(lock: &str) -> bool {
    let Ok(table) = lock.parse::<Table>() else { return false };
    let packages = table.get("package").and_then(Value::as_array).into_iter().flatten();
    packages.into_iter().all(|package| {
        let source = package.get("source").and_then(Value::as_table);
        source.is_some_and(|source| {
            source.iter().all(|(kind, place)| match kind.as_str() {
                "virtual" | "git" | "url" | "subdirectory" => true,
                "registry" => place.as_str().is_some_and(|place| place.contains("://") && !place.starts_with("file:")),
                _ => false,
            })
        })
    })
}

/// The normalized names of all packages in a lock file.
pub(super) fn names(lock: &str) -> Vec<String> {
    let table = lock.parse::<Table>().unwrap_or_default();
    let packages = ["package", "packages"].iter().filter_map(|name| table.get(*name)?.as_array()).flatten();
    packages.filter_map(|package| package.get("name")?.as_str()).map(pyproject::normal).collect()
}

/// The local paths in a project or a lock file, as far as its names of fields show them.
pub(super) fn paths(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut left: Vec<(String, Value)> = text.parse::<Table>().unwrap_or_default().into_iter().collect();
    while let Some((name, value)) = left.pop() {
        match value {
            Value::Table(table) => left.extend(table),
            Value::Array(values) => left.extend(values.into_iter().map(|value| (name.clone(), value))),
            Value::String(text) => {
                let is_path = ["path", "editable", "directory", "registry"].contains(&name.as_str());
                if let Some((_, path)) = text.split_once("file://") {
                    found.extend(path.split(['#', '?', ';', ' ']).next().map(str::to_owned));
                } else if is_path && !text.contains("://") {
                    found.push(text);
                }
            }
            _ => {}
        }
    }
    found
}

/// Whether a lock file contains web URLs.
///
/// # Errors
/// The file is unreadable.
pub(super) fn names_urls(lock: &Path) -> Result<bool> {
    let text = text(lock)?;
    Ok(text.contains("http://") || text.contains("https://"))
}

fn text(lock: &Path) -> Result<String> {
    let bytes = requirements::contents(lock)
        .map_err(|error| files::unreadable(Kind::Environment, format!("cannot read {}", lock.display()), &error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_tells_what_it_takes_from_this_machine() {
        for (source, remote) in [
            ("{ registry = \"https://h/simple\" }", true),
            ("{ git = \"https://h/x\" }", true),
            ("{ virtual = \".\" }", true),
            ("{ registry = \"file:///w\" }", false),
            ("{ registry = \"w\" }", false),
            ("{ editable = \".\" }", false),
            ("{ directory = \"x\" }", false),
        ] {
            let lock = format!("[[package]]\nname = \"x\"\nsource = {source}");
            assert_eq!(is_all_remote(&lock), remote, "{source}");
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("uv.lock");
            std::fs::write(&file, lock).unwrap();
            let built = source.contains("editable") || source.contains("directory");
            let found = (project(&file).unwrap(), names_urls(&file).unwrap());
            assert_eq!(found, (built.then(|| "x".into()), source.contains("http")));
        }
        let lock = "[[package]]\nsource = { editable = 'lib' }\nwheels = [{ path = 'x.whl' }, { url = 'https://h/y.whl' }]\n\
                    [project]\ndependencies = ['z @ file:///z.whl#sha256=ab']";
        let mut found = paths(lock);
        found.sort();
        assert_eq!(found, ["/z.whl", "lib", "x.whl"]);
        assert!(!is_all_remote("[[package]]\nname = 'x'") && !is_all_remote("not toml"));
    }
}
