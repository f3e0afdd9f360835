//! A connection to a host with a known key, and the messages that the host sends unasked.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use russh::client::{self, DisconnectReason, Handle};
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKeyOrCertificate};
use russh::{Preferred, SshId};
use rustix::net::Shutdown;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::error::{Error, Result};
use crate::plan::Ssh;
use crate::retry::Deadline;
use crate::source::access::auth::Keys;
use crate::source::access::pace::Pace;
use crate::source::remote::ssh::host_key;
use crate::source::remote::ssh::known_hosts::HostKeys;

/// Time-out of a TCP handshake, as over HTTP.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Limits for a server's text outside the protocol: bytes in memory, characters per line.
pub(super) const SAID: usize = 16 << 10;
pub(super) const SAID_COLUMNS: usize = 200;

/// The accepted types of host keys, in russh's order of preference. Excludes RSA with SHA-1: with a forged
/// signature, an attacker can pose as any host.
const HOST_KEYS: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
];

/// A connection, before or after the login.
pub(super) struct Connection {
    pub(super) handle: Handle<Watch>,
    pub(super) heard: Arc<Mutex<Heard>>,
    pub(super) socket: Socket,
}

impl Connection {
    pub(super) fn is_over(&self) -> bool {
        self.handle.is_closed()
    }
}

/// Ends the connection when dropped: the task that reads it does not notice that nobody waits.
pub(super) struct Socket(OwnedFd);

impl Drop for Socket {
    fn drop(&mut self) {
        // Fails if the connection has already ended.
        let _ = rustix::net::shutdown(&self.0, Shutdown::Both);
    }
}

/// The messages that are not answers.
#[derive(Default)]
pub(super) struct Heard {
    /// The error of the host's key.
    pub(super) verdict: Option<Error>,
    /// The message of the server before the login.
    pub(super) banner: String,
    /// The reason of the server for ending the connection.
    pub(super) farewell: Option<String>,
    /// Whether it ended the connection after it had answered that nothing can open the account.
    pub(super) answered: bool,
}

/// Receives the messages that are not answers.
pub(super) struct Watch {
    ssh: Ssh,
    known: HostKeys,
    files: Vec<PathBuf>,
    heard: Arc<Mutex<Heard>>,
}

impl client::Handler for Watch {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        // podstrap requests no certificate.
        let PublicKeyOrCertificate::PublicKey { key, .. } = shown else { return Ok(false) };
        let verdict = host_key::refuse(&self.ssh, &self.known, &self.files, key);
        let trusted = verdict.is_none();
        locked(&self.heard).verdict = verdict;
        Ok(trusted)
    }

    async fn auth_banner(&mut self, banner: &str, _: &mut client::Session) -> Result<(), russh::Error> {
        banner.chars().take(SAID).collect::<String>().clone_into(&mut locked(&self.heard).banner);
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<russh::Error>) -> Result<(), russh::Error> {
        match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                locked(&self.heard).farewell = Some(info.message.chars().take(SAID_COLUMNS).collect());
                Ok(())
            }
            DisconnectReason::Error(error) => {
                locked(&self.heard).answered = matches!(error, russh::Error::NoAuthMethod);
                Err(error)
            }
        }
    }
}

pub(super) fn locked(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connects to the host and verifies its key.
pub(super) async fn connect(ssh: &Ssh, what: &str, keys: &Keys, deadline: Deadline) -> Result<Connection> {
    let known = HostKeys::new(&keys.known_hosts, &ssh.host, ssh.port);
    let config = client::Config {
        client_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-podstrap_", env!("CARGO_PKG_VERSION")))),
        preferred: Preferred { key: Cow::Owned(known.order(HOST_KEYS)), ..Preferred::DEFAULT },
        ..client::Config::default()
    };
    let heard = Arc::<Mutex<Heard>>::default();
    let files = keys.known_hosts.iter().map(|(file, _)| file.clone()).collect();
    let watch = Watch { ssh: ssh.clone(), known, files, heard: Arc::clone(&heard) };
    let stream = dial(ssh, what, deadline).await?;
    let socket = stream.as_fd().try_clone_to_owned();
    let socket = Socket(socket.map_err(|error| Error::internal("cannot duplicate a socket").because(error))?);
    match step(what, deadline, client::connect_stream(Arc::new(config), stream, watch)).await? {
        Ok(handle) => Ok(Connection { handle, heard, socket }),
        Err(error) => {
            let lost = lost(ssh, what, error, &heard);
            Err(if lost.retry().is_some() { lost.hint("check that an SSH server listens on that port") } else { lost })
        }
    }
}

/// Tries the host's addresses in turn.
async fn dial(ssh: &Ssh, what: &str, deadline: Deadline) -> Result<TcpStream> {
    let unreachable = |error: Error| {
        error
            .hint("check the host and the port, and whether the Pod's network policy allows the connection")
            .transient(None)
    };
    let late = || {
        let error = Error::source(what).because("the server did not answer in the remaining time");
        Err(error.hint(deadline.slow()).transient(None))
    };
    let seconds = CONNECT_TIMEOUT.as_secs();
    let soon = || deadline.instant().min(Instant::now() + CONNECT_TIMEOUT);
    let lookup = tokio::net::lookup_host((&*ssh.host, ssh.port));
    let addresses: Vec<SocketAddr> = match timeout_at(soon(), lookup).await {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(error)) => {
            let error = Error::source(what).because(format!("{} has no address", ssh.host)).because(error);
            return Err(unreachable(error));
        }
        Err(_) if deadline.passed() => return late(),
        Err(_) => {
            let silence = format!("no answer from the name server about {} in {seconds} s", ssh.host);
            return Err(unreachable(Error::source(what).because(silence)));
        }
    };
    let mut failed = Error::source(what).because(format!("{} has no address", ssh.host));
    for address in addresses {
        failed = match timeout_at(soon(), TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Send small packets at once. Without this option the connection is only slower.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => Error::source(what).because(format!("cannot connect to {address}")).because(error),
            Err(_) if deadline.passed() => return late(),
            Err(_) => Error::source(what).because(format!("no connection to {address} in {seconds} s")),
        };
    }
    Err(unreachable(failed))
}

/// The error for a failure of the protocol. A retry may help if the connection ended.
pub(super) fn lost(ssh: &Ssh, what: &str, error: russh::Error, heard: &Mutex<Heard>) -> Error {
    let mut heard = locked(heard);
    if let Some(verdict) = heard.verdict.take() {
        return verdict;
    }
    let made = Error::source(what);
    if let Some(farewell) = heard.farewell.take() {
        return made.because(format!("the server ended the connection: {farewell}")).transient(None);
    }
    match error {
        russh::Error::IO(error) => made.because("the connection broke off").because(error).transient(None),
        russh::Error::HUP
        | russh::Error::Disconnect
        | russh::Error::RecvError
        | russh::Error::SendError
        | russh::Error::ConnectionTimeout => made.because("the server closed the connection").transient(None),
        russh::Error::Version => made
            .because(format!("the server at {} does not speak SSH", ssh.known_as()))
            .hint("check the host and the port"),
        russh::Error::NoCommonAlgo { kind, theirs, .. } => {
            let kind = match kind {
                russh::AlgorithmKind::Kex => "key exchange",
                russh::AlgorithmKind::Key => "type of host key",
                russh::AlgorithmKind::Cipher => "cipher",
                russh::AlgorithmKind::Compression => "compression",
                russh::AlgorithmKind::Mac => "MAC",
            };
            made.because(format!("the server offers no safe {kind}, only {}", theirs.join(", ")))
                .hint("update the SSH server: it is too old")
        }
        russh::Error::ChannelOpenFailure(reason) => {
            made.because(format!("the server refuses to open a session ({reason:?})"))
        }
        error => made.because(error),
    }
}

/// Runs one exchange with the server. Fails when the server stalls.
pub(super) async fn step<T>(what: &str, deadline: Deadline, work: impl Future<Output = T>) -> Result<T> {
    let pace = Pace::new(deadline);
    timeout_at(pace.until(), work).await.map_err(|_| {
        if deadline.passed() {
            return pace.stalled(what);
        }
        let silence = deadline.silence().as_secs_f64();
        let stalls = format!("the server stalls: no answer to SSH's handshake in {silence:.1} s");
        Error::source(what).because(stalls).transient(None)
    })
}
