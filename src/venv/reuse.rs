//! Adopts the environment of an earlier release instead of building the same one again.
//!
//! podstrap hard-links the files if the file system can, and otherwise copies them. podstrap never writes into a linked
//! file, and an app without write permission cannot. The fingerprint shows whether anybody else did.

use std::fs::{self, File, FileTimes, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::record::EnvironmentRecord;
use crate::error::{IoContext, Result};
use crate::runtime::hex;
use crate::walk::{Entry, walk};

/// Whether an environment still is as it was built.
pub fn is_unchanged(dir: &Path, record: &EnvironmentRecord) -> bool {
    fingerprint(dir).is_ok_and(|found| found == record.fingerprint)
}

/// Hash of all names with their owners, types, modes, sizes, modification times and link targets. A written, added,
/// removed or replaced file changes it. Does not read contents.
pub(super) fn fingerprint(dir: &Path) -> Result<String> {
    let mut digest = Sha256::new();
    each(dir, &mut |entry, meta| {
        let name = entry.name.as_os_str().as_encoded_bytes();
        digest.update((name.len() as u64).to_be_bytes());
        digest.update(name);
        digest.update(meta.mode().to_be_bytes());
        // Another user can write an entry with any modification time.
        digest.update(meta.uid().to_be_bytes());
        if meta.is_symlink() {
            digest.update(fs::read_link(&entry.path)?.as_os_str().as_encoded_bytes());
        } else if meta.is_file() {
            digest.update(meta.len().to_be_bytes());
            digest.update(meta.mtime().to_be_bytes());
            digest.update(meta.mtime_nsec().to_be_bytes());
        }
        Ok(())
    })
    .on_volume(|| format!("cannot list {}", dir.display()))?;
    Ok(hex(&digest.finalize()))
}

/// Links or copies the environment at `from` to `to`, which must not exist. Returns false and creates nothing if the
/// environment no longer has this `fingerprint`.
///
/// `may_link` says that nothing will write into the files of `to`.
///
/// # Errors
/// The volume is full or not writable.
pub fn adopt(from: &Path, to: &Path, fingerprint: &str, may_link: bool) -> Result<bool> {
    if self::fingerprint(from).ok().as_deref() != Some(fingerprint) {
        return Ok(false);
    }
    fs::create_dir(to)
        .and_then(|()| fs::set_permissions(to, from.metadata()?.permissions()))
        .and_then(|()| {
            each(from, &mut |entry, meta| {
                let to = to.join(&entry.name);
                if meta.is_dir() {
                    fs::create_dir(&to)?;
                    fs::set_permissions(&to, Permissions::from_mode(meta.mode() & 0o7777))
                } else if meta.is_symlink() {
                    symlink(fs::read_link(&entry.path)?, &to)
                } else if may_link && fs::hard_link(&entry.path, &to).is_ok() {
                    Ok(())
                } else {
                    copy(&entry.path, meta, &to)
                }
            })
        })
        .on_volume(|| format!("cannot link {} to {}", from.display(), to.display()))?;
    Ok(true)
}

/// Copies a file that podstrap cannot link: it belongs to another user (`fs.protected_hardlinks`), has too many links,
/// or the file system has no hard links.
fn copy(from: &Path, meta: &Metadata, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    File::options()
        .write(true)
        .open(to)
        .or_else(|_| File::open(to))?
        .set_times(FileTimes::new().set_modified(meta.modified()?))
}

/// Visits everything below a directory, in a fixed order. A directory comes before its entries.
fn each(dir: &Path, visit: &mut impl FnMut(&Entry, &Metadata) -> io::Result<()>) -> io::Result<()> {
    for entry in walk(dir) {
        let entry = entry?;
        if entry.is_root() {
            continue;
        }
        if !(entry.is_dir() || entry.is_file() || entry.is_symlink()) {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("{} is a special file", entry.path.display())));
        }
        visit(&entry, &entry.metadata()?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A small environment in `dir`/one, and its fingerprint.
    fn environment(dir: &Path) -> (PathBuf, String) {
        let one = dir.join("one");
        fs::create_dir_all(one.join("lib/x")).unwrap();
        fs::write(one.join("lib/x/a.py"), "a").unwrap();
        fs::write(one.join("script"), "#!").unwrap();
        fs::set_permissions(one.join("script"), Permissions::from_mode(0o755)).unwrap();
        symlink("lib", one.join("lib64")).unwrap();
        let print = fingerprint(&one).unwrap();
        (one, print)
    }

    #[test]
    fn an_adopted_environment_has_the_same_fingerprint() {
        let dir = tempfile::tempdir().unwrap();
        let (one, print) = environment(dir.path());
        let two = dir.path().join("two");
        assert!(adopt(&one, &two, &print, true).unwrap());
        assert_eq!(fingerprint(&two).unwrap(), print);
        assert_eq!(fs::metadata(two.join("script")).unwrap().nlink(), 2, "linked, not copied");
    }

    #[test]
    fn a_copied_file_keeps_its_time_and_mode() {
        let dir = tempfile::tempdir().unwrap();
        let (one, _) = environment(dir.path());
        let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
        File::open(one.join("script")).unwrap().set_modified(old).unwrap();
        let meta = fs::symlink_metadata(one.join("script")).unwrap();
        copy(&one.join("script"), &meta, &dir.path().join("copy")).unwrap();
        let meta = fs::metadata(dir.path().join("copy")).unwrap();
        assert_eq!((meta.mode() & 0o777, meta.modified().unwrap(), meta.nlink()), (0o755, old, 1));
    }

    #[test]
    fn whatever_an_app_does_to_it_is_seen() {
        let changes: [fn(&Path); 5] = [
            |one| fs::write(one.join("lib/x/a.py"), "b").unwrap(),
            |one| fs::write(one.join("lib/x/new.py"), "").unwrap(),
            |one| fs::remove_file(one.join("script")).unwrap(),
            |one| fs::set_permissions(one.join("lib/x/a.py"), Permissions::from_mode(0o600)).unwrap(),
            |one| {
                fs::remove_file(one.join("lib64")).unwrap();
                symlink("/tmp", one.join("lib64")).unwrap();
            },
        ];
        for (number, change) in changes.iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let (one, print) = environment(dir.path());
            // Wait: a file system with coarse times would show no change.
            std::thread::sleep(std::time::Duration::from_millis(20));
            change(&one);
            let two = dir.path().join("two");
            assert!(!adopt(&one, &two, &print, true).unwrap(), "change {number}");
            assert!(!two.exists());
        }
    }
}
