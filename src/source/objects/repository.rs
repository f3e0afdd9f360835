//! Repositories on this machine: new ones for fetched objects, the user's own, and the errors of libgit2 about
//! them.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use git2::{AutotagOption, ErrorCode, FetchOptions, Indexer, RemoteCallbacks, Repository, RepositoryInitOptions};

use crate::error::{Error, IoContext, Kind, Result, said_of_volume, volume_error};
use crate::files::{self, GENERATED};
use crate::retry::Deadline;
use crate::size::Size;
use crate::source::objects::transport::MAX_OBJECT;
use crate::source::remote::refs::{Ref, Refs};
use crate::tree;

/// Bytes of a pack in memory.
const BUFFER: usize = 64 << 10;

/// Creates a bare repository. Replaces the leftovers of a failed try.
pub(crate) fn create(path: &Path) -> Result<()> {
    if files::exists(path)? {
        tree::remove(path).on_volume(|| format!("cannot remove {}", path.display()))?;
    }
    let what = format!("cannot create a scratch repository in {}", path.display());
    let made = (|| {
        let mut options = RepositoryInitOptions::new();
        let mut config = Repository::init_opts(path, options.bare(true).external_template(false))?.config()?;
        for (name, value) in [
            // Refuse names that are dangerous on other file systems.
            ("core.protectHFS", true),
            ("core.protectNTFS", true),
            ("core.symlinks", true),
            ("core.fileMode", true),
            ("core.autocrlf", false),
        ] {
            config.set_bool(name, value)?;
        }
        Ok(())
    })();
    made.map_err(|error| failure(&what, &error))
}

/// The references of a repository on this machine, and the directory of its objects.
pub(crate) fn open_local(path: &Path, url: &str) -> Result<(Refs, PathBuf)> {
    let read = || {
        let repo = Repository::open(path)?;
        let mut refs = Refs::default();
        for reference in repo.references()? {
            let reference = reference?;
            // Skip a reference that leads nowhere.
            let (Ok(name), Some(oid)) = (reference.name(), reference.resolve().ok().and_then(|direct| direct.target()))
            else {
                continue;
            };
            let peeled =
                repo.find_tag(oid).ok().and_then(|tag| Some(tag.into_object().peel(git2::ObjectType::Any).ok()?.id()));
            refs.all.push(Ref { name: name.to_owned(), oid, peeled });
        }
        let head = repo.find_reference("HEAD")?;
        refs.head = head.symbolic_target().ok().flatten().map(str::to_owned);
        if let Some(oid) = head.resolve().ok().and_then(|direct| direct.target()) {
            refs.all.insert(0, Ref { name: "HEAD".to_owned(), oid, peeled: None });
        }
        Ok((refs, repo.commondir().to_owned()))
    };
    let (mut refs, dir) = read().map_err(|error: git2::Error| {
        Error::source(format!("{url} is not a readable Git repository"))
            .because(error.message())
            .hint("give a repository's directory, or give a path without file:// to copy a directory unchanged")
    })?;
    let cut = dir.join("shallow");
    let shallow = files::read_if_there(&cut, GENERATED)
        .map_err(|error| files::unreadable(Kind::Source, format!("cannot read {}", cut.display()), &error))?;
    let shallow = String::from_utf8_lossy(&shallow.unwrap_or_default()).into_owned();
    refs.shallow = shallow.lines().filter_map(|line| git2::Oid::from_str(line).ok()).collect();
    Ok((refs, dir.join("objects")))
}

/// Copies a local repository's objects into a new one, because the original may not exist where the tree is
/// used.
pub(crate) fn fetch_local(
    from: &Path,
    to: &Path,
    refspecs: &[String],
    limit: Size,
    deadline: Deadline,
    what: &str,
) -> Result<()> {
    create(to)?;
    let fetch = || {
        let repo = Repository::open_bare(to)?;
        let mut callbacks = RemoteCallbacks::new();
        callbacks.transfer_progress(|done| !deadline.passed() && done.received_bytes() as u64 <= limit.0);
        let mut options = FetchOptions::new();
        options.remote_callbacks(callbacks).download_tags(AutotagOption::None).update_fetchhead(false);
        repo.remote_anonymous(&from.to_string_lossy())?.download(refspecs, Some(&mut options))
    };
    fetch().map_err(|error: git2::Error| failure(what, &error).permanent())
}

/// Moves a pack to a new repository, for which libgit2 copies and reads it in full.
pub(crate) fn index(pack: &Path, to: &Path, deadline: Deadline, what: &str) -> Result<()> {
    create(to)?;
    let unreadable = |error: &std::io::Error| volume_error(format!("cannot read {}", pack.display()), error);
    let mut from = std::fs::File::open(pack).map_err(|error| unreadable(&error))?;
    let mut indexer = Indexer::new(None, &to.join("objects/pack"), 0, false).map_err(|error| failure(what, &error))?;
    indexer.progress(|_| !deadline.passed());
    let mut buffer = vec![0; BUFFER];
    let indexed = loop {
        let length = from.read(&mut buffer).map_err(|error| unreadable(&error))?;
        if length == 0 {
            break indexer.commit().map(|_| ());
        }
        if let Err(error) = indexer.write_all(&buffer[..length]) {
            let libgit2 = error.into_inner().and_then(|inner| inner.downcast::<git2::Error>().ok());
            break Err(libgit2.map_or_else(|| git2::Error::from_str("the pack is damaged"), |error| *error));
        }
    };
    indexed.map_err(|error| match error.code() {
        ErrorCode::User if deadline.passed() => deadline.late(what).unreachable(),
        _ => failure(what, &error),
    })?;
    std::fs::remove_file(pack).on_volume(|| format!("cannot remove {}", pack.display()))
}

/// The error for a failure of libgit2. An error of the volume is recognised by the text that libgit2 takes from
/// the system. A damaged pack may arrive complete the next time.
pub(crate) fn failure(what: &str, error: &git2::Error) -> Error {
    let message = error.message();
    if let Some(system) = said_of_volume(message) {
        return volume_error(format!("{what}: {message}"), &system);
    }
    let made = Error::source(what).because(message);
    match error.class() {
        git2::ErrorClass::NoMemory => {
            made.because(format!("an object takes more than {}", Size(MAX_OBJECT as u64))).hint(
                "repack the repository with git, which stores files of this size without deltas, or remove \
                 these files from the repository",
            )
        }
        git2::ErrorClass::Net | git2::ErrorClass::Indexer | git2::ErrorClass::Zlib => made.transient(None),
        _ => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use git2::{ErrorClass, ErrorCode};

    #[test]
    fn what_the_volume_caused_is_an_error_of_the_volume() {
        let error = |class, message: &str| {
            failure("cannot fetch x", &git2::Error::new(ErrorCode::GenericError, class, message))
        };
        let full = error(ErrorClass::Os, "cannot extend packfile '/x': No space left on device");
        assert_eq!((full.kind(), full.retry()), (Kind::Volume, None));
        assert!(full.to_string().contains("hint: raise the emptyDir's sizeLimit"), "{full}");
        assert_eq!(error(ErrorClass::Os, "failed to open '/x': Read-only file system").kind(), Kind::Volume);
        let damaged = error(ErrorClass::Indexer, "unexpected end of pack");
        assert!(damaged.kind() == Kind::Source && damaged.retry().is_some());
        assert_eq!(error(ErrorClass::Object, "no such object").retry(), None);
    }
}
