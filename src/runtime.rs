//! Signals and blocking work for async code.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{Error, Kind, Result};

/// Runs work on files or in libgit2 on a worker thread, where it does not delay signals and timers.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::internal("a worker thread failed").because(error)))
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
