//! Signals and blocking work for async code, and a watch over work that does not end.
//!
//! The command runs on its own thread, and the main thread only waits. A command that blocks in a system call, or in a
//! library that never returns, therefore cannot keep podstrap from ending: after a signal or a deadline the main
//! thread returns without it.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, sleep_until};

use crate::error::{Error, Kind, Result};
use crate::retry::Deadline;

/// Time for a command to end in order after a signal.
const AFTER_SIGNAL: Duration = Duration::from_secs(1);
/// The same for a command that also stops a server and removes its files.
const AFTER_SIGNAL_OF_SERVER: Duration = Duration::from_secs(5);
/// Time for a command to report its deadline.
const AFTER_DEADLINE: Duration = Duration::from_secs(5);

/// The stack of the command's thread: as much as the main thread usually has.
const STACK: usize = 8 << 20;
/// tokio's one thread for blocking work, which looks up hosts, lives as long as the command.
const KEEP_ALIVE: Duration = Duration::from_hours(24 * 365);
/// Turns that each task gets after the command has ended: one for an SSH session that disconnects, one for the
/// connection that sends it, and two to spare.
const LAST_TURNS: usize = 4;

const DEFECT: &str = "report the message above: this is a defect of podstrap";

/// What the main thread knows about the command.
#[derive(Debug, Clone, Copy, Default)]
struct Limits {
    /// The deadline, and the kind of the error if the command does not end by then.
    deadline: Option<(Deadline, Kind)>,
    is_server: bool,
}

/// Tells the main thread how long the command may take.
#[derive(Debug, Clone)]
pub(crate) struct Watched(Arc<watch::Sender<Limits>>);

impl Watched {
    pub(crate) fn until(&self, deadline: Deadline, kind: Kind) {
        self.0.send_modify(|limits| limits.deadline = Some((deadline, kind)));
    }
    pub(crate) fn is_server(&self) {
        self.0.send_modify(|limits| limits.is_server = true);
    }
}

/// Runs a command on its own thread until it ends, or until it does not end in time after a signal or its deadline.
///
/// # Errors
/// The error of the command; or the error of the signal or deadline after which it did not end.
pub(crate) fn watched<F>(work: impl FnOnce(Watched) -> F + Send + 'static) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let runtime = started(Builder::new_current_thread().enable_all())?;
    let (limits, known) = watch::channel(Limits::default());
    let (finished, ended) = oneshot::channel();
    runtime.block_on(async {
        // Before the thread starts: PID 1 loses every signal that it does not listen for.
        let mut signals = Signals::listen()?;
        let mut children = listen(SignalKind::child())?;
        tokio::spawn(async move {
            while children.recv().await.is_some() {
                crate::reap::zombies();
            }
        });
        let watched = Watched(Arc::new(limits));
        let run = move || {
            // Fails if the main thread no longer waits.
            let _ = finished.send(to_its_end(|| work(watched)));
        };
        thread::Builder::new()
            .name("command".into())
            .stack_size(STACK)
            .spawn(run)
            .map_err(|error| no_thread(&error))?;
        tokio::select! {
            biased;
            result = ended => result.unwrap_or_else(|_| {
                Err(Error::internal("podstrap panicked").hint(DEFECT))
            }),
            error = overdue(&mut signals, known) => Err(error),
        }
    })
}

/// Returns the error of a command that does not end.
async fn overdue(signals: &mut Signals, mut known: watch::Receiver<Limits>) -> Error {
    let late = async {
        let deadline = known.wait_for(|limits| limits.deadline.is_some()).await.ok().and_then(|limits| limits.deadline);
        // Without a deadline, only a signal ends the wait.
        let Some((deadline, kind)) = deadline else { return std::future::pending().await };
        sleep_until(deadline.instant()).await;
        sleep(AFTER_DEADLINE).await;
        deadline.stuck(kind)
    };
    let error = tokio::select! {
        error = late => return error,
        error = signals.one() => error,
    };
    sleep(if known.borrow().is_server { AFTER_SIGNAL_OF_SERVER } else { AFTER_SIGNAL }).await;
    error
}

/// Runs a command on this thread.
fn to_its_end<F: Future<Output = Result<()>>>(work: impl FnOnce() -> F) -> Result<()> {
    let runtime =
        started(Builder::new_current_thread().enable_all().thread_keep_alive(KEEP_ALIVE).max_blocking_threads(1))?;
    first_thread(&runtime)?;
    let result = runtime.block_on(Box::pin(async { work().await }));
    // Let dropped connections send their last message, without waiting for it.
    runtime.block_on(async {
        for _ in 0..LAST_TURNS {
            tokio::task::yield_now().await;
        }
    });
    // Blocking calls cannot be cancelled, so do not wait for them.
    runtime.shutdown_background();
    result
}

fn started(builder: &mut Builder) -> Result<Runtime> {
    builder.build().map_err(|error| Error::internal("cannot start the runtime").because(error))
}

/// Starts tokio's thread for blocking work. tokio would panic if it could not start it later.
fn first_thread(runtime: &Runtime) -> Result<()> {
    let report = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let first = panic::catch_unwind(AssertUnwindSafe(|| drop(runtime.spawn_blocking(|| ()))));
    panic::set_hook(report);
    first.map_err(|_| no_thread(&rustix::io::Errno::AGAIN.into()))
}

fn no_thread(error: &std::io::Error) -> Error {
    Error::internal("cannot start a thread")
        .because(error.to_string())
        .hint("raise the container's limit of processes (pids)")
}

/// Runs work on files or in libgit2 on a worker thread, where it does not delay signals and timers.
///
/// It starts the thread itself: tokio panics if the system allows no further one.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (finished, ended) = oneshot::channel();
    // Fails if nobody waits any more.
    let run = move || drop(finished.send(work()));
    thread::Builder::new().name("blocking".into()).spawn(run).map_err(|error| no_thread(&error))?;
    ended.await.unwrap_or_else(|_| Err(Error::internal("a worker thread failed").hint(DEFECT)))
}

/// Works on all items, in as many threads as this container has processors. `tools` makes what a thread uses for all its
/// items. Ends early with the first error.
pub(crate) fn in_parallel<T: Sync, Tools, E: Send>(
    items: &[T],
    tools: impl Fn() -> Tools + Sync,
    work: impl Fn(&T, &mut Tools) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    let run = || {
        let mut tools = tools();
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = work(item, &mut tools) {
                next.store(items.len(), Ordering::Relaxed);
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(items.len());
    thread::scope(|scope| {
        for _ in 1..threads {
            // This thread can do the work alone.
            if thread::Builder::new().name("blocking".into()).spawn_scoped(scope, run).is_err() {
                break;
            }
        }
        run();
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Listens for signals of one kind.
pub(crate) fn listen(kind: SignalKind) -> Result<Signal> {
    signal(kind).map_err(|error| Error::internal("cannot listen for signals").because(error))
}

/// Listens for SIGTERM and SIGINT, and keeps a signal that arrives while nobody waits. After the first
/// listener the signals no longer end the process themselves, so keep one until all work is done.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn listen() -> Result<Self> {
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Returns the result of the work, or the error of the signal that ended it.
    pub(crate) async fn unless_one<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            result = work => result,
            error = self.one() => Err(error),
        }
    }

    /// Waits for the first signal.
    pub(crate) async fn one(&mut self) -> Error {
        let (name, number) = tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", 15),
            _ = self.interrupt.recv() => ("SIGINT", 2),
        };
        Error::new(Kind::Interrupted(number), format!("ended by {name}"))
    }
}
