//! A small HTTP/1.1 server for tests: one thread and one request for each connection.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};

#[derive(Debug)]
pub struct Request {
    pub method: String,
    /// With the query, as received.
    pub target: String,
    /// Names are lowercase.
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
    pub fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }
    /// The header's value, for example `Basic dXNlcjpwdw==`.
    pub fn authorization(&self) -> Option<&str> {
        self.headers.get("authorization").map(String::as_str)
    }
}

#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

type Handler = dyn Fn(Request) -> Response + Send + Sync;

/// A certificate for `localhost`, its key, and the PEM of its CA.
pub(super) struct Localhost {
    pub(super) leaf: rcgen::Certificate,
    pub(super) key: rcgen::KeyPair,
    pub(super) ca: String,
}

pub(super) fn localhost() -> Localhost {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
    let key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(vec![]).expect("no names");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Each CA has a unique name: a client that trusts several finds the issuer by its name.
    ca.distinguished_name.push(DnType::CommonName, format!("CA of {:?}", std::time::Instant::now()));
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().expect("a key")).expect("a CA");
    let mut leaf = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    leaf.use_authority_key_identifier_extension = true;
    let leaf = leaf.signed_by(&key, &ca).expect("a certificate");
    Localhost { leaf, key, ca: ca.pem() }
}

/// The running server, on a free port of 127.0.0.1; dropping it stops it.
pub struct Server {
    address: SocketAddr,
    scheme: &'static str,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(handler: impl Fn(Request) -> Response + Send + Sync + 'static) -> Self {
        Self::listen("http", None, Arc::new(handler))
    }

    /// The same with TLS, for `localhost`; also returns the PEM of its CA.
    pub fn start_for_localhost(handler: impl Fn(Request) -> Response + Send + Sync + 'static) -> (Self, String) {
        let Localhost { leaf, key, ca } = localhost();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        (Self::start_tls(vec![leaf.der().clone()], key, handler), ca)
    }

    /// The same with TLS, with this certificate chain and key.
    pub fn start_tls(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        handler: impl Fn(Request) -> Response + Send + Sync + 'static,
    ) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config =
            rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).expect("usable key");
        Self::listen("https", Some(Arc::new(config)), Arc::new(handler))
    }

    fn listen(scheme: &'static str, tls: Option<Arc<rustls::ServerConfig>>, handler: Arc<Handler>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), handler, tls) = (stream, Arc::clone(&handler), tls.clone()) else { continue };
                std::thread::spawn(move || {
                    // A client that disconnects ends only its own connection.
                    let _ = match tls {
                        Some(config) => rustls::ServerConnection::new(config)
                            .map_err(std::io::Error::other)
                            .and_then(|session| exchange(rustls::StreamOwned::new(session, stream), &handler)),
                        None => exchange(stream, &handler),
                    };
                });
            }
        });
        Self { address, scheme, stop, thread: Some(thread) }
    }

    /// `http://127.0.0.1:PORT` (`https://localhost:PORT` with TLS), without a trailing slash.
    pub fn url(&self) -> String {
        let host = if self.scheme == "https" { "localhost" } else { "127.0.0.1" };
        format!("{}://{host}:{}", self.scheme, self.address.port())
    }
    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn exchange(mut stream: impl Read + Write, handler: &Arc<Handler>) -> std::io::Result<()> {
    let Some(request) = read_request(&mut stream)? else { return Ok(()) };
    let response = handler(request);
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", response.status);
    if !response.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
        head.push_str(&format!("Content-Length: {}\r\n", response.body.len()));
    }
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(&response.body)?;
    stream.flush()
}

pub(super) fn read_request(stream: &mut impl Read) -> std::io::Result<Option<Request>> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let (method, target) = (method.to_owned(), target.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let mut body = Vec::new();
    if let Some(length) = headers.get("content-length").and_then(|length| length.parse::<usize>().ok()) {
        body.resize(length, 0);
        reader.read_exact(&mut body)?;
    } else if headers.get("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim(), 16).map_err(std::io::Error::other)?;
            let start = body.len();
            body.resize(start + size, 0);
            reader.read_exact(&mut body[start..])?;
            let mut end = String::new();
            reader.read_line(&mut end)?;
            if size == 0 {
                break;
            }
        }
    }
    Ok(Some(Request { method, target, headers, body }))
}

/// The answer of another server on this machine. Its body is complete, whatever the head says.
pub(super) fn forward(request: &Request, port: u16) -> Response {
    let answer = || -> std::io::Result<Response> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        let mut head = format!("{} {} HTTP/1.1\r\n", request.method, request.target);
        let sized = ["content-length", "transfer-encoding", "connection", "authorization"];
        for (name, value) in request.headers.iter().filter(|(name, _)| !sized.contains(&name.as_str())) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Connection: close\r\nContent-Length: {}\r\n\r\n", request.body.len()));
        stream.write_all(head.as_bytes())?;
        stream.write_all(&request.body)?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(502);
        let mut response = Response::new(status, "");
        let mut length = None;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            match name.to_lowercase().as_str() {
                "connection" => {}
                "content-length" => length = value.trim().parse().ok(),
                _ => response.headers.push((name.to_owned(), value.trim().to_owned())),
            }
        }
        if request.method == "HEAD" {
            let length: u64 = length.unwrap_or(0);
            return Ok(response.header("Content-Length", length.to_string()));
        }
        reader.read_to_end(&mut response.body)?;
        Ok(response)
    };
    answer().unwrap_or_else(|error| Response::new(502, error.to_string()))
}
