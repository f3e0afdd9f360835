//! One request over one new connection to the control API, and who is at its other end.
//!
//! Unit answers one request per connection, closes without a word when the head is longer than
//! 1,024 bytes, and knows neither chunked bodies nor 100-continue (recorded in
//! tests/fixtures/unit-contract). So: an explicit short `Host`, an exact Content-Length, nothing
//! pooled, nothing sent twice.

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

/// How long a TCP handshake with a control address may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// More than any configuration is; the app's container shares its memory with podstrap.
const LONGEST_ANSWER: usize = 64 << 20;

/// What came back.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// The Server header: `Unit/1.35.0`.
    pub(super) server: String,
    pub(super) body: Bytes,
}

/// Why nothing came back.
#[derive(Debug)]
pub(super) enum NoReply {
    /// No connection, so nothing was sent.
    Connect(io::Error),
    /// The connection ended before the answer did: what became of the request is unknown. Holds
    /// what the connection was.
    Cut(String),
    /// Something answered, but not in HTTP, or without an end.
    Garbled(String),
}

impl fmt::Display for NoReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => error.fmt(f),
            Self::Cut(how) => write!(f, "the connection was {how}"),
            Self::Garbled(how) => write!(f, "what answers does not speak as Unit does: {how}"),
        }
    }
}

/// The process that listens on a socket, as the kernel knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    /// 0 for a process of another PID namespace.
    pub(super) pid: Option<i32>,
    pub(super) uid: u32,
}

/// Connects to a socket to learn who listens, and says nothing.
pub(super) async fn peer(path: &Path) -> io::Result<Peer> {
    let cred = tokio::net::UnixStream::connect(path).await?.peer_cred()?;
    Ok(Peer { pid: cred.pid(), uid: cred.uid() })
}

/// Sends one request and reads its whole answer. There is no time-out: who calls has the deadline.
pub(super) async fn send(control: &Control, method: Method, path: &str, body: Bytes) -> Result<Reply, NoReply> {
    match control {
        Control::Unix(socket) => {
            let uri: Uri = hyperlocal::Uri::new(socket, path).into();
            // hyperlocal's own Host would be the path in hexadecimal.
            exchange(UnixConnector, method, uri, Some("localhost"), body).await
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

async fn exchange<C>(
    connector: C,
    method: Method,
    uri: Uri,
    host: Option<&'static str>,
    body: Bytes,
) -> Result<Reply, NoReply>
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
    let server = server.unwrap_or("a server without a name").to_owned();
    let body = Limited::new(body, LONGEST_ANSWER).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            NoReply::Garbled(format!("its answer is longer than {LONGEST_ANSWER} bytes"))
        } else {
            NoReply::Cut("closed within the answer".into())
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
        // Which of these it is depends on who was faster.
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
