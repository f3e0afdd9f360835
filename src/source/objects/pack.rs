//! Reads a pack as it arrives (gitformat-pack): names every object by its contents, and hands the files out in any
//! number of threads. libgit2 would write an index and read everything a second time.
//!
//! A sound pack needs only this reader. Anything else is left to libgit2, which has the last word and the messages:
//! a damaged pack, an object that only the server has, or one that does not fit into memory.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;

use flate2::{Decompress, FlushDecompress, Status};
use git2::{ObjectType, Oid};
use sha1::Sha1 as Checksum;
use sha1_checked::{CollisionResult, Digest, Sha1};
use tokio::sync::mpsc;

use crate::error::{Error, IoContext, Result};
use crate::retry::Deadline;
use crate::runtime::in_parallel;
use crate::size::Size;
use crate::source::objects::arrived::{Arrived, Taker};
use crate::source::objects::delta;
use crate::source::objects::transport::{MAX_OBJECT, MAX_TALK};
use crate::source::remote::pktline::payload;
use crate::tree::too_large;

/// The start of a pack, and its version. Version 3 has the same form.
const MAGIC: [u8; 4] = *b"PACK";
const VERSIONS: [u32; 2] = [2, 3];
/// The checksum at the end, in bytes.
const CHECKSUM: usize = 20;
/// The most objects of a pack that this reader takes: about 100 MB for their names and places.
const MAX_OBJECTS: usize = 1 << 20;
/// The most bytes of commits, tags and directories in memory.
const MAX_KEPT: usize = 64 << 20;
/// The most bytes of files in memory, from the start of the pack: the others are inflated again. Tests need both.
const MAX_FILES: usize = if cfg!(any(test, fuzzing)) { 1 << 10 } else { 1 << 20 };
/// The bytes of contents that are named together, and the number of such batches that wait for it.
const BATCH: usize = 256 << 10;
const BATCHES: usize = 4;
/// Larger objects are not for several threads: only one of them at a time is in memory, with its base.
const LARGE: usize = 8 << 20;
/// The most bytes of the objects that wait for their deltas, without large objects and with them.
const MAX_WAITING: usize = 64 << 20;
const MAX_WAITING_LARGE: usize = MAX_OBJECT + MAX_WAITING;
/// Bytes of the pack that a thread reads from the volume at a time.
const PIECE: usize = 64 << 10;

/// A complete pack. Every object has the name of its contents.
#[derive(Debug)]
pub(crate) struct Pack {
    /// In the order of the pack.
    objects: Vec<Object>,
    ids: HashMap<Oid, u32>,
    deltas: Deltas,
    /// The contents of commits, tags and directories, and of the first files.
    kept: HashMap<u32, Vec<u8>>,
    /// Whether a delta or its base is large.
    has_large_deltas: bool,
    stored: Stored,
}

/// An object, and its place in the pack.
#[derive(Debug, Clone, Copy)]
struct Object {
    id: Oid,
    kind: ObjectType,
    /// Bytes of its contents.
    size: u64,
    /// The object without a base from which it is made.
    root: u32,
    place: Place,
}

/// Where an object, or its delta, is in the pack.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Of its header.
    start: u64,
    /// Of its compressed contents, and their end.
    data: u64,
    end: u64,
    /// Bytes after inflating.
    size: u32,
}

/// The deltas of each base, by the places of both.
#[derive(Debug, Default)]
struct Deltas {
    /// Sorted.
    by_place: Vec<(u32, u32)>,
    by_id: HashMap<Oid, Vec<u32>>,
}

impl Deltas {
    fn of(&self, base: u32, id: Oid) -> Vec<u32> {
        let from = self.by_place.partition_point(|(other, _)| *other < base);
        let here = self.by_place[from..].iter().take_while(|(other, _)| *other == base).map(|(_, delta)| *delta);
        here.chain(self.by_id.get(&id).into_iter().flatten().copied()).collect()
    }
}

/// Why reading ended.
#[derive(Debug)]
enum Stop {
    /// libgit2 has to read the pack.
    Unsuited,
    /// There is no memory for an object of this size in bytes.
    NoMemory(u64),
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<delta::Failure> for Stop {
    fn from(failure: delta::Failure) -> Self {
        match failure {
            delta::Failure::Damaged => Self::Unsuited,
            delta::Failure::NoMemory(size) => Self::NoMemory(size),
        }
    }
}

/// The bytes of a pack on the volume.
#[derive(Debug)]
struct Stored {
    path: PathBuf,
    file: File,
}

impl Stored {
    /// Inflates the contents at a place.
    fn inflate(&self, place: Place, tools: &mut Tools) -> Result<Vec<u8>, Stop> {
        let mut pieces = Pieces {
            stored: self,
            at: place.data,
            end: place.end,
            piece: &mut tools.piece,
            used: 0,
            read: 0,
            failure: None,
        };
        let contents = inflate(&mut tools.inflater, &mut pieces, place.size);
        match pieces.failure {
            Some(error) => Err(error).on_volume(|| self.failed("read")).map_err(Stop::Failed),
            None => contents,
        }
    }

    fn failed(&self, doing: &str) -> String {
        format!("cannot {doing} {}", self.path.display())
    }
}

/// What a thread uses for every object.
struct Tools {
    inflater: Decompress,
    piece: Vec<u8>,
}

impl Default for Tools {
    fn default() -> Self {
        Self { inflater: Decompress::new(true), piece: vec![0; PIECE] }
    }
}

/// A part of the pack, read from the volume piece by piece: compressed contents can be far longer than the contents.
struct Pieces<'a> {
    stored: &'a Stored,
    /// The rest of the part.
    at: u64,
    end: u64,
    piece: &'a mut [u8],
    /// Bytes of the piece that were used, and that were read.
    used: usize,
    read: usize,
    failure: Option<io::Error>,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Pieces<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.used == self.read && self.at < self.end {
            let length = usize::try_from(self.end - self.at).map_or(PIECE, |rest| rest.min(PIECE));
            if let Err(error) = self.stored.file.read_exact_at(&mut self.piece[..length], self.at) {
                self.failure = Some(error);
                return Err(io::ErrorKind::Other.into());
            }
            self.at += length as u64;
            (self.used, self.read) = (0, length);
        }
        Ok(&self.piece[self.used..self.read])
    }

    fn consume(&mut self, amount: usize) {
        self.used += amount;
    }
}

/// Stores the pack that arrives in `packets` at `path`, and reads it. `taker` gets the objects meanwhile. Returns
/// `None` if libgit2 has to read it: the file is complete in that case as well.
///
/// # Errors
/// The pack is larger than `limit`, the volume fails, or the deadline passes.
pub(crate) fn receive(
    packets: mpsc::Receiver<Vec<u8>>,
    path: &Path,
    limit: Size,
    deadline: Deadline,
    what: &str,
    taker: &mut dyn Taker,
) -> Result<Option<Pack>> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path);
    let file = file.on_volume(|| format!("cannot create {}", path.display()))?;
    let stored = Stored { path: path.to_owned(), file };
    let mut incoming = Incoming {
        packets,
        packet: Vec::new(),
        at: 0,
        talk: 0,
        written: 0,
        taken: 0,
        checksum: Checksum::new(),
        failure: None,
        stored: &stored,
        limit,
        deadline,
        what,
    };
    let found = read(&mut incoming, taker);
    // Everything belongs into the file.
    while !matches!(found, Err(Stop::Failed(_))) && incoming.fill_buf().is_ok_and(|bytes| !bytes.is_empty()) {
        incoming.at = incoming.packet.len();
    }
    if let Some(error) = incoming.failure.take() {
        return Err(error);
    }
    drop(incoming);
    let finished = found.and_then(|found| found.finish(stored, deadline, what));
    match finished {
        Ok(pack) => Ok(Some(pack)),
        Err(Stop::Unsuited | Stop::NoMemory(_)) => Ok(None),
        Err(Stop::Failed(error)) => Err(error),
    }
}

/// The pack that arrives, as a stream. Writes it to the volume on the way.
struct Incoming<'a> {
    packets: mpsc::Receiver<Vec<u8>>,
    packet: Vec<u8>,
    /// The next byte of the packet.
    at: usize,
    /// Received bytes that are not the pack.
    talk: usize,
    written: u64,
    /// The bytes that the reader has taken.
    taken: u64,
    checksum: Checksum,
    /// The failure behind an error of this stream.
    failure: Option<Error>,
    stored: &'a Stored,
    limit: Size,
    deadline: Deadline,
    what: &'a str,
}

impl Incoming<'_> {
    /// Waits for the next part of the pack. Leaves `packet` empty at the end.
    fn next(&mut self) -> Result<()> {
        loop {
            self.packet = self.packets.blocking_recv().unwrap_or_default();
            if self.deadline.passed() {
                return Err(self.deadline.late(self.what).unreachable());
            }
            if self.packet.is_empty() {
                self.at = 0;
                return Ok(());
            }
            if matches!(payload(&self.packet), Some([1, _, ..])) {
                break;
            }
            self.talk += self.packet.len();
            if self.talk > MAX_TALK {
                return Err(Error::source(self.what)
                    .because(format!("the server sends more than {MAX_TALK} bytes besides the pack")));
            }
        }
        // The length and the number of the channel.
        self.at = 5;
        self.written += (self.packet.len() - self.at) as u64;
        if self.written > self.limit.0 {
            return Err(too_large(self.what, "the pack alone takes", self.limit.0, self.limit));
        }
        let mut file = &self.stored.file;
        file.write_all(&self.packet[self.at..]).on_volume(|| self.stored.failed("write"))
    }
}

impl BufRead for Incoming<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.packet.len() && self.failure.is_none() {
            self.failure = self.next().err();
        }
        if self.failure.is_some() {
            return Err(io::ErrorKind::Other.into());
        }
        Ok(&self.packet[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        Digest::update(&mut self.checksum, &self.packet[self.at..self.at + amount]);
        self.at += amount;
        self.taken += amount as u64;
    }
}

impl Read for Incoming<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

/// What one pass over the pack finds.
#[derive(Default)]
struct Found {
    objects: Vec<Object>,
    deltas: Deltas,
    kept: HashMap<u32, Vec<u8>>,
    budget: Budget,
}

/// Counts the bytes of [`MAX_KEPT`] and of [`MAX_FILES`].
#[derive(Default)]
struct Budget {
    kept: AtomicUsize,
    files: AtomicUsize,
}

impl Budget {
    /// Whether contents of this length stay in memory.
    fn has_room(&self, kind: ObjectType, length: usize) -> Result<bool, Stop> {
        let (counter, most) = if kind == ObjectType::Blob { (&self.files, MAX_FILES) } else { (&self.kept, MAX_KEPT) };
        match counter.fetch_add(length, Ordering::Relaxed).saturating_add(length) > most {
            false => Ok(true),
            true if kind == ObjectType::Blob => Ok(false),
            true => Err(Stop::Unsuited),
        }
    }
}

/// What the header of an object says.
enum Form {
    Whole(ObjectType),
    /// A delta to the object this many bytes before.
    Before(u64),
    DeltaOf(Oid),
}

/// Contents to name, with the object's number.
type Batch = Vec<(u32, Part, Vec<u8>)>;

/// What contents are.
enum Part {
    Whole(ObjectType),
    /// A delta to the object with this number.
    Delta(u32),
    DeltaOf(Oid),
}

/// Names objects as they arrive.
struct Namer<'a> {
    budget: &'a Budget,
    /// The objects that are whole.
    named: Vec<(u32, Oid)>,
    arrived: Arrived,
    taker: &'a mut dyn Taker,
}

impl Namer<'_> {
    fn batch(&mut self, batch: Batch) -> Result<(), Stop> {
        batch.into_iter().try_for_each(|(number, part, contents)| match part {
            Part::Whole(kind) => self.whole(number, kind, contents),
            Part::Delta(base) => self.delta(number, Some(base), &contents),
            Part::DeltaOf(base) => self.delta(number, self.arrived.numbers.get(&base).copied(), &contents),
        })
    }

    fn whole(&mut self, number: u32, kind: ObjectType, contents: Vec<u8>) -> Result<(), Stop> {
        let id = name(kind, &contents)?;
        self.named.push((number, id));
        if self.arrived.numbers.insert(id, number).is_some() {
            return Err(Stop::Unsuited);
        }
        let contents = if kind == ObjectType::Blob { self.taker.take(id, contents) } else { Some(contents) };
        contents.map_or(Ok(()), |contents| self.keep(number, id, kind, contents))
    }

    /// Makes a commit or a directory of its delta now, if its base is here. [`Found::finish`] does it for all.
    fn delta(&mut self, number: u32, base: Option<u32>, delta: &[u8]) -> Result<(), Stop> {
        let base = base.and_then(|base| self.arrived.kept.get(&base));
        let Some((kind, base)) = base.filter(|(kind, _)| *kind != ObjectType::Blob) else { return Ok(()) };
        if delta::sizes(delta)?.1 > MAX_KEPT as u64 {
            return Ok(());
        }
        let (kind, contents) = (*kind, delta::apply(base, delta)?);
        let id = name(kind, &contents)?;
        self.arrived.numbers.entry(id).or_insert(number);
        self.keep(number, id, kind, contents)
    }

    fn keep(&mut self, number: u32, id: Oid, kind: ObjectType, contents: Vec<u8>) -> Result<(), Stop> {
        if self.budget.has_room(kind, contents.len())? {
            self.arrived.kept.insert(number, (kind, contents));
        }
        if kind != ObjectType::Blob {
            self.taker.note(id, &self.arrived);
        }
        Ok(())
    }
}

/// Reads the pack once, and names the objects that need no other. This thread inflates, another one hashes.
fn read(incoming: &mut Incoming<'_>, taker: &mut dyn Taker) -> Result<Found, Stop> {
    let (mut found, budget) = (Found::default(), Budget::default());
    let arrived = Arrived::default();
    let namer = Namer { budget: &budget, named: Vec::new(), arrived, taker };
    let namer = Mutex::new(namer);
    let pass = |batch| namer.lock().map_err(|_| Stop::Unsuited)?.batch(batch);
    thread::scope(|scope| {
        let (send, batches) = sync_channel::<Batch>(BATCHES);
        let hash = || batches.into_iter().try_for_each(pass);
        let helper = thread::Builder::new().name("blocking".into()).spawn_scoped(scope, hash).ok();
        let read = inflate_all(incoming, &mut found, |batch, is_large| match helper {
            // Fails if the other thread has an error.
            Some(_) if !is_large => send.send(batch).map_err(|_| Stop::Unsuited),
            _ => pass(batch),
        });
        drop(send);
        helper.map_or(Ok(()), |helper| helper.join().unwrap_or(Err(Stop::Unsuited)))?;
        read
    })?;
    let Namer { named, arrived, .. } = namer.into_inner().map_err(|_| Stop::Unsuited)?;
    for (number, id) in named {
        found.objects[number as usize].id = id;
    }
    let is_whole = |number: &u32| found.objects[*number as usize].kind != ObjectType::Any;
    let kept = arrived.kept.into_iter().filter(|(number, _)| is_whole(number));
    found.kept = kept.map(|(number, (_, contents))| (number, contents)).collect();
    found.budget = budget;
    found.deltas.by_place.sort_unstable();
    Ok(found)
}

/// Inflates the objects of the pack, and passes on their contents or deltas; a large object alone.
fn inflate_all(
    incoming: &mut Incoming<'_>,
    found: &mut Found,
    mut pass_on: impl FnMut(Batch, bool) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let magic = array::<4>(incoming)?;
    let version = u32::from_be_bytes(array(incoming)?);
    let count = u32::from_be_bytes(array(incoming)?);
    if magic != MAGIC || !VERSIONS.contains(&version) || count as usize > MAX_OBJECTS {
        return Err(Stop::Unsuited);
    }
    let mut inflater = Decompress::new(true);
    let (mut batch, mut bytes) = (Batch::new(), 0);
    let mut ready = |number, part, contents: Vec<u8>| {
        if contents.len() > LARGE {
            return pass_on(vec![(number, part, contents)], true);
        }
        bytes += contents.len();
        batch.push((number, part, contents));
        if bytes < BATCH {
            return Ok(());
        }
        bytes = 0;
        pass_on(std::mem::take(&mut batch), false)
    };
    for number in 0..count {
        let start = incoming.taken;
        let (form, size) = header(incoming)?;
        let data = incoming.taken;
        let contents = inflate(&mut inflater, incoming, size)?;
        let place = Place { start, data, end: incoming.taken, size };
        // Its name comes later, and also its kind if it is a delta.
        let mut object = Object { id: Oid::ZERO_SHA1, kind: ObjectType::Any, size: size.into(), root: number, place };
        if !matches!(form, Form::Whole(_)) {
            object.size = delta::sizes(&contents)?.1;
            if object.size > MAX_OBJECT as u64 {
                return Err(Stop::Unsuited);
            }
        }
        match form {
            Form::Whole(kind) => {
                object.kind = kind;
                ready(number, Part::Whole(kind), contents)?;
            }
            Form::Before(distance) => {
                let base = start.checked_sub(distance).ok_or(Stop::Unsuited)?;
                let at = found.objects.binary_search_by_key(&base, |object| object.place.start);
                let base = at.ok().and_then(|at| u32::try_from(at).ok()).ok_or(Stop::Unsuited)?;
                found.deltas.by_place.push((base, number));
                if found.objects[base as usize].kind != ObjectType::Blob {
                    ready(number, Part::Delta(base), contents)?;
                }
            }
            Form::DeltaOf(base) => {
                found.deltas.by_id.entry(base).or_default().push(number);
                ready(number, Part::DeltaOf(base), contents)?;
            }
        }
        found.objects.push(object);
    }
    pass_on(batch, false)?;
    let sum = incoming.checksum.clone().finalize();
    if sum[..] != array::<CHECKSUM>(incoming)? || !incoming.fill_buf().is_ok_and(<[u8]>::is_empty) {
        return Err(Stop::Unsuited);
    }
    Ok(())
}

/// The name of an object, and its contents if they stay in memory.
struct Named {
    number: u32,
    id: Oid,
    kept: Option<Vec<u8>>,
}

impl Found {
    /// Names the objects that are deltas.
    fn finish(mut self, stored: Stored, deadline: Deadline, what: &str) -> Result<Pack, Stop> {
        let Self { objects, deltas, .. } = &self;
        let is_base = |number: &u32| {
            let object = &objects[*number as usize];
            object.kind != ObjectType::Any && !deltas.of(*number, object.id).is_empty()
        };
        let roots: Vec<u32> = (0..).take(objects.len()).filter(is_base).collect();
        // The family of a delta is not known yet.
        let has_large_deltas =
            objects.iter().any(|object| object.kind == ObjectType::Any && object.size > LARGE as u64)
                || roots.iter().any(|root| objects[*root as usize].size > LARGE as u64);
        // A delta may make its own base again, with its deltas once more.
        let (named, visited) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
        let families = Families { objects, deltas, kept: &self.kept, stored: &stored, deadline, what };
        families.visit(&roots, has_large_deltas, |root, number, contents| {
            if visited.fetch_add(1, Ordering::Relaxed) >= objects.len() {
                return Err(Stop::Unsuited);
            }
            let Object { id, kind, .. } = objects[root as usize];
            if number == root {
                return Ok(id);
            }
            let id = name(kind, contents)?;
            let is_kept = kind != ObjectType::Blob && self.budget.has_room(kind, contents.len())?;
            let kept = is_kept.then(|| contents.to_vec());
            named.lock().expect("no thread panics").push((root, Named { number, id, kept }));
            Ok(id)
        })?;
        for (root, Named { number, id, kept }) in named.into_inner().expect("no thread panics") {
            let kind = self.objects[root as usize].kind;
            let object = &mut self.objects[number as usize];
            (object.id, object.kind, object.root) = (id, kind, root);
            self.kept.extend(kept.map(|contents| (number, contents)));
        }
        let ids: HashMap<Oid, u32> = self.objects.iter().map(|object| object.id).zip(0..).collect();
        // An object twice, or one whose base is not in the pack.
        if ids.len() != self.objects.len() || self.objects.iter().any(|object| object.kind == ObjectType::Any) {
            return Err(Stop::Unsuited);
        }
        Ok(Pack { objects: self.objects, ids, deltas: self.deltas, kept: self.kept, has_large_deltas, stored })
    }
}

/// The objects of a pack as families: an object without a base, and all objects that are made from it.
#[derive(Clone, Copy)]
struct Families<'a> {
    objects: &'a [Object],
    deltas: &'a Deltas,
    kept: &'a HashMap<u32, Vec<u8>>,
    stored: &'a Stored,
    deadline: Deadline,
    what: &'a str,
}

impl Families<'_> {
    /// Visits all objects of the families with these roots. `visit` gets the root, the object and its contents, and
    /// returns its name. Large families have one thread.
    fn visit(
        self,
        roots: &[u32],
        are_large: bool,
        visit: impl Fn(u32, u32, &[u8]) -> Result<Oid, Stop> + Sync,
    ) -> Result<(), Stop> {
        if are_large {
            let mut tools = Tools::default();
            return roots.iter().try_for_each(|root| self.one(*root, MAX_WAITING_LARGE, &mut tools, &visit));
        }
        in_parallel(roots, Tools::default, |root, tools| self.one(*root, MAX_WAITING, tools, &visit))
    }

    fn one(
        self,
        root: u32,
        most: usize,
        tools: &mut Tools,
        visit: impl Fn(u32, u32, &[u8]) -> Result<Oid, Stop>,
    ) -> Result<(), Stop> {
        struct Base {
            contents: Vec<u8>,
            /// The deltas to apply.
            left: Vec<u32>,
        }
        let read = |number: u32, tools: &mut Tools| {
            if self.deadline.passed() {
                return Err(self.deadline.late(self.what).unreachable().into());
            }
            match self.kept.get(&number).filter(|_| number == root) {
                Some(contents) => Ok(contents.clone()),
                // The object, or its delta.
                None => self.stored.inflate(self.objects[number as usize].place, tools),
            }
        };
        let contents = read(root, tools)?;
        let id = visit(root, root, &contents)?;
        let mut waiting = contents.len();
        let mut bases = vec![Base { left: self.deltas.of(root, id), contents }];
        while let Some(mut base) = bases.pop() {
            let Some(number) = base.left.pop() else {
                waiting -= base.contents.len();
                continue;
            };
            let contents = delta::apply(&base.contents, &read(number, tools)?)?;
            // A long chain keeps only its end in memory.
            if base.left.is_empty() {
                waiting -= base.contents.len();
                drop(base);
            } else {
                bases.push(base);
            }
            let id = visit(root, number, &contents)?;
            let left = self.deltas.of(number, id);
            if !left.is_empty() {
                waiting += contents.len();
                if waiting > most {
                    return Err(Stop::Unsuited);
                }
                bases.push(Base { contents, left });
            }
        }
        Ok(())
    }
}

impl Pack {
    /// The size of an object in bytes, and its kind.
    pub(crate) fn header(&self, id: Oid) -> Option<(u64, ObjectType)> {
        let object = &self.objects[*self.ids.get(&id)? as usize];
        Some((object.size, object.kind))
    }

    /// The contents of a commit, a tag or a directory, or of one of the first files.
    pub(crate) fn kept(&self, id: Oid) -> Option<&[u8]> {
        self.kept.get(self.ids.get(&id)?).map(Vec::as_slice)
    }

    /// The contents of a file.
    pub(crate) fn read(&self, id: Oid, what: &str, deadline: Deadline) -> Result<Option<Vec<u8>>> {
        let found = Mutex::new(None);
        self.each(&HashSet::from([id]), what, deadline, |_, contents| {
            *found.lock().expect("no thread panics") = Some(contents.to_vec());
            Ok(())
        })?;
        Ok(found.into_inner().expect("no thread panics"))
    }

    /// Visits the contents of files in several threads, in any order, each once.
    pub(crate) fn each(
        &self,
        wanted: &HashSet<Oid>,
        what: &str,
        deadline: Deadline,
        visit: impl Fn(Oid, &[u8]) -> Result<()> + Sync,
    ) -> Result<()> {
        let numbers = wanted.iter().filter_map(|id| self.ids.get(id));
        let roots: HashSet<u32> = numbers.map(|at| self.objects[*at as usize].root).collect();
        let is_large = |root: &u32| self.has_large_deltas || self.objects[*root as usize].size > LARGE as u64;
        let (mut large, mut small): (Vec<u32>, Vec<u32>) = roots.into_iter().partition(is_large);
        let Self { objects, deltas, kept, stored, .. } = self;
        let families = Families { objects, deltas, kept, stored, deadline, what };
        let visit = |_, number: u32, contents: &[u8]| {
            let id = self.objects[number as usize].id;
            if wanted.contains(&id) {
                visit(id, contents)?;
            }
            Ok(id)
        };
        // In the order of the pack.
        small.sort_unstable();
        large.sort_unstable();
        let done = families.visit(&small, false, visit).and_then(|()| families.visit(&large, true, visit));
        done.map_err(|stop| match stop {
            Stop::Failed(error) => error,
            Stop::NoMemory(size) => Error::source(what)
                .because(format!("there is no memory for a file of {}", Size(size)))
                .hint("raise the container's memory limit"),
            Stop::Unsuited => Error::volume(self.stored.failed("read"))
                .because("it has changed since it was written")
                .hint("check whether another process writes to the volume, or whether its storage is damaged"),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.stored.path
    }

    /// Bytes of the pack on the volume.
    pub(crate) fn bytes(&self) -> u64 {
        self.objects.last().map_or(0, |object| object.place.end)
    }
}

/// Inflates one object of `size` bytes.
fn inflate(inflater: &mut Decompress, input: &mut impl BufRead, size: u32) -> Result<Vec<u8>, Stop> {
    let mut contents = Vec::new();
    if size as usize > MAX_OBJECT {
        return Err(Stop::Unsuited);
    }
    // One byte more shows an object that is longer.
    contents.try_reserve_exact(size as usize + 1).map_err(|_| Stop::NoMemory(size.into()))?;
    inflater.reset(true);
    loop {
        let bytes = input.fill_buf().map_err(|_| Stop::Unsuited)?;
        let (ended, before) = (bytes.is_empty(), inflater.total_in());
        let grown = contents.len();
        let status = inflater.decompress_vec(bytes, &mut contents, FlushDecompress::None);
        let taken = usize::try_from(inflater.total_in() - before).map_err(|_| Stop::Unsuited)?;
        input.consume(taken);
        match status {
            Ok(Status::StreamEnd) if contents.len() == size as usize => return Ok(contents),
            Ok(Status::Ok | Status::BufError)
                if !ended && contents.len() <= size as usize && (taken > 0 || contents.len() > grown) => {}
            _ => return Err(Stop::Unsuited),
        }
    }
}

/// The header of an object: its form, and the size of what follows after inflating.
fn header(input: &mut impl Read) -> Result<(Form, u32), Stop> {
    let [mut byte] = array(input)?;
    let form = byte >> 4 & 0b111;
    let mut size = u64::from(byte & 0b1111);
    let mut shift = 4;
    while byte & 0x80 != 0 {
        [byte] = array(input)?;
        if shift > 32 {
            return Err(Stop::Unsuited);
        }
        size |= u64::from(byte & 0x7f) << shift;
        shift += 7;
    }
    let form = match form {
        1 => Form::Whole(ObjectType::Commit),
        2 => Form::Whole(ObjectType::Tree),
        3 => Form::Whole(ObjectType::Blob),
        4 => Form::Whole(ObjectType::Tag),
        6 => {
            let [mut byte] = array(input)?;
            let mut distance = u64::from(byte & 0x7f);
            while byte & 0x80 != 0 {
                [byte] = array(input)?;
                distance =
                    distance.checked_add(1).and_then(|distance| distance.checked_mul(0x80)).ok_or(Stop::Unsuited)?;
                distance |= u64::from(byte & 0x7f);
            }
            Form::Before(distance)
        }
        7 => Form::DeltaOf(Oid::from_bytes(&array::<20>(input)?).map_err(|_| Stop::Unsuited)?),
        _ => return Err(Stop::Unsuited),
    };
    Ok((form, u32::try_from(size).map_err(|_| Stop::Unsuited)?))
}

fn array<const N: usize>(input: &mut impl Read) -> Result<[u8; N], Stop> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes).map_err(|_| Stop::Unsuited)?;
    Ok(bytes)
}

/// The name of an object: the SHA-1 of its kind, its size and its contents. Refuses contents that were made to collide
/// with others, as Git does.
fn name(kind: ObjectType, contents: &[u8]) -> Result<Oid, Stop> {
    let mut hash = Sha1::new();
    Digest::update(&mut hash, format!("{} {}\0", kind.str(), contents.len()));
    Digest::update(&mut hash, contents);
    match hash.try_finalize() {
        CollisionResult::Ok(id) => Oid::from_bytes(&id).map_err(|_| Stop::Unsuited),
        CollisionResult::Mitigated(_) | CollisionResult::Collision(_) => Err(Stop::Unsuited),
    }
}

/// For any pack, this reader and libgit2 agree on every object, unless this reader leaves the pack to libgit2. The first
/// byte decides whether the rest is a pack, or describes the objects of one.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    use std::time::Duration;

    use self::tests::Nobody;
    use crate::source::objects::{create, index};

    let Some((form, rest)) = data.split_first() else { return };
    let bytes = if *form == 0 { rest.to_vec() } else { tests::described(rest) };
    let dir = std::env::temp_dir().join(format!("podstrap-fuzz-pack-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the temporary directory is writable");
    let path = dir.join("a.pack");
    let deadline = Deadline::after(Duration::from_secs(60));
    let Ok(Some(pack)) =
        receive(tests::packets(&bytes, usize::from(*form) + 1), &path, Size(1 << 20), deadline, "x", &mut Nobody)
    else {
        return;
    };
    let repository = dir.join("git");
    thread_local!(static MADE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) });
    if !MADE.replace(true) {
        create(&repository).expect("the temporary directory is writable");
    }
    for entry in std::fs::read_dir(repository.join("objects/pack")).expect("it was made") {
        std::fs::remove_file(entry.expect("it is readable").path()).expect("it is writable");
    }
    index(&path, &repository, deadline, "x").expect("libgit2 reads what podstrap reads");
    let repo = git2::Repository::open_bare(&repository).expect("it was just made");
    let odb = repo.odb().expect("it has objects");
    for id in pack.ids.keys() {
        let stored = odb.read(*id).expect("libgit2 finds it");
        assert_eq!(pack.header(*id), Some((stored.len() as u64, stored.kind())));
        let contents = pack
            .kept(*id)
            .map_or_else(|| pack.read(*id, "x", deadline).expect("it is readable"), |bytes| Some(bytes.to_vec()));
        assert_eq!(contents.as_deref(), Some(stored.data()));
    }
}

#[cfg(any(test, fuzzing))]
mod tests {
    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;

    /// Takes no file.
    pub(super) struct Nobody;

    impl Taker for Nobody {
        fn note(&mut self, _: Oid, _: &Arrived) {}
        fn take(&mut self, _: Oid, contents: Vec<u8>) -> Option<Vec<u8>> {
            Some(contents)
        }
    }

    /// The packets of an answer with the pack, of that many bytes each.
    pub(super) fn packets(pack: &[u8], size: usize) -> mpsc::Receiver<Vec<u8>> {
        let parts: Vec<Vec<u8>> = pack.chunks(size).map(|part| [b"0000\x01", part].concat()).collect();
        let (send, receive) = mpsc::channel(parts.len().max(1));
        for part in parts {
            send.try_send(part).expect("the channel has room");
        }
        receive
    }

    fn deflated(contents: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(contents).and_then(|()| encoder.finish()).expect("memory never fails")
    }

    /// The header of an object: its form and its size.
    fn header_of(form: u8, mut size: usize) -> Vec<u8> {
        let mut bytes = vec![form << 4 | u8::try_from(size & 0b1111).expect("four bits")];
        size >>= 4;
        while size > 0 {
            *bytes.last_mut().expect("it has one") |= 0x80;
            bytes.push(u8::try_from(size & 0x7f).expect("seven bits"));
            size >>= 7;
        }
        bytes
    }

    /// A distance to a base.
    fn distance_of(mut distance: u64) -> Vec<u8> {
        let mut bytes = vec![(distance & 0x7f) as u8];
        while distance > 0x7f {
            distance = (distance >> 7) - 1;
            bytes.insert(0, 0x80 | (distance & 0x7f) as u8);
        }
        bytes
    }

    /// A pack of objects.
    fn packed(objects: &[Vec<u8>]) -> Vec<u8> {
        let count = u32::try_from(objects.len()).expect("few");
        let mut pack = [&b"PACK\0\0\0\x02"[..], &count.to_be_bytes(), &objects.concat()].concat();
        let sum = Checksum::digest(&pack);
        pack.extend_from_slice(&sum);
        pack
    }

    /// A pack with the objects that `data` describes: for each a form, a number that chooses its base, and the length of
    /// its contents, which follow. Deltas start with fitting sizes.
    #[cfg(fuzzing)]
    pub(super) fn described(mut data: &[u8]) -> Vec<u8> {
        let (mut objects, mut whole, mut at): (Vec<Vec<u8>>, Vec<(u64, Oid, usize)>, u64) = Default::default();
        at += 12;
        while let Some(([form, base, length], rest)) = data.split_first_chunk::<3>() {
            let (contents, after) = rest.split_at(usize::from(*length).min(rest.len()));
            data = after;
            let form = [1, 2, 3, 3, 4, 6, 6, 7][usize::from(form % 8)];
            let base = whole.get(usize::from(*base) % whole.len().max(1)).copied();
            let object = match (form, base) {
                (6 | 7, Some((start, id, size))) => {
                    let result = contents.first().copied().unwrap_or(0);
                    let delta =
                        [&[size as u8 & 0x7f, result & 0x7f][..], contents.get(1..).unwrap_or_default()].concat();
                    let base = if form == 6 { distance_of(at - start) } else { id.as_bytes().to_vec() };
                    [header_of(form, delta.len()), base, deflated(&delta)].concat()
                }
                (6 | 7, None) => continue,
                _ => {
                    let kind = [ObjectType::Commit, ObjectType::Tree, ObjectType::Blob, ObjectType::Tag];
                    let contents = &contents[..contents.len().min(0x7f)];
                    let id = Oid::hash_object(kind[usize::from(form) - 1], contents).expect("it is small");
                    whole.push((at, id, contents.len()));
                    [header_of(form, contents.len()), deflated(contents)].concat()
                }
            };
            at += object.len() as u64;
            objects.push(object);
        }
        packed(&objects)
    }

    #[cfg(test)]
    mod reader {
        use std::process::{Command, Stdio};
        use std::time::Duration;

        use super::*;

        const LIMIT: Size = Size(1 << 30);

        fn received(pack: &[u8], size: usize) -> Result<Option<Pack>> {
            let dir = tempfile::tempdir().unwrap();
            let deadline = Deadline::after(Duration::from_mins(1));
            receive(packets(pack, size), &dir.path().join("a.pack"), LIMIT, deadline, "cannot fetch", &mut Nobody)
        }

        fn git(dir: &Path, args: &[&str], input: &[u8]) -> Vec<u8> {
            let mut child = Command::new("git")
                .args(["-c", "user.name=a", "-c", "user.email=a@b"])
                .args(args)
                .current_dir(dir)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(input).unwrap();
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "git {args:?}");
            output.stdout
        }

        #[test]
        fn every_object_of_gits_packs_is_what_git_says() {
            let dir = tempfile::tempdir().unwrap();
            let git = |args: &[&str], input: &[u8]| git(dir.path(), args, input);
            git(&["init", "--quiet"], b"");
            // Files that change a little each time become long chains of deltas, and so do their directories.
            let mut lines: Vec<String> = (0..400).map(|n| format!("line {n} {}\n", n * 7919 % 1000)).collect();
            for round in 0..60 {
                lines[round * 5] = format!("changed in round {round}\n");
                for file in 0..4 {
                    std::fs::write(dir.path().join(format!("f{file}")), format!("{file}\n{}", lines.concat())).unwrap();
                }
                std::fs::write(dir.path().join(format!("new{round}")), vec![0; round * 1000]).unwrap();
                git(&["add", "--all"], b"");
                git(&["commit", "--quiet", "--message=x"], b"");
            }
            // Longer than a piece, also when compressed.
            let noise: Vec<u8> = (0..100_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
            std::fs::write(dir.path().join("noise"), noise).unwrap();
            git(&["add", "--all"], b"");
            git(&["commit", "--quiet", "--message=x"], b"");
            git(&["tag", "--annotate", "--message=t", "v1"], b"");
            for (options, size) in [
                (&["--delta-base-offset", "--depth=50"][..], 65_515),
                (&["--depth=250", "--window=50"], 1_000),
                (&["--delta-base-offset", "--depth=0"], 7),
            ] {
                let pack = git(&[&["pack-objects", "--all", "--revs", "--stdout", "--quiet"], options].concat(), b"");
                let pack = {
                    let dir = dir.path().join("a.pack");
                    let deadline = Deadline::after(Duration::from_mins(1));
                    receive(packets(&pack, size), &dir, LIMIT, deadline, "cannot fetch", &mut Nobody)
                        .unwrap()
                        .expect("it is sound")
                };
                let listed = git(&["cat-file", "--batch-all-objects", "--batch-check"], b"");
                let listed = String::from_utf8(listed).unwrap();
                assert_eq!(listed.lines().count(), pack.objects.len(), "{options:?}");
                for line in listed.lines() {
                    let [id, kind, size] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
                    let oid = Oid::from_str(id).unwrap();
                    assert_eq!(
                        pack.header(oid).map(|(size, kind)| (size.to_string(), kind.str())),
                        Some((size.into(), kind))
                    );
                }
                let blobs: HashSet<Oid> = pack.objects.iter().map(|object| object.id).collect();
                let seen = Mutex::new(HashMap::new());
                pack.each(&blobs, "x", Deadline::after(Duration::from_mins(1)), |id, contents| {
                    assert!(seen.lock().unwrap().insert(id, contents.to_vec()).is_none(), "{id} twice");
                    Ok(())
                })
                .unwrap();
                for (id, contents) in seen.into_inner().unwrap() {
                    let kind = pack.header(id).unwrap().1;
                    assert_eq!(Oid::hash_object(kind, &contents).unwrap(), id);
                    assert!(pack.kept(id).is_some() || kind == ObjectType::Blob);
                }
            }
        }

        #[test]
        fn what_is_not_sound_is_left_to_libgit2() {
            let blob = |contents: &[u8]| [header_of(3, contents.len()), deflated(contents)].concat();
            let id = Oid::hash_object(ObjectType::Blob, b"0123456789").unwrap();
            let delta = deflated(&[10, 1, 1, b'x']);
            let by_id = |id: Oid| [header_of(7, 4), id.as_bytes().to_vec(), delta.clone()].concat();
            let base = blob(b"0123456789");
            let before = |distance| [header_of(6, 4), distance_of(distance), delta.clone()].concat();
            let good = packed(&[
                base.clone(),
                before(base.len() as u64),
                by_id(Oid::hash_object(ObjectType::Blob, b"x").unwrap()),
            ]);
            // The last delta's base is the object of the delta before, but it has another size.
            assert!(received(&good, 10).unwrap().is_none());
            let sound = packed(&[by_id(id), base.clone()]);
            let pack = received(&sound, 3).unwrap().expect("a base may come later");
            let (x, deadline) =
                (Oid::hash_object(ObjectType::Blob, b"x").unwrap(), Deadline::after(Duration::from_mins(1)));
            assert_eq!(pack.read(x, "x", deadline).unwrap().unwrap(), b"x");
            let mut flipped = sound.clone();
            *flipped.last_mut().unwrap() ^= 1;
            let tree = |size: usize| [header_of(2, size), deflated(&vec![0; size])].concat();
            // Its deltas make the base again.
            let same = [header_of(7, 4), id.as_bytes().to_vec(), deflated(&[10, 10, 0x90, 10])].concat();
            let cases = [
                ("deltas that make their base", packed(&[base.clone(), same.clone(), same])),
                ("a wrong checksum", flipped),
                ("an end in the middle", sound[..sound.len() - 21].to_vec()),
                ("more behind the end", [&sound[..], b"x"].concat()),
                ("no base", packed(&[by_id(id)])),
                ("a distance to nothing", packed(&[base.clone(), before(base.len() as u64 + 1)])),
                ("a distance before the start", packed(&[base.clone(), before(1 << 40)])),
                ("an object twice", packed(&[base.clone(), base.clone()])),
                ("an object of an unknown form", packed(&[[header_of(5, 1), deflated(b"x")].concat()])),
                ("a size that is too small", packed(&[[header_of(3, 1), deflated(b"xy")].concat()])),
                ("a size that is too large", packed(&[[header_of(3, 3), deflated(b"xy")].concat()])),
                ("a size without an end", packed(&[vec![0xff; 20]])),
                ("an object beyond all memory", packed(&[[header_of(3, 1 << 31), deflated(b"xy")].concat()])),
                ("directories beyond the memory for them", packed(&[tree(40 << 20), tree(41 << 20)])),
                ("no zlib", packed(&[[header_of(3, 2), vec![7; 9]].concat()])),
                ("another magic", [b"pack", &sound[4..]].concat()),
                ("another version", [b"PACK\0\0\0\x04", &sound[8..]].concat()),
                ("nothing", Vec::new()),
            ];
            for (name, pack) in cases {
                assert!(received(&pack, 10).unwrap().is_none(), "{name}");
            }
        }
    }
}
