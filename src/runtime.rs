//! What async code here stands on: signals, and work that would block.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{Error, Kind, Result};

/// Work on files and in libgit2 would hold up signals and timers on the main thread.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::internal("a worker thread failed").because(error)))
}

/// A digest as it is written.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The signals of one kind, from now on.
pub(crate) fn listen(kind: SignalKind) -> Result<Signal> {
    signal(kind).map_err(|error| Error::internal("cannot listen for signals").because(error))
}

/// The signals that ask the process to end. One that arrives while nobody waits is kept; but from
/// the first listener on nothing else ends the process, so one must live as long as there is work.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn listen() -> Result<Self> {
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// The work's own result, or the error of the signal that ended it.
    pub(crate) async fn unless_one<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            result = work => result,
            error = self.one() => Err(error),
        }
    }

    /// The first one.
    pub(crate) async fn one(&mut self) -> Error {
        let (name, number) = tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", 15),
            _ = self.interrupt.recv() => ("SIGINT", 2),
        };
        Error::new(Kind::Interrupted(number), format!("ended by {name}"))
    }
}
