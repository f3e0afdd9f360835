//! A forwarding HTTP server that fails at random. The same seed gives the same failures.
//!
//! The fault of a request depends on the seed, the method, the path and the number of earlier requests for the path.
//! It does not depend on the order of requests for different paths.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

use super::http::{Request, read_request};

/// How long [`Fault::Refuse`] refuses connections.
const REFUSING: Duration = Duration::from_millis(300);

/// The faults that a request can meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A TCP reset instead of an answer.
    Reset,
    /// The same, and the server refuses connections for [`REFUSING`].
    Refuse,
    /// A TCP reset in the middle of the body.
    ResetInBody,
    /// The body ends early, before its Content-Length.
    Cut,
    /// The body ends early, with a matching Content-Length. Never applied to web pages: a shortened index page
    /// looks like a complete page with fewer files.
    CutUnnoticed,
    Delay,
    /// The body in a few parts, with pauses between them.
    Throttle,
    /// No answer until the client disconnects.
    Stall,
    /// This status, with or without Retry-After, in seconds or as a date.
    Status(u16, Option<Wait>),
    /// Bytes that are not HTTP.
    Garbage,
    /// The connection ends without an answer.
    Empty,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    Seconds(u64),
    Date(u64),
}

impl Fault {
    const ALL: &[Self] = &[
        Self::Reset,
        Self::Refuse,
        Self::ResetInBody,
        Self::Cut,
        Self::CutUnnoticed,
        Self::Delay,
        Self::Throttle,
        Self::Stall,
        Self::Status(500, None),
        Self::Status(502, None),
        Self::Status(503, Some(Wait::Seconds(1))),
        Self::Status(503, Some(Wait::Date(1))),
        Self::Status(429, Some(Wait::Seconds(0))),
        Self::Status(429, None),
        Self::Garbage,
        Self::Empty,
    ];
}

/// The probability and the limits of random faults.
#[derive(Debug, Clone, Copy)]
pub struct Dice {
    pub seed: u64,
    /// Probability of a fault for one request.
    pub probability: f64,
    /// The most faults in a row for one path.
    pub budget: usize,
}

struct State {
    upstream: u16,
    dice: Dice,
    /// Scripted faults instead of random ones: each hits the next request whose path contains the text.
    script: Mutex<Vec<(&'static str, Fault)>>,
    /// By path: the number of requests, and of consecutive faults.
    asked: Mutex<HashMap<String, (u64, usize)>>,
    faults: Mutex<BTreeMap<Fault, usize>>,
    connections: AtomicUsize,
    refusing: AtomicBool,
    stop: AtomicBool,
}

/// The running server; dropping it stops it.
pub struct Chaos {
    address: SocketAddr,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

impl Chaos {
    /// Starts in front of a server at a port of this machine.
    pub fn start(upstream: u16, dice: Dice) -> Self {
        Self::with(upstream, dice, Vec::new())
    }

    /// Applies only these faults, each once: to the next request whose path contains the text.
    pub fn scripted(upstream: u16, script: &[(&'static str, Fault)]) -> Self {
        Self::with(upstream, Dice { seed: 0, probability: 0.0, budget: 0 }, script.to_vec())
    }

    fn with(upstream: u16, dice: Dice, script: Vec<(&'static str, Fault)>) -> Self {
        // This socket is bound but never listens. It reserves the port while the server refuses connections.
        let reserve = bound(0);
        let address: SocketAddr =
            rustix::net::getsockname(&reserve).expect("a bound socket").try_into().expect("an internet address");
        let state = Arc::new(State {
            upstream,
            dice,
            script: Mutex::new(script),
            asked: Mutex::default(),
            faults: Mutex::default(),
            connections: AtomicUsize::new(0),
            refusing: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let mut listener = listening(address.port());
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let _reserve = reserve;
            while let Ok((stream, _)) = listener.accept() {
                if shared.stop.load(Ordering::SeqCst) {
                    return;
                }
                if shared.refusing.swap(false, Ordering::SeqCst) {
                    drop(listener);
                    std::thread::sleep(REFUSING);
                    listener = listening(address.port());
                    continue;
                }
                let state = Arc::clone(&shared);
                std::thread::spawn(move || {
                    state.connections.fetch_add(1, Ordering::SeqCst);
                    // A client that disconnects ends only its own connection.
                    let _ = exchange(stream, &state, address);
                });
            }
        });
        Self { address, state, thread: Some(thread) }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }
    /// The number of faults so far, by kind.
    pub fn faults(&self) -> BTreeMap<Fault, usize> {
        self.state.faults.lock().expect("no panic").clone()
    }
    /// The scripted faults that have not happened yet.
    pub fn left(&self) -> Vec<(&'static str, Fault)> {
        self.state.script.lock().expect("no panic").clone()
    }
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        // While the server refuses connections, retry until it accepts one and sees the flag.
        while TcpStream::connect(self.address).is_err() {
            std::thread::sleep(REFUSING / 10);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn bound(port: u16) -> OwnedFd {
    // CLOEXEC: a child would keep an inherited socket open, and connections would hang instead of being refused.
    let fd = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a socket");
    sockopt::set_socket_reuseport(&fd, true).expect("an option of every socket");
    bind(&fd, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).expect("a free port");
    fd
}

fn listening(port: u16) -> TcpListener {
    let fd = bound(port);
    listen(&fd, 64).expect("a bound socket listens");
    fd.into()
}

/// Ends a connection with a reset.
fn reset(stream: TcpStream) -> std::io::Result<()> {
    sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    drop(stream);
    Ok(())
}

impl State {
    fn throw(&self, request: &Request) -> Option<Fault> {
        let mut script = self.script.lock().expect("no panic");
        if let Some(next) = script.iter().position(|(part, _)| request.path().contains(part)) {
            return Some(script.remove(next).1);
        }
        let what = format!("{} {}", request.method, request.path());
        let mut asked = self.asked.lock().expect("no panic");
        let (times, in_a_row) = asked.entry(what.clone()).or_default();
        *times += 1;
        let mut hasher = DefaultHasher::new();
        (self.dice.seed, what, *times).hash(&mut hasher);
        let mut random = fastrand::Rng::with_seed(hasher.finish());
        if *in_a_row >= self.dice.budget || random.f64() >= self.dice.probability {
            *in_a_row = 0;
            return None;
        }
        *in_a_row += 1;
        random.choice(Fault::ALL).copied()
    }
}

fn exchange(mut stream: TcpStream, state: &State, address: SocketAddr) -> std::io::Result<()> {
    let Some(request) = read_request(&mut stream)? else { return Ok(()) };
    let mut fault = state.throw(&request);
    let early = !matches!(fault, None | Some(Fault::ResetInBody | Fault::Cut | Fault::CutUnnoticed | Fault::Throttle));
    let (head, body) = if early { Default::default() } else { forward(&request, state.upstream)? };
    if head.to_lowercase().contains("text/html") && fault == Some(Fault::CutUnnoticed) || !early && body.len() < 2 {
        fault = None;
    }
    if let Some(fault) = fault {
        *state.faults.lock().expect("no panic").entry(fault).or_default() += 1;
    }
    let half = body.len() / 2;
    match fault {
        None => {}
        Some(Fault::Reset) => return reset(stream),
        Some(Fault::Refuse) => {
            state.refusing.store(true, Ordering::SeqCst);
            TcpStream::connect(address)?;
            return reset(stream);
        }
        Some(Fault::ResetInBody) => {
            stream.write_all(head.as_bytes())?;
            stream.write_all(&body[..half])?;
            return reset(stream);
        }
        Some(Fault::Cut) => {
            stream.write_all(head.as_bytes())?;
            return stream.write_all(&body[..half]);
        }
        Some(Fault::CutUnnoticed) => {
            let head = head.replace(&format!("Content-Length: {}\r\n", body.len()), "");
            let head = head.replacen("\r\n", &format!("\r\nContent-Length: {half}\r\n"), 1);
            stream.write_all(head.as_bytes())?;
            return stream.write_all(&body[..half]);
        }
        Some(Fault::Delay) => {
            std::thread::sleep(Duration::from_millis(300));
            let (head, body) = forward(&request, state.upstream)?;
            stream.write_all(head.as_bytes())?;
            return stream.write_all(&body);
        }
        Some(Fault::Throttle) => {
            stream.write_all(head.as_bytes())?;
            for part in body.chunks(body.len().div_ceil(5)) {
                stream.write_all(part)?;
                std::thread::sleep(Duration::from_millis(100));
            }
            return Ok(());
        }
        Some(Fault::Stall) => {
            let _ = stream.read(&mut [0; 1]);
            return Ok(());
        }
        Some(Fault::Status(status, wait)) => {
            let wait = wait.map_or_else(String::new, |wait| match wait {
                Wait::Seconds(seconds) => format!("Retry-After: {seconds}\r\n"),
                Wait::Date(seconds) => {
                    let date = SystemTime::now() + Duration::from_secs(seconds);
                    format!("Retry-After: {}\r\n", httpdate::fmt_http_date(date))
                }
            });
            let head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n{wait}Content-Length: 5\r\n\r\n");
            return stream.write_all(format!("{head}later").as_bytes());
        }
        Some(Fault::Garbage) => return stream.write_all(b"\x16\x03\x01 220 mail.example ESMTP\r\n\r\n"),
        Some(Fault::Empty) => return Ok(()),
    }
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)
}

/// Returns the upstream server's answer: the head with its final empty line, and the body.
fn forward(request: &Request, upstream: u16) -> std::io::Result<(String, Vec<u8>)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream))?;
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method, request.target);
    let sized = ["content-length", "transfer-encoding", "connection"];
    for (name, value) in request.headers.iter().filter(|(name, _)| !sized.contains(&name.as_str())) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Connection: close\r\nContent-Length: {}\r\n\r\n", request.body.len()));
    stream.write_all(head.as_bytes())?;
    stream.write_all(&request.body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    let body = answer.split_off(end);
    Ok((String::from_utf8_lossy(&answer).into_owned(), body))
}
