//! Reads the parts of uv's lock files that podstrap needs.

use std::path::Path;

use toml::{Table, Value};

use super::requirements;

/// The first package in a lock file whose source is a directory. uv builds the projects of a workspace in spite of
/// `--no-build`. `None` if the file is unreadable; uv reports that.
pub(super) fn project(lock: &Path) -> Option<String> {
    let table = text(lock)?.parse::<Table>().ok()?;
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

/// Whether a lock file contains web URLs.
pub(super) fn names_urls(lock: &Path) -> bool {
    text(lock).is_some_and(|text| text.contains("http://") || text.contains("https://"))
}

fn text(lock: &Path) -> Option<String> {
    String::from_utf8(requirements::contents(lock).ok()?).ok()
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
            assert_eq!((project(&file), names_urls(&file)), (built.then(|| "x".into()), source.contains("http")));
        }
        assert!(!is_all_remote("[[package]]\nname = 'x'") && !is_all_remote("not toml"));
    }
}
