//! A Git repository behind SSH: `git-upload-pack` on a server, its list of references, and one pack
//! (gitprotocol-pack, version 0). Every way in which a server can fail becomes an [`Error`] here.
//!
//! Host keys are always verified, and there is no switch for it. The keys stay in this process: no
//! agent, no program, no configuration of the user's takes part.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use russh::client::{self, AuthResult, DisconnectReason, Handle, Msg};
use russh::keys::{
    Algorithm, EcdsaCurve, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate,
};
use russh::{Channel, ChannelMsg, Disconnect, MethodKind, MethodSet, Preferred, SshId};
use rustix::net::Shutdown;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use crate::error::{Error, Result};
use crate::plan::Ssh;
use crate::retry::Deadline;
use crate::source::SLOW;
use crate::source::auth::Keys;
use crate::source::git::answer::{self, MAX_LIST};
use crate::source::git::known_hosts::{self, Known, Verdict};
use crate::source::git::pktline::{Framer, packet, payload};
use crate::source::git::refs::{Refs, Unreadable};
use crate::source::web::Pace;

/// How long a TCP handshake may take, as over HTTP.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server is given to hear that it is not needed any more.
const FAREWELL: Duration = Duration::from_secs(1);
/// How much of what a server says besides the protocol is kept, how many lines of it are shown, and
/// how many characters of each.
const SAID: usize = 16 << 10;
const SAID_LINES: usize = 8;
const SAID_COLUMNS: usize = 200;
/// What ends a list over HTTP's first part, and asks for nothing here (gitprotocol-pack, "Packfile
/// Negotiation").
const FLUSH: &[u8] = b"0000";

/// Types of host keys, by russh's order of preference, but for RSA with SHA-1: whoever can forge that
/// is any host.
const HOST_KEYS: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
];

const KEYS: &str = "name the Secret's directory, with ssh-privatekey and known_hosts in it (kubernetes.io/ssh-auth), \
                    or the files themselves with --auth";

/// `git-upload-pack` on the other side, which has sent its list and waits for a request. Dropped
/// before, it is told that there will be none.
pub(super) struct Session {
    line: Option<Line>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

/// A command on a server, and what came of it.
struct Line {
    channel: Channel<Msg>,
    login: Login,
    /// The command's standard error.
    said: Vec<u8>,
    status: Option<u32>,
    signal: Option<String>,
}

/// An open account.
struct Login {
    handle: Handle<Watch>,
    heard: Arc<Mutex<Heard>>,
    socket: Socket,
}

/// Ends the connection when it is dropped: the task that reads it does not know that nobody waits.
struct Socket(OwnedFd);

impl Drop for Socket {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = rustix::net::shutdown(&self.0, Shutdown::Both);
    }
}

/// What the connection has to tell besides what was asked of it.
#[derive(Default)]
struct Heard {
    /// Against the host's key.
    verdict: Option<Error>,
    /// What the server says to whoever wants to log in.
    banner: String,
    /// Why it ended the connection.
    farewell: Option<String>,
    /// That it did so after it had answered that nothing can open the account.
    answered: bool,
}

/// Listens to what is not an answer.
struct Watch {
    ssh: Ssh,
    known: Known,
    files: Vec<PathBuf>,
    heard: Arc<Mutex<Heard>>,
}

impl client::Handler for Watch {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        // No certificate was asked for.
        let PublicKeyOrCertificate::PublicKey { key, .. } = shown else { return Ok(false) };
        let verdict = self.judge(key);
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

fn locked(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// What is wrong with the key that the host shows.
    fn judge(&self, key: &PublicKey) -> Option<Error> {
        let (host, shown) = (self.ssh.known_as(), named(key));
        let line = known_hosts::line(&host, key);
        let scan = self.ssh.keyscan();
        let same = format!(
            "ask whoever runs the host, by another way, whether {} is its fingerprint",
            key.fingerprint(HashAlg::Sha256)
        );
        match self.known.judge(key) {
            Verdict::Known => None,
            Verdict::Revoked(at) => Some(
                Error::source(format!("{host} shows a revoked key: somebody else may have it"))
                    .because(format!("{at} revokes {shown}"))
                    .hint("do not connect before whoever runs the host says what happened"),
            ),
            Verdict::Changed(old, at) => Some(
                Error::source(format!("the key of {host} has changed: this may be an attack"))
                    .because(format!("the host shows {shown}"))
                    .because(format!("{at} has {}", named(old)))
                    .excerpt(line)
                    .hint(format!("{same}; only if it is, put the line above in place of the old one")),
            ),
            Verdict::Unknown => {
                let error = Error::source(format!("{host} is not known, and host keys are always verified"))
                    .because(format!("the host shows {shown}"));
                let error = match (&*self.files, &*self.known.types()) {
                    ([], _) => error.because("no known_hosts file was given"),
                    (files, []) => {
                        let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
                        error.because(format!("{} does not name it", files.join(", ")))
                    }
                    (_, types) => error.because(format!("known for it is only {}", types.join(", "))),
                };
                let error = match (self.known.authority(), self.known.unreadable()) {
                    (Some(at), _) => error.because(format!("{at}: @cert-authority is not supported")),
                    (None, Some(at)) => error.because(format!("{at} cannot be read")),
                    (None, None) => error,
                };
                let place = if self.files.is_empty() { " in a known_hosts file" } else { "" };
                let error = error
                    .excerpt(line)
                    .hint(format!("{same}; if it is, the line above{place} makes it known ({scan} prints such lines)"));
                Some(if self.files.is_empty() { error.hint(KEYS) } else { error })
            }
        }
    }
}

/// `ssh-ed25519 SHA256:…`.
fn named(key: &PublicKey) -> String {
    format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256))
}

/// The keys of which use can be made, and what is wrong with the others.
fn readable(keys: &Keys) -> (Vec<(&PathBuf, Arc<PrivateKey>)>, Vec<String>) {
    let (mut usable, mut refused) = (Vec::new(), Vec::new());
    for (file, pem) in &keys.private {
        match private_key(pem.reveal()) {
            Ok(key) => usable.push((file, Arc::new(key))),
            Err(why) => refused.push(format!("{}: {why}", file.display())),
        }
    }
    (usable, refused)
}

/// OpenSSH's own format, PKCS#8, PKCS#1 and SEC1, with whatever ends its lines.
fn private_key(pem: &str) -> Result<PrivateKey, String> {
    if pem.contains("ENCRYPTED") {
        return Err(PASSPHRASE.to_owned());
    }
    let lines: Vec<&str> = pem.trim_start_matches('\u{feff}').lines().map(str::trim).collect();
    let key = russh::keys::decode_secret_key(&lines.join("\n"), None).map_err(|error| match error {
        russh::keys::Error::KeyIsEncrypted => PASSPHRASE.to_owned(),
        // The others quote nothing of the key; what they say is for who knows the format.
        error => format!("no private key that can be read ({error})"),
    })?;
    match key.algorithm() {
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::Rsa { .. } => Ok(key),
        other => Err(format!("{other} keys are not supported")),
    }
}

const PASSPHRASE: &str = "the key is protected by a passphrase, which nobody is here to type: store it without one \
                          (ssh-keygen -p)";

impl Ssh {
    /// Starts `git-upload-pack` for the repository and reads its list of references. The list comes
    /// back parsed, and as an HTTP server would have sent it.
    pub(super) async fn list(&self, keys: &Keys, deadline: Deadline) -> Result<(Session, Refs, Vec<u8>)> {
        let what = format!("cannot list the references of {self}");
        let login = self.log_in(keys, deadline).await?;
        let command = self.command();
        tracing::debug!("{}: {command}", self.known_as());
        let open = async {
            let channel = login.handle.channel_open_session().await?;
            channel.exec(true, command).await?;
            Ok(channel)
        };
        let channel = step(&what, deadline, open)
            .await
            .and_then(|done| done.map_err(|error| self.lost(&what, error, &login.heard)))?;
        let mut line = Line { channel, login, said: Vec::new(), status: None, signal: None };

        let mut body = [packet(b"# service=git-upload-pack\n"), FLUSH.to_vec()].concat();
        let (start, mut framer, mut pace) = (body.len(), Framer::default(), Pace::new(deadline));
        'list: while let Some(bytes) = line.chunk(&what, (body.len() - start) as u64, &mut pace).await? {
            framer.push(&bytes);
            body.extend_from_slice(&bytes);
            if body.len() > MAX_LIST {
                return Err(Error::source(what).because(format!("the list is longer than {MAX_LIST} bytes")));
            }
            loop {
                match framer.next() {
                    Ok(Some(packet)) if payload(packet).is_none_or(|line| line.starts_with(b"ERR ")) => break 'list,
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => {
                        // A greeting, or a shell that runs nothing. It may have more to say.
                        let _ = timeout(FAREWELL, async {
                            while body.len() - start < SAID
                                && let Some(more) = line.chunk(&what, body.len() as u64, &mut pace).await?
                            {
                                body.extend_from_slice(&more);
                            }
                            Ok::<_, Error>(())
                        })
                        .await;
                        line.said.splice(0..0, body[start..].iter().copied().take(SAID));
                        let error = Error::source(&what).because("the server does not start with Git's protocol");
                        return Err(line.quoted(error).hint("check the host, the user and the path"));
                    }
                }
            }
        }
        match Refs::parse(&body) {
            Ok(refs) => Ok((Session { line: Some(line) }, refs, body)),
            Err(Unreadable::Truncated) => Err(line.ended(&what)),
            Err(error) => Err(line.quoted(Error::source(what).because(error))),
        }
    }

    /// A connection whose host is known and took one of the keys. A server that ends it after a few
    /// keys is asked again with those that are left.
    async fn log_in(&self, keys: &Keys, deadline: Deadline) -> Result<Login> {
        let what = format!("cannot log in to {} as {}", self.known_as(), self.user);
        let (usable, mut refused) = readable(keys);
        for why in &refused {
            tracing::warn!("{why}");
        }
        if usable.is_empty() && !refused.is_empty() {
            let error = Error::source(what);
            return Err(refused.into_iter().fold(error, Error::because).hint("give a key that can be used"));
        }
        let mut at = 0;
        loop {
            let mut login = self.connect(&what, keys, deadline).await?;
            let mut first = true;
            let accepts = loop {
                let next = usable.get(at);
                let tried = step(&what, deadline, login.offer(&self.user, next.map(|(_, key)| key))).await?;
                let (answer, accepts) = match tried {
                    Ok(AuthResult::Success) => {
                        if let Some((file, key)) = next {
                            tracing::debug!(
                                "{} takes {} ({})",
                                self.known_as(),
                                file.display(),
                                named(key.public_key())
                            );
                        }
                        return Ok(login);
                    }
                    Ok(AuthResult::Failure { remaining_methods, partial_success: true }) => {
                        ("is not enough for", remaining_methods)
                    }
                    Ok(AuthResult::Failure { remaining_methods, .. }) => ("is refused by", remaining_methods),
                    Err(error) if first || !login.is_over() => return Err(self.lost(&what, error, &login.heard)),
                    Err(_) => ("", MethodSet::empty()),
                };
                // No answer, but the end of the connection: after other keys one on a new connection
                // gets its own; and to the first the end is an answer, if the server says so.
                if login.is_over() && accepts.is_empty() && !locked(&login.heard).answered {
                    if !first {
                        break None;
                    }
                    if locked(&login.heard).farewell.is_none() {
                        return Err(self.lost(&what, russh::Error::Disconnect, &login.heard));
                    }
                }
                if let Some((file, key)) = next {
                    let key = named(key.public_key());
                    refused.push(format!("{}: {key} {answer} the server", file.display()));
                }
                (at, first) = (at + 1, false);
                if at >= usable.len() || !accepts.contains(&MethodKind::PublicKey) {
                    break Some(accepts);
                }
            };
            match accepts {
                Some(accepts) if at >= usable.len() || !accepts.is_empty() => {
                    return Err(self.refused(what, refused, keys, &accepts, &locked(&login.heard)));
                }
                _ => {}
            }
        }
    }

    /// No key opens the account.
    fn refused(&self, what: String, refused: Vec<String>, keys: &Keys, accepts: &MethodSet, heard: &Heard) -> Error {
        let mut error = refused.into_iter().fold(Error::source(what), Error::because);
        if keys.private.is_empty() {
            error = error.because("no private key was given");
        }
        if !accepts.is_empty() {
            let accepts: Vec<&str> = accepts.iter().map(Into::into).collect();
            error = error.because(format!("the server would accept: {}", accepts.join(", ")));
        }
        if let Some(farewell) = &heard.farewell {
            error = error.because(format!("the server says: {farewell}"));
        }
        let banner = lines(heard.banner.as_bytes());
        if !banner.is_empty() {
            error = error.excerpt(banner);
        }
        if keys.private.is_empty() {
            return error.hint(KEYS);
        }
        error.hint(format!(
            "add the public key of one of them to {}'s account there, or to the repository as a deploy key (ssh-keygen -y prints it)",
            self.user
        ))
    }

    /// A connection whose host key is known.
    async fn connect(&self, what: &str, keys: &Keys, deadline: Deadline) -> Result<Login> {
        let known = Known::new(&keys.known_hosts, &self.host, self.port);
        let config = client::Config {
            client_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-podstrap_", env!("CARGO_PKG_VERSION")))),
            preferred: Preferred { key: Cow::Owned(known.order(HOST_KEYS)), ..Preferred::DEFAULT },
            ..client::Config::default()
        };
        let heard = Arc::<Mutex<Heard>>::default();
        let files = keys.known_hosts.iter().map(|(file, _)| file.clone()).collect();
        let watch = Watch { ssh: self.clone(), known, files, heard: Arc::clone(&heard) };
        let stream = self.dial(what, deadline).await?;
        let socket = stream.as_fd().try_clone_to_owned();
        let socket = Socket(socket.map_err(|error| Error::internal("cannot keep a socket").because(error))?);
        match step(what, deadline, client::connect_stream(Arc::new(config), stream, watch)).await? {
            Ok(handle) => Ok(Login { handle, heard, socket }),
            Err(error) => {
                let lost = self.lost(what, error, &heard);
                Err(if lost.retry().is_some() {
                    lost.hint("check that SSH is what listens on that port")
                } else {
                    lost
                })
            }
        }
    }

    /// Tries the host's addresses in turn.
    async fn dial(&self, what: &str, deadline: Deadline) -> Result<TcpStream> {
        let unreachable = |error: Error| {
            error.hint("check the host and the port, and whether the Pod's network policy lets it out").transient(None)
        };
        let late = || {
            let error = Error::source(what).because("the server did not answer in the time that was left");
            Err(error.hint(SLOW).transient(None))
        };
        let seconds = CONNECT_TIMEOUT.as_secs();
        let soon = || deadline.instant().min(Instant::now() + CONNECT_TIMEOUT);
        let lookup = tokio::net::lookup_host((&*self.host, self.port));
        let addresses: Vec<SocketAddr> = match timeout_at(soon(), lookup).await {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(error)) => {
                let error = Error::source(what).because(format!("{} has no address", self.host)).because(error);
                return Err(unreachable(error));
            }
            Err(_) if deadline.passed() => return late(),
            Err(_) => {
                let silence = format!("the name server says nothing about {} in {seconds} s", self.host);
                return Err(unreachable(Error::source(what).because(silence)));
            }
        };
        let mut failed = Error::source(what).because(format!("{} has no address", self.host));
        for address in addresses {
            failed = match timeout_at(soon(), TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // A round trip must not wait for more to send; without the option it is only slower.
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

    /// What a failure of the protocol means. A connection that ended may be one that holds next time.
    fn lost(&self, what: &str, error: russh::Error, heard: &Mutex<Heard>) -> Error {
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
                .because(format!("what answers at {} does not speak SSH", self.known_as()))
                .hint("check the host and the port"),
            russh::Error::NoCommonAlgo { kind, theirs, .. } => {
                let kind = match kind {
                    russh::AlgorithmKind::Kex => "key exchange",
                    russh::AlgorithmKind::Key => "type of host key",
                    russh::AlgorithmKind::Cipher => "cipher",
                    russh::AlgorithmKind::Compression => "compression",
                    russh::AlgorithmKind::Mac => "MAC",
                };
                made.because(format!("the server knows no {kind} that is safe: {}", theirs.join(", ")))
                    .hint("the server's SSH is too old")
            }
            russh::Error::ChannelOpenFailure(reason) => {
                made.because(format!("the server opens no session ({reason:?})"))
            }
            error => made.because(error),
        }
    }
}

/// One exchange with the server.
async fn step<T>(what: &str, deadline: Deadline, work: impl Future<Output = T>) -> Result<T> {
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

impl Login {
    /// Offers a key, or asks without one what is wanted.
    async fn offer(&mut self, user: &str, key: Option<&Arc<PrivateKey>>) -> Result<AuthResult, russh::Error> {
        let Some(key) = key else { return self.handle.authenticate_none(user).await };
        let hash = if matches!(key.algorithm(), Algorithm::Rsa { .. }) {
            // A server that does not say what it takes is asked for what all take (RFC 8332, 3.3).
            self.handle.best_supported_rsa_hash().await?.flatten().or(Some(HashAlg::Sha256))
        } else {
            None
        };
        self.handle.authenticate_publickey(user, PrivateKeyWithHashAlg::new(Arc::clone(key), hash)).await
    }

    fn is_over(&self) -> bool {
        self.handle.is_closed()
    }
}

impl Line {
    /// The next bytes of the command's output, of which `received` are here; none at its end.
    async fn chunk(
        &mut self,
        what: &str,
        received: u64,
        pace: &mut Pace,
    ) -> Result<Option<impl std::ops::Deref<Target = [u8]> + use<>>> {
        loop {
            let Ok(message) = timeout_at(pace.until(), self.channel.wait()).await else {
                let error = pace.stalled(what).because(format!("{received} bytes of the answer had come"));
                return Err(self.quoted(error));
            };
            match message {
                Some(ChannelMsg::Data { data }) => {
                    pace.came(data.len());
                    return Ok(Some(data));
                }
                Some(ChannelMsg::ExtendedData { data, .. }) => {
                    pace.came(data.len());
                    let room = SAID.saturating_sub(self.said.len());
                    self.said.extend_from_slice(&data[..data.len().min(room)]);
                }
                Some(ChannelMsg::ExitStatus { exit_status }) => self.status = Some(exit_status),
                Some(ChannelMsg::ExitSignal { signal_name, .. }) => self.signal = Some(format!("{signal_name:?}")),
                Some(ChannelMsg::Failure) => {
                    return Err(self.quoted(Error::source(what).because("the server refuses to run git-upload-pack")));
                }
                Some(ChannelMsg::Close) | None => return Ok(None),
                Some(_) => {}
            }
        }
    }

    /// The command ended before it said what it was to say.
    fn ended(&self, what: &str) -> Error {
        let error = Error::source(what);
        if let Some(signal) = &self.signal {
            return self.quoted(error.because(format!("git-upload-pack was ended by SIG{signal}"))).transient(None);
        }
        match self.status {
            Some(127) => self.quoted(error.because("the server has no git-upload-pack on its PATH")),
            Some(status) => self
                .quoted(error.because(format!("git-upload-pack ended with exit status {status}")))
                .hint("check the path, and whether the key may read this repository"),
            None if !self.said.is_empty() => self.quoted(error.because("git-upload-pack ended")),
            None => {
                let farewell = locked(&self.login.heard).farewell.take();
                let farewell = farewell.map(|text| format!(": {text}")).unwrap_or_default();
                error.because(format!("the server closed the connection{farewell}")).transient(None)
            }
        }
    }

    /// With the server's own words, if it has any.
    fn quoted(&self, error: Error) -> Error {
        let said = lines(&self.said);
        if said.is_empty() { error } else { error.excerpt(said) }
    }

    /// Says that nothing more is wanted, and waits a moment for it to be heard.
    async fn end(mut self, unasked: bool) {
        let farewell = async {
            if unasked {
                self.channel.data_bytes(FLUSH).await?;
            }
            self.channel.eof().await?;
            if unasked {
                while self.channel.wait().await.is_some() {}
            }
            self.login.handle.disconnect(Disconnect::ByApplication, "", "").await?;
            (&mut self.login.handle).await
        };
        if !matches!(timeout(FAREWELL, farewell).await, Ok(Ok(()))) {
            tracing::trace!("the server did not take leave");
        }
        drop(self.login.socket);
    }
}

/// The first lines of what a server says, without what frames them.
fn lines(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let lines = text.lines().map(|line| line.trim().trim_start_matches("remote:").trim());
    let told = lines.filter(|line| line.contains(char::is_alphanumeric)).take(SAID_LINES);
    told.map(|line| line.chars().take(SAID_COLUMNS).collect()).collect::<Vec<String>>().join("\n")
}

impl Session {
    /// Whether nobody answers any more.
    pub(super) fn is_over(&self) -> bool {
        self.line.as_ref().is_none_or(|line| line.login.is_over())
    }

    /// Sends a request for a pack and hands the packets of the answer to `packets` one by one,
    /// until the answer ends or nobody takes them any more. What the server itself says against
    /// it (`ERR`, sideband 3) comes back as text.
    pub(super) async fn upload_pack(
        mut self,
        what: &str,
        body: Vec<u8>,
        packets: mpsc::Sender<Vec<u8>>,
        deadline: Deadline,
    ) -> Result<Option<String>> {
        let Some(mut line) = self.line.take() else { return Err(Error::internal("a session was used twice")) };
        let answered = line.ask(what, body, &packets, deadline).await;
        // The packets end here, not when the server has heard of it.
        drop(packets);
        leave(line, false);
        answered
    }
}

impl Line {
    async fn ask(
        &mut self,
        what: &str,
        body: Vec<u8>,
        packets: &mpsc::Sender<Vec<u8>>,
        deadline: Deadline,
    ) -> Result<Option<String>> {
        let pace = Pace::new(deadline);
        // A server that closes before it read everything may still have said why.
        if timeout_at(pace.until(), self.channel.data_bytes(body)).await.is_err() {
            return Err(self.quoted(pace.stalled(what)));
        }
        let answered = {
            let chunk = async |received, pace: &mut Pace| self.chunk(what, received, pace).await;
            answer::pass_on(what, chunk, str::to_owned, packets, deadline).await
        };
        answered.map_err(|error| self.quoted(error))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(line) = self.line.take() {
            leave(line, true);
        }
    }
}

/// Takes leave of a server without waiting for it; where nothing runs any more the connection just
/// ends.
fn leave(line: Line, unasked: bool) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(line.end(unasked));
    }
}

/// Whatever is in the file of a key, it is read or refused, and a refusal quotes nothing of it.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(data);
    let text = String::from_utf8_lossy(data).into_owned();
    let kinds = ["OPENSSH PRIVATE", "PRIVATE", "RSA PRIVATE", "EC PRIVATE"];
    let framed = kinds.map(|kind| format!("-----BEGIN {kind} KEY-----\n{body}\n-----END {kind} KEY-----\n"));
    for pem in framed.iter().chain([&text]) {
        let Err(why) = private_key(pem) else { continue };
        assert!(body.len() < 16 || !why.contains(&body[..16]), "{why}");
        assert!(!why.contains('\n') && !pem.lines().any(|line| line.len() > 40 && why.contains(line)), "{why}");
    }
}
