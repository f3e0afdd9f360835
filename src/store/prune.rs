//! Keeps a store within a size: deletes the entries that nobody used for the longest time, and leftovers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use super::directory::{Directory, Found, What};
use super::entry::Entry;
use super::unusable::Unusable;
use crate::error::Result;
use crate::size::Size;

/// An entry that was used since may be being read.
const GRACE: Duration = Duration::from_mins(10);
/// A file that no entry has and nobody changed since is a leftover.
const LEFTOVER: Duration = Duration::from_hours(1);

/// All entries, and all files.
///
/// # Errors
/// Volume: the store cannot be listed.
pub(super) fn entries(store: &Directory) -> Result<(Vec<Entry>, Vec<Found>)> {
    let files = store.list()?;
    let archives: BTreeMap<&str, &Found> = of(&files, What::Archive).collect();
    let used: BTreeMap<&str, &Found> = of(&files, What::Used).collect();
    let entries = of(&files, What::Manifest).filter_map(|(key, file)| {
        // It may be gone meanwhile.
        let text = store.manifest(key).map_err(Unusable::from).transpose()?;
        let used = used.get(key).map_or(file.modified, |used| used.modified.max(file.modified));
        let mut entry = Entry::new(key, text, Some(used));
        let archive = entry.manifest.as_ref().ok();
        let archive = archive.and_then(|manifest| archives.get(manifest.archive.sha256.as_str()));
        entry.bytes = file.bytes + archive.map_or(0, |archive| archive.bytes);
        Some(entry)
    });
    let entries = entries.collect();
    Ok((entries, files))
}

fn of(files: &[Found], what: What) -> impl Iterator<Item = (&str, &Found)> {
    files.iter().filter(move |file| file.what == what).map(|file| (file.name.as_str(), file))
}

/// Deletes leftovers, and entries until the rest takes at most `most`. Returns the keys of the deleted entries, and the
/// first file that could not be deleted: in a sticky directory, it may belong to another user.
///
/// # Errors
/// Volume: the store cannot be listed.
pub(super) fn prune(store: &Directory, most: Size) -> Result<(Vec<String>, Result<()>)> {
    let (mut entries, files) = entries(store)?;
    let old = |time: SystemTime, than: Duration| time.elapsed().is_ok_and(|age| age > than);
    let named: BTreeSet<&str> =
        entries.iter().filter_map(|entry| Some(entry.manifest.as_ref().ok()?.archive.sha256.as_str())).collect();
    // Nobody knows which archives are theirs.
    let has_newer = entries.iter().any(|entry| entry.is_newer);
    let keys: BTreeSet<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
    let (mut left, mut result) = (0, Ok(()));
    let mut remove = |what, name: &str| {
        let removed = store.remove(what, name);
        let is_gone = removed.is_ok();
        if result.is_ok() {
            result = removed;
        }
        is_gone
    };
    for file in &files {
        let is_leftover = match file.what {
            What::Manifest => false,
            What::Archive => !has_newer && !named.contains(file.name.as_str()),
            What::Used => !keys.contains(file.name.as_str()),
            What::Lease | What::Unfinished => true,
        };
        if !(is_leftover && old(file.modified, LEFTOVER) && remove(file.what, &file.name)) {
            left += file.bytes;
        }
    }
    entries.sort_by_key(|entry| entry.used);
    let mut deleted = Vec::new();
    for entry in entries {
        if left <= most.0 {
            break;
        }
        if entry.is_newer || !entry.used.is_some_and(|used| old(used, GRACE)) || !remove(What::Manifest, &entry.key) {
            continue;
        }
        if let Ok(manifest) = &entry.manifest {
            remove(What::Archive, &manifest.archive.sha256);
        }
        remove(What::Used, &entry.key);
        left = left.saturating_sub(entry.bytes);
        deleted.push(entry.key);
    }
    Ok((deleted, result))
}
