//! Writes the small files of an archive in several threads, while the archive is read.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::fs::{Timespec, Timestamps, futimens};

/// The largest file that a thread writes from memory.
pub(super) const SMALL: u64 = 256 << 10;
/// Files and bytes of one batch, and the batches that may wait: they limit the memory to a few megabytes.
const FILES: usize = 64;
const BYTES: usize = 512 << 10;
const WAITING: usize = 8;

/// A file with its contents.
pub(super) struct Whole {
    /// Its absolute path.
    pub(super) path: PathBuf,
    pub(super) contents: Vec<u8>,
    pub(super) mode: u32,
    /// In seconds since 1970.
    pub(super) mtime: i64,
}

/// The first file that could not be written.
type Failed = Arc<Mutex<Option<(PathBuf, io::Error)>>>;

/// The threads, and the next batch.
pub(super) struct Writers {
    queue: Option<SyncSender<Vec<Whole>>>,
    threads: Vec<JoinHandle<()>>,
    failed: Failed,
    batch: Vec<Whole>,
    bytes: usize,
}

impl Writers {
    /// Starts a thread for each processor. `None`: the system allows no further thread.
    pub(super) fn start() -> Option<Self> {
        let (queue, batches) = sync_channel(WAITING);
        let (batches, failed) = (Arc::new(Mutex::new(batches)), Failed::default());
        let count = thread::available_parallelism().map_or(1, usize::from);
        let start = |_| {
            let (batches, failed) = (Arc::clone(&batches), Arc::clone(&failed));
            thread::Builder::new().name("blocking".into()).spawn(move || write_all(&batches, &failed)).ok()
        };
        let threads: Vec<_> = (0..count).map_while(start).collect();
        (!threads.is_empty()).then(|| Self { queue: Some(queue), threads, failed, batch: Vec::new(), bytes: 0 })
    }

    /// Writes the file later.
    ///
    /// # Errors
    /// An earlier file could not be written.
    pub(super) fn add(&mut self, file: Whole) -> Result<(), (PathBuf, io::Error)> {
        self.bytes += file.contents.len();
        self.batch.push(file);
        if self.batch.len() < FILES && self.bytes < BYTES {
            return Ok(());
        }
        self.send()
    }

    fn send(&mut self) -> Result<(), (PathBuf, io::Error)> {
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if let Some(queue) = &self.queue {
            // Fails only if all threads have ended, and then one of them has failed.
            let _ = queue.send(batch);
        }
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }

    /// Waits until all files are written.
    ///
    /// # Errors
    /// One of them could not be written.
    pub(super) fn finish(mut self) -> Result<(), (PathBuf, io::Error)> {
        self.send()?;
        self.queue = None;
        for thread in std::mem::take(&mut self.threads) {
            if thread.join().is_err() {
                return Err((PathBuf::new(), io::Error::other("a thread that writes files failed")));
            }
        }
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}

impl Drop for Writers {
    /// Nobody may write to the tree any more.
    fn drop(&mut self) {
        self.queue = None;
        for thread in std::mem::take(&mut self.threads) {
            let _ = thread.join();
        }
    }
}

fn write_all(batches: &Mutex<Receiver<Vec<Whole>>>, failed: &Mutex<Option<(PathBuf, io::Error)>>) {
    loop {
        let Ok(batch) = batches.lock().unwrap_or_else(PoisonError::into_inner).recv() else { return };
        for file in batch {
            if let Err(error) = write(&file) {
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((file.path, error));
                break;
            }
        }
    }
}

fn write(whole: &Whole) -> io::Result<()> {
    let mut file = File::create_new(&whole.path)?;
    file.write_all(&whole.contents)?;
    file.set_permissions(Permissions::from_mode(whole.mode))?;
    let time = Timespec { tv_sec: whole.mtime, tv_nsec: 0 };
    Ok(futimens(&file, &Timestamps { last_access: time, last_modification: time })?)
}
