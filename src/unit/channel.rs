//! Sends one request over a new connection to the control API, and identifies the listening process.
//!
//! Unit answers one request per connection. It closes the connection without an answer if the head is
//! longer than 1,024 bytes, and supports neither chunked bodies nor 100-continue (recorded in
//! tests/fixtures/unit-contract). Therefore each request has an explicit short `Host` and an exact
//! Content-Length. There is no connection pool and no automatic retry.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, Uri, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::TokioExecutor;
use hyperlocal::UnixConnector;

use crate::plan::Control;

/// The Host of requests to a socket. By default, hyperlocal's is the path in hexadecimal, which may be too long.
pub(super) const LOCAL: &str = "localhost";
/// Time limit for the TCP handshake with a control address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Limit of an answer in bytes, above any configuration. podstrap shares the memory of the app's container.
const LONGEST_ANSWER: usize = 64 << 20;

/// The answer of the server.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// The Server header: `Unit/1.35.0`.
    pub(super) server: String,
    pub(super) body: Bytes,
}

/// The reason for a missing answer.
#[derive(Debug)]
pub(super) enum NoReply {
    /// No connection, so podstrap sent nothing.
    Connect(io::Error),
    /// The connection ended before the answer did: Unit may or may not have processed the request.
    /// Holds how it ended, to complete `the connection was …`.
    Cut(String),
    /// The answer is not HTTP, or too long.
    Garbled(String),
}

impl fmt::Display for NoReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => error.fmt(f),
            Self::Cut(how) => write!(f, "the connection was {how}"),
            Self::Garbled(how) => write!(f, "the server does not answer as Unit does: {how}"),
        }
    }
}

/// The process that listens on a socket, from the kernel (`SO_PEERCRED`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    /// 0 for a process in another PID namespace.
    pub(super) pid: Option<i32>,
    pub(super) uid: u32,
}

/// Connects to a socket to identify the listening process, and sends nothing.
pub(super) async fn peer(path: &Path) -> io::Result<Peer> {
    let cred = tokio::net::UnixStream::connect(path).await?.peer_cred()?;
    Ok(Peer { pid: cred.pid(), uid: cred.uid() })
}

/// Sends one request and reads its whole answer. Has no time limit: the caller has the deadline.
pub(super) async fn send(control: &Control, method: Method, path: &str, body: Bytes) -> Result<Reply, NoReply> {
    match control {
        Control::Unix(socket) => {
            let uri: Uri = hyperlocal::Uri::new(socket, path).into();
            exchange(UnixConnector, method, uri, Some(LOCAL), body).await
        }
        Control::Http(url) => {
            let uri = format!("{}{path}", url.as_str().trim_end_matches('/'));
            let uri = uri.parse().map_err(|error| NoReply::Connect(io::Error::other(error)))?;
            let mut connector = HttpConnector::new();
            connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
            exchange(connector, method, uri, None, body).await
        }
    }
}

/// GETs a page of a listener at a Unix socket.
pub(super) async fn get(socket: &Path, host: &str, path: &str) -> Result<Reply, NoReply> {
    exchange(UnixConnector, Method::GET, hyperlocal::Uri::new(socket, path).into(), Some(host), Bytes::new()).await
}

async fn exchange<C>(connector: C, method: Method, uri: Uri, host: Option<&str>, body: Bytes) -> Result<Reply, NoReply>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let client: Client<C, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).retry_canceled_requests(false).build(connector);
    let mut request = Request::builder().method(method).uri(uri);
    if let Some(host) = host {
        request = request.header(header::HOST, host);
    }
    let request = request.body(Full::new(body)).map_err(|error| NoReply::Connect(io::Error::other(error)))?;
    let answer = client.request(request).await.map_err(|error| failure(&error))?;
    let (head, body) = answer.into_parts();
    let server = head.headers.get(header::SERVER).and_then(|value| value.to_str().ok());
    let server = server.unwrap_or("an unnamed server").to_owned();
    let body = Limited::new(body, LONGEST_ANSWER).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            NoReply::Garbled(format!("the answer is longer than {LONGEST_ANSWER} bytes"))
        } else {
            NoReply::Cut("closed during the answer".into())
        }
    })?;
    let body = body.to_bytes();
    Ok(Reply { status: head.status.as_u16(), server, body })
}

fn failure(error: &hyper_util::client::legacy::Error) -> NoReply {
    use io::ErrorKind as K;
    let io = innermost_io(error);
    if error.is_connect() {
        let io = io.map_or_else(
            || io::Error::other(error.to_string()),
            |io| {
                io.raw_os_error()
                    .map_or_else(|| io::Error::new(io.kind(), io.to_string()), io::Error::from_raw_os_error)
            },
        );
        return NoReply::Connect(io);
    }
    let hyper = error.source().and_then(|source| source.downcast_ref::<hyper::Error>());
    match (hyper, io) {
        (Some(hyper), None) if hyper.is_parse() => NoReply::Garbled(hyper.to_string()),
        // These three errors mean the same: which one occurs is a race.
        (_, Some(io)) if !matches!(io.kind(), K::ConnectionReset | K::BrokenPipe | K::UnexpectedEof) => {
            NoReply::Cut(format!("broken: {io}"))
        }
        _ => NoReply::Cut("closed without an answer".into()),
    }
}

fn innermost_io<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a io::Error> {
    let mut link = Some(error);
    let mut found = None;
    while let Some(error) = link {
        found = error.downcast_ref::<io::Error>().or(found);
        link = error.source();
    }
    found
}
