//! libgit2's end of the wire: it speaks through a channel to the HTTP client on the other side.
//!
//! libgit2 asks a transport for two things, the list of references and then a pack, and blocks
//! while it reads them. Here the list is given beforehand, and the request for the pack is sent to
//! an async task that answers with packets. No network, no credentials and no deadline live on
//! this side: when the task is done or gone the channel closes, and libgit2 stops.
//!
//! This is the one module with `unsafe`: libgit2's process-wide switches are not synchronised, so
//! they are set once, before anything else uses it. One of them is its allocator: a pack of a few
//! bytes can name an object of any size, and libgit2 has no limit of its own.

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

/// The largest object that is taken into memory, in bytes. Git makes no deltas of anything larger,
/// so that it need not either (git-config, core.bigFileThreshold).
pub(crate) const MAX_OBJECT: usize = 512 << 20;
/// What libgit2 may ask for at once: such an object with what it adds to it.
const MAX_ALLOCATION: usize = MAX_OBJECT + (64 << 10);
/// How many objects a pack may say that it has: libgit2 makes room for all of them at once. Linux
/// has 10 million in all of its history.
const MAX_OBJECTS: usize = 16 << 20;
/// What a server may say besides the pack: its progress, and where history is cut.
const MAX_TALK: usize = 64 << 20;
/// The scheme under which libgit2 finds this transport.
const SCHEME: &str = "podstrap";
/// Ends a request: nothing more is on offer, send the pack (gitprotocol-pack, "upload-request").
const DONE: &[u8] = b"0009done\n";

/// What libgit2 is connected to during one fetch.
pub(crate) struct Wire {
    /// The list of references it is to believe in.
    pub(crate) listing: Vec<u8>,
    /// Takes the request for the pack.
    pub(crate) request: oneshot::Sender<Vec<u8>>,
    /// Brings the answer, a packet at a time.
    pub(crate) packets: mpsc::Receiver<Vec<u8>>,
}

thread_local! {
    /// How the wire of this thread's fetch reaches the transport that libgit2 makes for it.
    static WIRE: RefCell<Option<Wire>> = const { RefCell::new(None) };
}

/// Makes libgit2 fit for a Pod, once for the process: no configuration of the machine or the user
/// counts, and a volume owned by somebody else is no reason to refuse.
#[expect(unsafe_code, reason = "libgit2's process-wide switches and its register of transports are unsynchronised")]
pub(crate) fn set_up() -> Result<(), git2::Error> {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    let set = || {
        // Fetching hashes every object once, as git does; reading them again need not.
        git2::opts::strict_hash_verification(false);
        // SAFETY: OnceLock runs this on one thread, and every use of libgit2 comes after it.
        unsafe {
            limit_memory()?;
            git2::opts::set_verify_owner_validation(false)?;
            for level in [ConfigLevel::ProgramData, ConfigLevel::System, ConfigLevel::XDG, ConfigLevel::Global] {
                git2::opts::set_search_path(level, "")?;
            }
            git2::transport::register(SCHEME, |remote| {
                let wire = WIRE.take().ok_or_else(|| failed("no fetch is under way on this thread"))?;
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

/// Gives libgit2 no more than [`MAX_ALLOCATION`] at once. Whoever asks for more is told that there
/// is no memory, which libgit2 reports as an error.
///
/// # Safety
/// Nothing else may use libgit2 meanwhile. What it allocated before is freed by the same `free`.
#[expect(unsafe_code, reason = "libgit2 offers this switch in C only")]
unsafe fn limit_memory() -> Result<(), git2::Error> {
    extern "C" fn malloc(size: usize, _file: *const c_char, _line: c_int) -> *mut c_void {
        if size > MAX_ALLOCATION {
            return std::ptr::null_mut();
        }
        // SAFETY: malloc takes any size.
        unsafe { libc::malloc(size) }
    }
    extern "C" fn realloc(old: *mut c_void, size: usize, _file: *const c_char, _line: c_int) -> *mut c_void {
        if size > MAX_ALLOCATION {
            return std::ptr::null_mut();
        }
        // SAFETY: libgit2 hands back what it got from these functions, or NULL.
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
    if codes.iter().all(|code| *code >= 0) { Ok(()) } else { Err(failed("libgit2 takes no limits")) }
}

/// Fetches what `refspecs` name in the wire's listing into `repo`; `depth` 0 is everything. A pack
/// of more than `limit` is cancelled, as everything is at the deadline.
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
    // Indexing takes its own time after the last byte has come.
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
    /// How much came that is not the pack.
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
            Service::ReceivePackLs | Service::ReceivePack => Err(failed("nothing is ever pushed")),
        }
    }

    fn close(&self) -> Result<(), git2::Error> {
        Ok(())
    }
}

/// The exchange that ends in a pack.
///
/// For a limited depth libgit2 wants two: one that tells where history is cut, and a second, the
/// same with `done`, that brings the pack. A fresh repository has nothing to negotiate in between,
/// so `done` goes out with the first, and the second reads on where the first one stopped: each
/// read returns one packet at most, and the first exchange stops at its flush.
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
            // Nobody there any more: the packets will end at once.
            let _ = request.send(body);
        }
        let mut read = exchange.packet.read(buffer)?;
        if read == 0 {
            let packet = exchange.packets.blocking_recv().unwrap_or_default();
            if !matches!(payload(&packet), Some([1, ..])) {
                exchange.talk += packet.len();
                if exchange.talk > MAX_TALK {
                    return Err(std::io::Error::other(format!("the server says {MAX_TALK} bytes besides the pack")));
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
