//! Leases: one of several builders builds an entry, and the others wait for it.
//!
//! A lease is a file. Its text has a random name and a count, which its holder increases. Whoever waits compares the
//! text with the one that it saw before: if it stays the same for [`TIME`], the holder is dead. That needs neither
//! locks nor equal clocks. A lease whose end is long past by the clock is dead at once.
//!
//! A lease saves work, and nothing depends on it: with two holders, both save the same entry.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::directory::{Directory, What};
use crate::dir::{Dir, random};
use crate::error::{IoContext, Result};

/// The longest time between two signs of life.
const TIME: Duration = Duration::from_secs(10);
/// The usual time between them.
const BEAT: Duration = Duration::from_secs(2);
/// How far the clocks of two nodes may differ, at most, for a lease that is dead at once.
const SKEW: Duration = Duration::from_mins(1);
/// Time to delete the lease at the end.
const END: Duration = Duration::from_secs(1);
/// Most bytes of a lease.
const SIZE: u64 = 256;

/// A lease of this process. Its drop deletes it.
#[derive(Debug)]
pub(crate) struct Lease {
    /// Dropped first: the thread ends.
    stop: Option<SyncSender<()>>,
    ended: Receiver<()>,
}

/// The lease of another process, as it was seen.
#[derive(Debug)]
pub(super) struct Seen {
    text: Vec<u8>,
    since: Instant,
}

/// The result of [`take`].
#[derive(Debug)]
pub(super) enum Taken {
    Ours(Lease),
    By(Seen),
}

/// Takes the lease of a key, unless another process has it. `before` is what the last call saw.
///
/// # Errors
/// Volume: the store cannot be written.
pub(super) fn take(store: &Directory, key: &str, before: Option<Seen>) -> Result<Taken> {
    let file = What::Lease.file(key);
    let what = || format!("cannot write {}", store.dir().path().join(&file).display());
    let taken = || -> io::Result<Taken> {
        if let Some(lease) = create(store.dir(), &file)? {
            return Ok(Taken::Ours(lease));
        }
        let text = match store.dir().read(&file, SIZE) {
            Ok(text) => text,
            // Gone meanwhile: the entry is likely there.
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let seen = Seen::again(text, before);
        if seen.is_dead() && bury(store.dir(), &file, &seen.text)? {
            tracing::debug!("the podstrap that built an entry of the store is dead");
            if let Some(lease) = create(store.dir(), &file)? {
                return Ok(Taken::Ours(lease));
            }
        }
        Ok(Taken::By(seen))
    };
    taken().on_volume(what)
}

/// Creates a lease, and keeps it alive. `None`: there is one.
fn create(dir: &Dir, file: &str) -> io::Result<Option<Lease>> {
    let handle = match dir.create_file(file) {
        Ok(handle) => handle,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
        Err(error) => return Err(error),
    };
    let name = random();
    let begun = rustix::fs::fchmod(&handle, rustix::fs::Mode::from(0o644)).map_err(io::Error::from);
    // Some network file systems decide the modes themselves.
    if let Err(error) = begun.or(Ok(())).and_then(|()| write(&handle, &name, 0)) {
        let _ = dir.remove_file(file);
        return Err(error);
    }
    let (dir, file, own) = (dir.again()?, file.to_owned(), name.clone());
    let end = move || {
        if dir.read(&file, SIZE).is_ok_and(|text| text.starts_with(own.as_bytes())) {
            let _ = dir.remove_file(&file);
        }
    };
    Lease::hold(BEAT, move |count| write(&handle, &name, count).map_err(|error| error.to_string()), end).map(Some)
}

impl Lease {
    /// Renews a lease with a count every `beat`, from a thread, and ends it at the drop.
    pub(super) fn hold(
        beat: Duration,
        renew: impl Fn(u32) -> Result<(), String> + Send + 'static,
        end: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = sync_channel::<()>(0);
        let (finish, ended) = sync_channel(1);
        let keep = move || {
            let mut count = 1;
            while stopped.recv_timeout(beat) == Err(RecvTimeoutError::Timeout) {
                if let Err(error) = renew(count) {
                    tracing::debug!("cannot renew the lease of an entry of the store: {error}");
                }
                count += 1;
            }
            end();
            let _ = finish.send(());
        };
        thread::Builder::new().name("lease".into()).spawn(keep)?;
        Ok(Self { stop: Some(stop), ended })
    }
}

/// The text of a lease, always of the same length.
pub(super) fn text(name: &str, count: u32) -> String {
    let end = SystemTime::now().checked_add(TIME).and_then(|end| end.duration_since(SystemTime::UNIX_EPOCH).ok());
    format!("{name} {count:010} {:012}\n", end.unwrap_or_default().as_secs())
}

/// In one write.
fn write(file: &File, name: &str, count: u32) -> io::Result<()> {
    file.write_all_at(text(name, count).as_bytes(), 0)?;
    // Otherwise other nodes see it only later.
    file.sync_data()
}

impl Seen {
    /// The lease of another process with this text. `before` is what the last look saw.
    pub(super) fn again(text: Vec<u8>, before: Option<Self>) -> Self {
        before.filter(|seen| seen.text == text).unwrap_or_else(|| Self { text, since: Instant::now() })
    }

    /// Whether its holder no longer renews it.
    pub(super) fn is_dead(&self) -> bool {
        is_over(&self.text) || self.since.elapsed() > TIME
    }
}

/// Whether a lease ended long ago, by the clock.
fn is_over(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let end = text.split_whitespace().nth(2).and_then(|end| end.parse().ok()).map(Duration::from_secs);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    end.is_some_and(|end| end.saturating_add(SKEW) < now)
}

/// Deletes a dead lease with this text. False: somebody else was faster.
fn bury(dir: &Dir, file: &str, text: &[u8]) -> io::Result<bool> {
    let aside = What::Unfinished.file(&random());
    match dir.rename(file, dir, &aside) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    // Another process may have replaced it since.
    if dir.read(&aside, SIZE)? == text {
        dir.remove_file(&aside)?;
        return Ok(true);
    }
    dir.rename(&aside, dir, file)?;
    Ok(false)
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.stop = None;
        // The store may hang.
        let _ = self.ended.recv_timeout(END);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Directory) {
        let dir = tempfile::tempdir().unwrap();
        let store = Directory::open(dir.path()).unwrap();
        (dir, store)
    }

    #[test]
    fn one_of_several_has_the_lease() {
        let (dir, store) = store();
        let Taken::Ours(lease) = take(&store, "key", None).unwrap() else { panic!() };
        let Taken::By(seen) = take(&store, "key", None).unwrap() else { panic!() };
        assert!(matches!(take(&store, "other", None).unwrap(), Taken::Ours(_)));
        assert!(matches!(take(&store, "key", Some(seen)).unwrap(), Taken::By(_)));
        drop(lease);
        assert_eq!(dir.path().read_dir().unwrap().count(), 0, "a lease is deleted");
        assert!(matches!(take(&store, "key", None).unwrap(), Taken::Ours(_)));
    }

    #[test]
    fn a_dead_holder_keeps_nobody() {
        let (dir, store) = store();
        let file = dir.path().join(What::Lease.file("key"));
        let soon = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 5;
        let text = format!("name 0000000000 {soon:012}\n").into_bytes();
        std::fs::write(&file, &text).unwrap();
        let Taken::By(seen) = take(&store, "key", None).unwrap() else { panic!() };
        assert_eq!(seen.text, text);
        let Some(since) = Instant::now().checked_sub(TIME + BEAT) else { return };
        // It has changed: it is alive.
        let other = Seen { text: b"name 0000000001".to_vec(), since };
        assert!(matches!(take(&store, "key", Some(other)).unwrap(), Taken::By(_)));
        assert!(matches!(take(&store, "key", Some(Seen { text, since })).unwrap(), Taken::Ours(_)));
        // Long over, and not even complete.
        std::fs::write(&file, "name 0000000000 000000000012\n").unwrap();
        assert!(matches!(take(&store, "key", None).unwrap(), Taken::Ours(_)));
        std::fs::write(&file, "").unwrap();
        let Taken::By(_) = take(&store, "key", None).unwrap() else { panic!() };
        let empty = Seen { text: Vec::new(), since };
        assert!(matches!(take(&store, "key", Some(empty)).unwrap(), Taken::Ours(_)));
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn a_lease_that_changed_hands_is_not_buried() {
        let (_dir, store) = store();
        let Taken::Ours(lease) = take(&store, "key", None).unwrap() else { panic!() };
        let file = What::Lease.file("key");
        assert!(!bury(store.dir(), &file, b"an older one").unwrap());
        assert!(matches!(take(&store, "key", None).unwrap(), Taken::By(_)));
        drop(lease);
        assert!(!bury(store.dir(), &file, b"").unwrap());
    }
}
