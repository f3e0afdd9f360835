//! libgit2's end of the connection: a channel to the HTTP or SSH client.
//!
//! libgit2 asks a transport for two things, the list of references and then a pack, and blocks while it reads
//! them. Here it gets a prepared list, and its request for the pack goes to an async task that answers with
//! packets. This side has no network, no credentials and no deadline: when the task ends, the channel closes and
//! libgit2 stops.
//!
//! This is the only module with `unsafe`. libgit2's process-wide switches are not synchronised, so podstrap sets
//! them once, before any other use of libgit2. One of them is the allocator: a pack of a few bytes can name an
//! object of any size, and libgit2 sets no limit.

use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_void};
use std::io::{Cursor, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream, Transport};
use git2::{AutotagOption, ConfigLevel, ErrorClass, ErrorCode, FetchOptions, RemoteCallbacks, Repository};
use tokio::sync::{mpsc, oneshot};

use crate::retry::Deadline;
use crate::size::Size;
use crate::source::remote::pktline::payload;

/// The largest object in memory, in bytes. Git makes no deltas of larger ones, so it does not need them in
/// memory either (git-config, core.bigFileThreshold).
pub(crate) const MAX_OBJECT: usize = 512 << 20;
/// The largest single allocation of libgit2: such an object, and libgit2's own data about it.
const MAX_ALLOCATION: usize = MAX_OBJECT + (64 << 10);
/// The largest number of objects that a pack may declare: libgit2 allocates room for all of them at once. Linux
/// has 10 million in its whole history.
const MAX_OBJECTS: usize = 16 << 20;
/// The most bytes from a server besides the pack: its progress, and where history is cut.
pub(crate) const MAX_TALK: usize = 64 << 20;
/// The URL scheme of this transport.
const SCHEME: &str = "podstrap";
/// Ends a request: the client offers nothing more, and wants the pack (gitprotocol-pack, "upload-request").
const DONE: &[u8] = b"0009done\n";

/// libgit2's connection during one fetch.
pub(crate) struct Wire {
    /// The list of references that libgit2 sees.
    pub(crate) listing: Vec<u8>,
    /// Takes the request for the pack.
    pub(crate) request: oneshot::Sender<Vec<u8>>,
    /// Delivers the answer, one packet at a time.
    pub(crate) packets: mpsc::Receiver<Vec<u8>>,
}

thread_local! {
    /// Passes the wire of this thread's fetch to the transport that libgit2 creates for it.
    static WIRE: RefCell<Option<Wire>> = const { RefCell::new(None) };
}

/// Prepares libgit2 for a Pod, once per process: it ignores the configuration of the machine and the user, and
/// accepts a volume that belongs to another user.
#[expect(unsafe_code, reason = "libgit2's process-wide switches and its register of transports are unsynchronised")]
pub(crate) fn set_up() -> Result<(), git2::Error> {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    let set = || {
        // The fetch hashes every object once, as in Git. Later reads need not.
        git2::opts::strict_hash_verification(false);
        // SAFETY: OnceLock runs this on one thread, and every use of libgit2 comes after it.
        unsafe {
            limit_memory()?;
            git2::opts::set_verify_owner_validation(false)?;
            for level in [ConfigLevel::ProgramData, ConfigLevel::System, ConfigLevel::XDG, ConfigLevel::Global] {
                git2::opts::set_search_path(level, "")?;
            }
            git2::transport::register(SCHEME, |remote| {
                let wire = WIRE.take().ok_or_else(|| failed("no fetch is running on this thread"))?;
                Transport::smart(remote, true, Subtransport(Arc::new(Mutex::new(Exchange::new(wire)))))
            })
        }
    };
    let done = DONE.get_or_init(|| set().map_err(|error: git2::Error| error.message().to_owned()));
    done.as_ref().copied().map_err(|error| failed(error))
}

/// libgit2's `git_allocator` (sys/alloc.h).
#[repr(C)]
struct Allocator {
    malloc: extern "C" fn(usize, *const c_char, c_int) -> *mut c_void,
    realloc: extern "C" fn(*mut c_void, usize, *const c_char, c_int) -> *mut c_void,
    free: extern "C" fn(*mut c_void),
}

/// Refuses allocations of libgit2 above [`MAX_ALLOCATION`]. libgit2 reports these as an error: out of memory.
///
/// # Safety
/// Nothing else may use libgit2 meanwhile. The same `free` frees its earlier allocations.
#[expect(unsafe_code, reason = "libgit2 offers this switch in C only")]
unsafe fn limit_memory() -> Result<(), git2::Error> {
    extern "C" fn malloc(size: usize, _file: *const c_char, _line: c_int) -> *mut c_void {
        if size > MAX_ALLOCATION {
            return std::ptr::null_mut();
        }
        // SAFETY: malloc accepts any size.
        unsafe { libc::malloc(size) }
    }
    extern "C" fn realloc(old: *mut c_void, size: usize, _file: *const c_char, _line: c_int) -> *mut c_void {
        if size > MAX_ALLOCATION {
            return std::ptr::null_mut();
        }
        // SAFETY: `old` came from these functions, or is NULL.
        unsafe { libc::realloc(old, size) }
    }
    extern "C" fn free(old: *mut c_void) {
        // SAFETY: as above.
        unsafe { libc::free(old) }
    }
    libgit2_sys::init();
    let allocator = Allocator { malloc, realloc, free };
    // SAFETY: libgit2 copies the three pointers, and takes a size_t for the number.
    let codes = unsafe {
        [
            libgit2_sys::git_libgit2_opts(libgit2_sys::GIT_OPT_SET_ALLOCATOR.cast_signed(), &raw const allocator),
            libgit2_sys::git_libgit2_opts(libgit2_sys::GIT_OPT_SET_PACK_MAX_OBJECTS.cast_signed(), MAX_OBJECTS),
        ]
    };
    if codes.iter().all(|code| *code >= 0) { Ok(()) } else { Err(failed("libgit2 does not accept the limits")) }
}

/// Fetches `refspecs` from the wire into `repo`; `depth` 0 means the whole history. Cancels a pack of more than
/// `limit`, and everything at the deadline.
pub(crate) fn download(
    repo: &Path,
    wire: Wire,
    refspecs: &[String],
    depth: u32,
    limit: Size,
    deadline: Deadline,
) -> Result<(), git2::Error> {
    let repo = Repository::open_bare(repo)?;
    let mut callbacks = RemoteCallbacks::new();
    // Indexing goes on after the last byte has arrived.
    callbacks.transfer_progress(|done| !deadline.passed() && done.received_bytes() as u64 <= limit.0);
    let mut options = FetchOptions::new();
    options.remote_callbacks(callbacks).download_tags(AutotagOption::None).update_fetchhead(false);
    options.depth(i32::try_from(depth).unwrap_or(i32::MAX));
    WIRE.set(Some(wire));
    let fetched = repo.remote_anonymous(&format!("{SCHEME}://wire"))?.download(refspecs, Some(&mut options));
    WIRE.set(None);
    fetched
}

struct Subtransport(Arc<Mutex<Exchange>>);

struct Exchange {
    listing: Vec<u8>,
    request: Option<oneshot::Sender<Vec<u8>>>,
    body: Vec<u8>,
    packets: mpsc::Receiver<Vec<u8>>,
    packet: Cursor<Vec<u8>>,
    /// Received bytes that are not the pack.
    talk: usize,
}

impl Exchange {
    fn new(wire: Wire) -> Self {
        Self {
            listing: wire.listing,
            request: Some(wire.request),
            body: Vec::new(),
            packets: wire.packets,
            packet: Cursor::default(),
            talk: 0,
        }
    }
}

impl SmartSubtransport for Subtransport {
    fn action(&self, _url: &str, action: Service) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        match action {
            Service::UploadPackLs => {
                let mut exchange = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(Box::new(Cursor::new(std::mem::take(&mut exchange.listing))))
            }
            Service::UploadPack => Ok(Box::new(Pack(Arc::clone(&self.0)))),
            Service::ReceivePackLs | Service::ReceivePack => Err(failed("podstrap never pushes")),
        }
    }

    fn close(&self) -> Result<(), git2::Error> {
        Ok(())
    }
}

/// The exchange that ends in a pack.
///
/// For a limited depth, libgit2 makes two exchanges: one that tells where history is cut, and a second, the same
/// with `done`, that delivers the pack. A fresh repository has nothing to negotiate in between. So podstrap
/// sends `done` with the first, and the second continues to read where the first stopped: each read returns at
/// most one packet, and the first exchange stops at its flush.
struct Pack(Arc<Mutex<Exchange>>);

impl Write for Pack {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).body.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Read for Pack {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut exchange = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(request) = exchange.request.take() {
            let mut body = std::mem::take(&mut exchange.body);
            if !body.ends_with(DONE) {
                body.extend_from_slice(DONE);
            }
            // If the task is gone, the packets end at once.
            let _ = request.send(body);
        }
        let mut read = exchange.packet.read(buffer)?;
        if read == 0 {
            let packet = exchange.packets.blocking_recv().unwrap_or_default();
            if !matches!(payload(&packet), Some([1, ..])) {
                exchange.talk += packet.len();
                if exchange.talk > MAX_TALK {
                    return Err(std::io::Error::other(format!(
                        "the server sends more than {MAX_TALK} bytes besides the pack"
                    )));
                }
            }
            exchange.packet = Cursor::new(packet);
            read = exchange.packet.read(buffer)?;
        }
        Ok(read)
    }
}

fn failed(message: &str) -> git2::Error {
    git2::Error::new(ErrorCode::GenericError, ErrorClass::Net, message)
}
