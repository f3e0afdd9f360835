//! Places the configuration in the directory of the image's entrypoint: no hook, no race, no control
//! socket.
//!
//! The entrypoint applies `/docker-entrypoint.d/*.json` if Unit's state is empty, as in each new container.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::config::{Config, read_config};
use crate::error::{Error, IoContext as _, Result};
use crate::files::{self, WRITTEN};

/// The name of the file, and its name while incomplete. The entrypoint looks for `*.json`.
const NAME: &str = "config.json";
const PART: &str = ".podstrap-config";

/// Copies a configuration into `dir`, which becomes `/docker-entrypoint.d`, with one rename. Returns the
/// path of the copy.
///
/// # Errors
/// Usage: the configuration is unreadable, or a link points outside `below`. Volume: writing failed.
pub fn place(config: &Path, below: Option<&Path>, dir: &Path) -> Result<PathBuf> {
    let read = placeable(config, below)?;
    let (part, path) = (dir.join(PART), dir.join(NAME));
    let what = || format!("cannot write {}", path.display());
    // Something else in its place is replaced.
    if files::read(&path, WRITTEN).is_ok_and(|there| there == read.bytes) {
        return Ok(path);
    }
    let write = || {
        // A killed run may have left it, or somebody else made it.
        files::unless_absent(fs::remove_file(&part))?;
        let mut file = File::create_new(&part)?;
        file.write_all(&read.bytes)?;
        // Any user that runs Unit must read it. The ConfigMap or the repository holds the same content.
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.sync_all()?;
        fs::rename(&part, &path)
    };
    write().on_volume(what).map_err(|error| {
        let _ = fs::remove_file(&part);
        match files::is_dir(dir) {
            Ok(false) => {
                error.hint("mount an emptyDir there, and the same one at /docker-entrypoint.d in Unit's container")
            }
            _ => error,
        }
    })?;
    Ok(path)
}

/// Reads the configuration for [`place`].
///
/// # Errors
/// Usage: it is unreadable, or a link points outside `below`.
pub fn placeable(config: &Path, below: Option<&Path>) -> Result<Config> {
    let read = read_config(config)?;
    if let Some(below) = below
        && !files::real(config)?.zip(files::real(below)?).is_some_and(|(config, below)| config.starts_with(below))
    {
        return Err(Error::usage(format!("{} points outside the tree", config.display()))
            .hint("use a file in the tree, not a link to a file outside the tree"));
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("unit.json"), "{}").unwrap();
        fs::create_dir(path("d")).unwrap();
        fs::write(path("d/.podstrap-config"), "of a run that was killed").unwrap();
        assert_eq!(place(&path("unit.json"), Some(dir.path()), &path("d")).unwrap(), path("d/config.json"));
        assert_eq!(fs::read(path("d/config.json")).unwrap(), b"{}");
        assert_eq!(fs::read_dir(path("d")).unwrap().count(), 1);
        assert_eq!(path("d/config.json").metadata().unwrap().permissions().mode() & 0o777, 0o644);
        let text = |config: &str, below: &str, to: &str| {
            place(&path(config), Some(&path(below)), &path(to)).unwrap_err().to_string()
        };
        assert!(text("unit.json", "d", "d").contains("points outside the tree"));
        assert!(text("none.json", "", "d").contains("cannot read the configuration"));
        assert!(text("unit.json", "", "nowhere").contains("mount an emptyDir there"));
    }
}
