//! The HTTP server of a sidecar that follows a branch.
//!
//! | path | answer |
//! |---|---|
//! | `/healthz` | 200 while the sidecar works |
//! | `/readyz` | 200 from the first published release on, however later commits fail; the state as text |
//! | `/metrics` | for Prometheus |
//! | `POST /webhook` | 202, and the sidecar looks at the reference at once; 401 without the secret |

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use super::metrics::Metrics;
use super::state::State;
use super::webhook::Signed;
use crate::error::{Error, Result};
use crate::files::{self, WRITTEN};

/// Connections at a time; a further one ends the oldest, so silent ones delay no probe. Time limits of a request's head
/// and of the whole request.
const CONNECTIONS: usize = 64;
const HEAD: Duration = Duration::from_secs(10);
const WHOLE: Duration = Duration::from_secs(30);
/// Most bytes of a webhook: GitHub sends at most 25 MB.
/// <https://docs.github.com/en/webhooks/webhook-events-and-payloads>
const LONGEST_WEBHOOK: usize = 25_000_000;
/// The pause after an error of accept(2), such as too many open files.
const AGAIN: Duration = Duration::from_millis(500);

/// What the server shows, and whom it wakes.
pub(super) struct Board {
    pub(super) metrics: Metrics,
    pub(super) woken: Notify,
    secret: Option<PathBuf>,
    is_ready: AtomicBool,
    /// Whether the last webhook was refused.
    is_refusing: AtomicBool,
    state: Mutex<State>,
    /// The last sign of life, and how long the sidecar may need for the next.
    alive: Mutex<Instant>,
    limit: Duration,
}

impl Board {
    pub(super) fn new(secret: Option<PathBuf>, limit: Duration) -> Self {
        Self {
            metrics: Metrics::new(),
            woken: Notify::new(),
            secret,
            is_ready: AtomicBool::new(false),
            is_refusing: AtomicBool::new(false),
            state: Mutex::default(),
            alive: Mutex::new(Instant::now()),
            limit,
        }
    }

    pub(super) fn show(&self, state: &State) {
        self.metrics.show(state);
        self.is_ready.fetch_or(state.serving.is_some(), Ordering::Relaxed);
        state.clone_into(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn live(&self) {
        *self.alive.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    async fn answer(&self, request: Request<Incoming>) -> (u16, String) {
        let get = [Method::GET, Method::HEAD].contains(request.method());
        match (request.uri().path(), get) {
            ("/healthz", true) => {
                let silent = self.alive.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
                if silent < self.limit { (200, "ok\n".to_owned()) } else { (503, format!("stuck for {silent:.0?}\n")) }
            }
            ("/readyz", true) => {
                let text = self.state.lock().unwrap_or_else(PoisonError::into_inner).text();
                (if self.is_ready.load(Ordering::Relaxed) { 200 } else { 503 }, text)
            }
            ("/metrics", true) => (200, self.metrics.text()),
            ("/webhook", false) if request.method() == Method::POST => self.webhook(request).await,
            ("/healthz" | "/readyz" | "/metrics" | "/webhook", _) => (405, "wrong method\n".to_owned()),
            _ => (404, "try /healthz, /readyz or /metrics\n".to_owned()),
        }
    }

    async fn webhook(&self, request: Request<Incoming>) -> (u16, String) {
        let Some(path) = &self.secret else {
            return (404, "no webhook: the sidecar has no --webhook-secret\n".to_owned());
        };
        let secret = match files::read(path, WRITTEN) {
            Ok(secret) => secret.trim_ascii_end().to_vec(),
            Err(error) => {
                tracing::warn!("cannot read --webhook-secret {}: {error}", path.display());
                Vec::new()
            }
        };
        if secret.is_empty() {
            return (503, "no usable secret\n".to_owned());
        }
        let (head, mut body) = request.into_parts();
        let (mut signed, mut length) = (Signed::new(&secret), 0);
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return (400, "the body broke off\n".to_owned()) };
            let Some(chunk) = frame.data_ref() else { continue };
            length += chunk.len();
            if length > LONGEST_WEBHOOK {
                return (413, "too long\n".to_owned());
            }
            signed.update(chunk);
        }
        let is_proved = signed.proves(&head.headers, &secret);
        let was_refusing = self.is_refusing.swap(!is_proved, Ordering::Relaxed);
        if is_proved {
            self.woken.notify_one();
            (202, "looking\n".to_owned())
        } else {
            // Everybody can send one.
            if !was_refusing {
                tracing::warn!(
                    "a webhook without the right secret was refused: compare --webhook-secret with the server's"
                );
            }
            (401, "wrong or missing signature\n".to_owned())
        }
    }
}

/// Listens until podstrap ends.
///
/// # Errors
/// Usage: the address is in use, or not of this machine.
pub(super) async fn start(address: SocketAddr, board: Arc<Board>) -> Result<()> {
    let mut bound = TcpListener::bind(address).await;
    // `[::]` means all addresses, also on a node without IPv6.
    if bound.is_err() && address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        bound = TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await;
    }
    let listener = bound.map_err(|error| {
        Error::usage(format!("cannot listen at --http-bind {address}"))
            .because(error)
            .hint("choose another port: all containers of a Pod share them")
    })?;
    let webhook = if board.secret.is_some() { "/webhook, " } else { "" };
    tracing::info!("http: {webhook}/healthz, /readyz and /metrics at {}", listener.local_addr().unwrap_or(address));
    tokio::spawn(async move {
        let mut open = VecDeque::<AbortHandle>::new();
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                sleep(AGAIN).await;
                continue;
            };
            let board = Arc::clone(&board);
            open.retain(|connection| !connection.is_finished());
            if open.len() >= CONNECTIONS
                && let Some(oldest) = open.pop_front()
            {
                oldest.abort();
            }
            let connection = tokio::spawn(async move {
                let service = service_fn(|request| {
                    let board = Arc::clone(&board);
                    async move { Ok::<_, Infallible>(response(board.answer(request).await)) }
                });
                let mut server = http1::Builder::new();
                server.timer(TokioTimer::new()).header_read_timeout(HEAD).keep_alive(false);
                // A client that breaks off is its own problem.
                let _ = timeout(WHOLE, server.serve_connection(TokioIo::new(stream), service)).await;
            });
            open.push_back(connection.abort_handle());
        }
    });
    Ok(())
}

fn response((status, text): (u16, String)) -> Response<Full<Bytes>> {
    let kind = if text.ends_with("# EOF\n") {
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    } else {
        "text/plain; charset=utf-8"
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status.try_into().unwrap_or_default();
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
