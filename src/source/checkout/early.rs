//! Writes a commit's files while its pack arrives. Git sends a directory before its files, so most files go from the network
//! straight to their places.
//!
//! This is an attempt. [`plain::write`](super::plain::write) inspects the complete commit and writes what is missing. If
//! anything is unusual, this module deletes what it wrote, and the checkout reports the reason if there is one.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use git2::{ObjectType, Oid};
use rustix::fs::{Timespec, Timestamps};

use crate::plan::TreePath;
use crate::retry::Deadline;
use crate::size::Size;
use crate::source::checkout::entries::{PATH_MAX, is_valid};
use crate::source::checkout::plain::{Begun, EarlyFiles, Place, TOGETHER};
use crate::source::checkout::scan::dubious;
use crate::source::destination::Destination;
use crate::source::objects::{Arrived, Entry, FileKind, Taker, commit, tag};

/// Writes files of a commit as they arrive.
pub(crate) struct Early {
    tree: PathBuf,
    limit: Size,
    /// The names of the directories above the part that becomes the tree, the last one first.
    above: Vec<OsString>,
    /// The commit, or a tag that leads to it. `None` when it is here.
    wanted: Option<Oid>,
    /// The times of all files.
    times: Timestamps,
    /// The paths of the directories that are not here yet.
    awaited: HashMap<Oid, Vec<PathBuf>>,
    /// The places of files that are not here yet.
    files: HashMap<Oid, Vec<Place>>,
    /// The directories that were entered.
    entered: HashSet<Oid>,
    /// Noted files and directories, and those of them that are in a directory that was entered before.
    count: usize,
    repeated: usize,
    /// Space of the files and directories.
    occupied: u64,
    deadline: Deadline,
    begun: Option<Begun>,
    writing: Option<Writing>,
    has_ended: bool,
}

/// The thread that writes files, and those that it gets next.
struct Writing {
    send: SyncSender<Batch>,
    thread: JoinHandle<io::Result<EarlyFiles>>,
    next: Batch,
    bytes: usize,
}

/// Files with their places.
type Batch = Vec<(Vec<Place>, Vec<u8>)>;

/// The bytes of a batch, and the number of batches that wait.
const BATCH: usize = 256 << 10;
const BATCHES: usize = 2;

impl Writing {
    fn start(begun: &Begun, deadline: Deadline) -> io::Result<Self> {
        let (send, batches) = sync_channel::<Batch>(BATCHES);
        let writer = begun.writer();
        let write = move || {
            let mut written = EarlyFiles::default();
            for (places, contents) in batches.into_iter().flatten() {
                written.write(&writer, places, &contents, deadline)?;
            }
            Ok(written)
        };
        let thread = thread::Builder::new().name("blocking".into()).spawn(write)?;
        Ok(Self { send, thread, next: Batch::new(), bytes: 0 })
    }

    fn add(&mut self, places: Vec<Place>, contents: Vec<u8>) -> Result<(), Ended> {
        self.bytes += contents.len();
        self.next.push((places, contents));
        if self.bytes < BATCH {
            return Ok(());
        }
        self.bytes = 0;
        Ok(self.send.send(std::mem::take(&mut self.next)).map_err(|_| "a file cannot be written")?)
    }

    /// Waits for the last file.
    fn finish(self) -> Result<EarlyFiles, Ended> {
        // Fails if the thread has an error.
        let _ = self.send.send(self.next);
        drop(self.send);
        Ok(self.thread.join().map_err(|_| "a thread failed")??)
    }
}

/// Larger files are written from the pack.
const LARGE: usize = 1 << 20;

/// A few directories that name each other again and again lead to any number of entries. More than this, and more than
/// half of all, must not be repeated.
const REPEATED: usize = TOGETHER / 64;

/// Why the attempt ends.
type Ended = Box<dyn std::error::Error>;

impl Early {
    /// For the commit `wanted`, or a tag that leads to it.
    pub(crate) fn new(wanted: Oid, to: Destination<'_>, deadline: Deadline) -> Self {
        let above = to.subdir.map_or(Path::new(""), TreePath::as_path).iter().rev();
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        Self {
            tree: to.tree.to_owned(),
            limit: to.limit,
            above: above.map(OsStr::to_owned).collect(),
            wanted: Some(wanted),
            times: Timestamps { last_access: never, last_modification: never },
            awaited: HashMap::new(),
            files: HashMap::new(),
            entered: HashSet::new(),
            count: 0,
            repeated: 0,
            occupied: Size::occupied(0),
            deadline,
            begun: None,
            writing: None,
            has_ended: false,
        }
    }

    /// The tree, if some of its files are written.
    pub(crate) fn begun(mut self) -> Option<Begun> {
        let written = self.writing.take().map(Writing::finish).transpose();
        let mut begun = self.begun.take()?;
        match written {
            Ok(written) => begun.early_files(written.unwrap_or_default()),
            Err(why) => {
                self.end(&why);
                return None;
            }
        }
        Some(begun)
    }

    /// Follows tags to the commit, and the commit to its directory.
    fn find(&mut self, arrived: &Arrived) -> Result<(), Ended> {
        while let Some((kind, contents)) = self.wanted.and_then(|wanted| arrived.get(wanted)) {
            self.wanted = match kind {
                ObjectType::Tag => Some(tag(contents).ok_or("a damaged tag")?),
                ObjectType::Commit => {
                    let (directory, time) = commit(contents).ok_or("a damaged commit")?;
                    let time = Timespec { tv_sec: time, tv_nsec: 0 };
                    self.times = Timestamps { last_access: time, last_modification: time };
                    self.awaited.insert(directory, vec![PathBuf::new()]);
                    self.enter(directory, arrived)?;
                    None
                }
                _ => return Err("no commit".into()),
            };
        }
        Ok(())
    }

    /// Enters a directory at all its paths, and those below that are here.
    fn enter(&mut self, directory: Oid, arrived: &Arrived) -> Result<(), Ended> {
        let mut open = vec![directory];
        while let Some(directory) = open.pop() {
            let Some((ObjectType::Tree, contents)) = arrived.get(directory) else { continue };
            for path in self.awaited.remove(&directory).unwrap_or_default() {
                if let Some(name) = self.above.pop() {
                    let mut entries = Entry::all(contents).map_while(|entry| entry);
                    let part = entries.find(|entry| entry.name == name.as_bytes() && entry.kind == FileKind::Directory);
                    let part = part.ok_or("no such part")?.id;
                    self.awaited.entry(part).or_default().push(path);
                    open.push(part);
                    continue;
                }
                if self.begun.is_none() {
                    let begun = Begun::new(&self.tree, &self.times).map_err(|error| error.summary())?;
                    self.writing = Some(Writing::start(&begun, self.deadline)?);
                    self.begun = Some(begun);
                }
                let is_repeated = !self.entered.insert(directory);
                let mut names = HashSet::new();
                for entry in Entry::all(contents) {
                    let Entry { name, id, kind } = entry.ok_or("a damaged directory")?;
                    if !names.insert(name) {
                        return Err("two entries with one name".into());
                    }
                    self.repeated += usize::from(is_repeated);
                    if let Some(directory) = self.entry(path.join(OsStr::from_bytes(name)), name, id, kind)? {
                        open.push(directory);
                    }
                }
            }
        }
        Ok(())
    }

    /// Notes an entry. Returns the directory to enter.
    fn entry(&mut self, path: PathBuf, name: &[u8], id: Oid, kind: FileKind) -> Result<Option<Oid>, Ended> {
        self.count += 1;
        if !is_valid(name) || dubious(name) || self.count > TOGETHER {
            return Err("names that need a closer look, or too many of them".into());
        }
        if self.repeated > REPEATED.max(self.count / 2) || self.deadline.passed() {
            return Err("directories that repeat too often, or no time".into());
        }
        if self.tree.as_os_str().len() + 1 + path.as_os_str().len() >= PATH_MAX {
            return Err("a long path".into());
        }
        if !matches!(kind, FileKind::Regular { .. }) {
            self.occupy(Size::occupied(0))?;
        }
        match kind {
            FileKind::Directory | FileKind::Submodule => {
                let begun = self.begun.as_mut().ok_or("no tree")?;
                begun.early_directory(&path)?;
            }
            FileKind::Regular { .. } => self.files.entry(id).or_default().push((path.clone(), kind)),
            FileKind::Link => {}
        }
        if kind != FileKind::Directory {
            return Ok(None);
        }
        self.awaited.entry(id).or_default().push(path);
        Ok(Some(id))
    }

    fn occupy(&mut self, bytes: u64) -> Result<(), Ended> {
        self.occupied = self.occupied.saturating_add(bytes);
        if self.occupied > self.limit.0 { Err("larger than the limit".into()) } else { Ok(()) }
    }

    fn put(&mut self, places: Vec<Place>, contents: Vec<u8>) -> Result<(), Ended> {
        self.occupy(Size::occupied(contents.len() as u64).saturating_mul(places.len() as u64))?;
        self.writing.as_mut().ok_or("no tree")?.add(places, contents)
    }

    /// Ends the attempt, and deletes everything.
    fn end(&mut self, why: &Ended) {
        tracing::debug!("no file is written before the whole commit is here: {why}");
        if let Some(writing) = self.writing.take() {
            let _ = writing.finish();
        }
        (self.begun, self.has_ended) = (None, true);
        (self.awaited, self.files) = (HashMap::new(), HashMap::new());
    }
}

impl Drop for Early {
    fn drop(&mut self) {
        // Before the tree is deleted.
        if let Some(writing) = self.writing.take() {
            let _ = writing.finish();
        }
    }
}

impl Taker for Early {
    fn note(&mut self, id: Oid, arrived: &Arrived) {
        if self.has_ended {
            return;
        }
        let done = if self.wanted.is_some() { self.find(arrived) } else { self.enter(id, arrived) };
        if let Err(why) = done {
            self.end(&why);
        }
    }

    fn take(&mut self, id: Oid, contents: Vec<u8>) -> Option<Vec<u8>> {
        // A large file must not wait in memory.
        if contents.len() > LARGE {
            return Some(contents);
        }
        let Some(places) = self.files.remove(&id) else { return Some(contents) };
        if let Err(why) = self.put(places, contents) {
            self.end(&why);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::walk::walk;

    /// Objects in Git's order.
    #[derive(Default)]
    struct Objects(Vec<(Oid, ObjectType, Vec<u8>)>);

    impl Objects {
        fn add(&mut self, kind: ObjectType, contents: Vec<u8>) -> Oid {
            let id = Oid::hash_object(kind, &contents).unwrap();
            self.0.insert(0, (id, kind, contents));
            id
        }

        fn directory(&mut self, entries: &[(&str, &[u8], Oid)]) -> Oid {
            let entries =
                entries.iter().map(|(mode, name, id)| [mode.as_bytes(), b" ", name, b"\0", id.as_bytes()].concat());
            self.add(ObjectType::Tree, entries.collect::<Vec<_>>().concat())
        }

        fn commit(&mut self, directory: Oid) -> Oid {
            let text = format!("tree {directory}\ncommitter A <a@b> 1700000000 +0000\n\nx");
            self.add(ObjectType::Commit, text.into_bytes())
        }

        /// What is written of the part `subdir` if the objects arrive in this order; `None` if the attempt has ended.
        fn arrive(&self, wanted: Oid, subdir: Option<&str>, order: &[usize], limit: u64) -> Option<Vec<String>> {
            self.arrive_in(Duration::from_mins(1), wanted, subdir, order, limit)
        }

        fn arrive_in(
            &self,
            time: Duration,
            wanted: Oid,
            subdir: Option<&str>,
            order: &[usize],
            limit: u64,
        ) -> Option<Vec<String>> {
            let dir = tempfile::tempdir().unwrap();
            let tree = dir.path().join("tree");
            let subdir = subdir.map(|path| TreePath::new(Path::new(path)).unwrap());
            let (subdir, limit) = (subdir.as_ref(), Size(limit));
            let to = Destination {
                tree: &tree,
                scratch: dir.path(),
                subdir,
                limit,
                lfs_pointers: false,
                contents: crate::source::destination::Contents::Ask,
            };
            let (mut early, mut arrived) = (Early::new(wanted, to, Deadline::after(time)), Arrived::default());
            for at in order {
                let (id, kind, contents) = &self.0[*at];
                if *kind == ObjectType::Blob {
                    early.take(*id, contents.clone());
                } else {
                    arrived.add(*id, *kind, contents);
                    early.note(*id, &arrived);
                }
            }
            let has_ended = early.has_ended;
            let begun = early.begun();
            let shown = |entry: crate::walk::Entry| {
                let (name, meta) = (entry.name.display(), entry.metadata().unwrap());
                if meta.is_dir() {
                    return format!("{name}/");
                }
                assert_eq!(meta.modified().unwrap(), SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
                let contents = fs::read_to_string(&entry.path).unwrap();
                format!("{name} {:o} {contents}", meta.permissions().mode() & 0o777)
            };
            let mut found: Vec<String> = walk(&tree).filter_map(Result::ok).skip(1).map(shown).collect();
            found.sort();
            drop(begun);
            assert!(!tree.exists(), "what is not finished is deleted");
            (!has_ended).then_some(found)
        }
    }

    const MUCH: u64 = 1 << 30;

    /// `a`, `bin/run`, `bin/lib/a`, a link and a submodule.
    fn example() -> (Objects, Oid) {
        let mut objects = Objects::default();
        let a = objects.add(ObjectType::Blob, b"A".to_vec());
        let run = objects.add(ObjectType::Blob, b"R".to_vec());
        let lib = objects.directory(&[("100644", b"a", a)]);
        let bin = objects.directory(&[("40000", b"lib", lib), ("100755", b"run", run)]);
        let to = objects.add(ObjectType::Blob, b"a".to_vec());
        let entries =
            [("100644", &b"a"[..], a), ("40000", b"bin", bin), ("120000", b"link", to), ("160000", b"sub", a)];
        let root = objects.directory(&entries);
        let commit = objects.commit(root);
        let tag = objects.add(ObjectType::Tag, format!("object {commit}\ntype commit\n").into_bytes());
        (objects, tag)
    }

    #[test]
    fn files_are_written_in_any_order_of_arrival_after_their_directories() {
        let (objects, tag) = example();
        let whole = ["a 644 A", "bin/", "bin/lib/", "bin/lib/a 644 A", "bin/run 755 R", "sub/"];
        let order: Vec<usize> = (0..objects.0.len()).collect();
        assert_eq!(objects.arrive(tag, None, &order, MUCH).unwrap(), whole);
        assert_eq!(objects.arrive(tag, Some("bin"), &order, MUCH).unwrap(), ["lib/", "lib/a 644 A", "run 755 R"]);
        assert_eq!(objects.arrive(tag, Some("bin/lib"), &order, MUCH).unwrap(), ["a 644 A"]);
        for seed in 0..200 {
            let mut order = order.clone();
            fastrand::Rng::with_seed(seed).shuffle(&mut order);
            let found = objects.arrive(tag, None, &order, MUCH).unwrap();
            assert!(found.iter().all(|line| whole.contains(&line.as_str())), "{order:?} {found:?}");
        }
        // Directories before files, in any order.
        let (mut first, mut last): (Vec<usize>, Vec<usize>) =
            order.iter().partition(|at| objects.0[**at].1 != ObjectType::Blob);
        for seed in 0..50 {
            fastrand::Rng::with_seed(seed).shuffle(&mut first);
            fastrand::Rng::with_seed(seed).shuffle(&mut last);
            assert_eq!(objects.arrive(tag, None, &[&first[..], &last].concat(), MUCH).unwrap(), whole);
        }
    }

    #[test]
    fn what_is_unusual_ends_the_attempt() {
        let (objects, tag) = example();
        let order: Vec<usize> = (0..objects.0.len()).collect();
        // Three files, four directories and a link take a block each.
        assert_eq!(objects.arrive(tag, None, &order, 4096 * 8 - 1), None);
        assert!(objects.arrive(tag, None, &order, 4096 * 8).is_some());
        assert_eq!(objects.arrive_in(Duration::ZERO, tag, None, &order, MUCH), None);
        assert_eq!(objects.arrive(tag, Some("a"), &order, MUCH), None);
        assert_eq!(objects.arrive(tag, Some("bin/no"), &order, MUCH), None);
        let long = [b'x'; 200];
        let cases: [&[(&str, &[u8])]; 7] = [
            &[("100644", b"x"), ("100644", b"x")],
            &[("100644", b".git")],
            &[("40000", b"GIT~1")],
            &[("100644", b"..")],
            &[("100644", b"a/b")],
            &[("120000", b"x"), ("160000", b"x")],
            &[("160000", &[b'x'; 300])],
        ];
        for entries in cases {
            let mut objects = Objects::default();
            let file = objects.add(ObjectType::Blob, b"A".to_vec());
            let entries: Vec<_> = entries.iter().map(|(mode, name)| (*mode, *name, file)).collect();
            let root = objects.directory(&entries);
            let commit = objects.commit(root);
            assert_eq!(objects.arrive(commit, None, &[0, 1, 2], MUCH), None, "{entries:?}");
        }
        // Directories in directories, and two of each: longer than a path may be, or too many.
        for (name, twice) in [(&long[..], false), (b"x", true)] {
            let mut objects = Objects::default();
            let mut at = objects.add(ObjectType::Tree, Vec::new());
            for _ in 0..30 {
                at = objects.directory(&[("40000", &b"a"[..], at), ("40000", name, at)][usize::from(!twice)..]);
            }
            let commit = objects.commit(at);
            let order: Vec<usize> = (0..objects.0.len()).collect();
            assert_eq!(objects.arrive(commit, None, &order, MUCH), None);
        }
        // Few directories that repeat often, unless they are some of many; a bomb ends long before it has all of them.
        for (levels, more, ends) in [(1, 0, false), (5, 0, true), (5, 120, false), (7, 0, true)] {
            let mut objects = Objects::default();
            let mut at = objects.add(ObjectType::Tree, Vec::new());
            for _ in 0..levels {
                at = objects.directory(&[("40000", &b"a"[..], at), ("40000", b"b", at)]);
            }
            let more: Vec<String> = (0..more).map(|number| format!("f{number:03}")).collect();
            let mut entries: Vec<_> = more.iter().map(|name| ("100644", name.as_bytes(), at)).collect();
            entries.push(("40000", b"top", at));
            let root = objects.directory(&entries);
            let commit = objects.commit(root);
            let order: Vec<usize> = (0..objects.0.len()).collect();
            assert_eq!(objects.arrive(commit, None, &order, MUCH).is_none(), ends, "{levels} {}", more.len());
        }
        // A file instead of a commit, and a damaged directory.
        let mut objects = Objects::default();
        let tree = objects.add(ObjectType::Tree, b"100644 x".to_vec());
        assert_eq!(objects.arrive(tree, None, &[0], MUCH), None);
        let commit = objects.commit(tree);
        assert_eq!(objects.arrive(commit, None, &[0, 1], MUCH), None);
    }
}
