//! A fake control API. It frames requests as Unit does and answers from `tests/fixtures/unit-contract`.
//! It does not answer a request that was never recorded, and counts it.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

/// Limit for request line and headers, in bytes.
const HEAD: usize = 1024;

/// A request as Unit parsed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn put_config(body: impl Into<Vec<u8>>) -> Self {
        Self { method: "PUT".into(), path: "/config".into(), body: body.into() }
    }
}

/// One recorded exchange.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) group: String,
    pub(crate) setup: Vec<Asked>,
    /// The writes, each sent after its delay.
    pub(crate) writes: Vec<(Duration, Vec<u8>)>,
    pub(crate) half_closes: bool,
    /// The request that Unit parsed; `None` if it closed the connection or waited for more.
    pub(crate) asked: Option<Asked>,
    /// Status line, headers and body.
    pub(crate) response: Option<Recorded>,
    pub(crate) connection_end: String,
    /// The answer to a GET of /config afterwards.
    pub(crate) after: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) status: u16,
    pub(crate) reason: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

/// The recorded cases that can be replayed: all except [`NOT_REPLAYED`].
pub(crate) static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| {
    let file = include_str!("../../fixtures/unit-contract/cases.jsonl");
    file.lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a line is JSON"))
        .filter(|case| !NOT_REPLAYED.contains(&text(&case["name"])))
        .map(|case| Case::new(&case))
        .collect()
});

/// The cases that are left out, with the reasons.
pub(crate) const NOT_REPLAYED: [&str; 14] = [
    // The body contains a private key, which is not recorded.
    "cert-put",
    "cert-put-again",
    "cert-put-cert-without-key",
    "cert-put-no-name",
    "cert-delete-in-use",
    "cert-delete",
    "cert-put-tls-config",
    // The recording describes the body but does not contain it.
    "put-60000-routes",
    // Like put-padded-8MiB, but with more memory and time than a test should take.
    "put-padded-32MiB",
    "put-padded-64MiB",
    "put-padded-256MiB",
    // The server is busy for minutes or exits; its later answers are not recorded.
    "content-length-huge",
    "put-nested-arrays-100000",
    "put-nested-arrays-1000000",
];

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

impl Case {
    fn new(case: &Value) -> Self {
        let request = &case["request"];
        let writes = match request["raw"].as_array() {
            Some(parts) => parts
                .iter()
                .map(|part| {
                    // Latin-1: one character is one byte.
                    let bytes = text(&part["data"]).chars().map(|c| u8::try_from(c).expect("Latin-1")).collect();
                    (Duration::from_millis(part["delay_ms"].as_u64().unwrap_or_default()), bytes)
                })
                .collect(),
            None => vec![(Duration::ZERO, composed(request))],
        };
        let mut framing = Framing::default();
        let asked = writes.iter().map(|(_, bytes)| framing.feed(bytes)).find(|step| *step != Step::More);
        let response = case["response"].as_object().map(|response| Recorded {
            status: response["status"].as_u64().and_then(|n| n.try_into().ok()).expect("a status"),
            reason: text(&response["reason"]).to_owned(),
            headers: response["headers"]
                .as_array()
                .expect("headers")
                .iter()
                .map(|pair| (text(&pair[0]).to_owned(), text(&pair[1]).to_owned()))
                .collect(),
            body: text(&response["body"]).to_owned(),
        });
        let setup = case["setup"].as_array().map_or(&[][..], Vec::as_slice).iter().map(|step| Asked {
            method: text(&step["method"]).to_owned(),
            path: text(&step["path"]).to_owned(),
            body: text(&step["body"]).as_bytes().to_owned(),
        });
        Self {
            name: text(&case["name"]).to_owned(),
            group: text(&case["group"]).to_owned(),
            setup: setup.collect(),
            writes,
            half_closes: request.get("then").is_some(),
            asked: match asked {
                Some(Step::Request(asked)) => Some(asked),
                _ => None,
            },
            response,
            connection_end: text(&case["connection_end"]).to_owned(),
            after: case["after"]["/config"]["body"].as_str().map(str::to_owned),
        }
    }
}

fn composed(request: &Value) -> Vec<u8> {
    let mut bytes = format!("{} {} HTTP/1.1\r\n", text(&request["method"]), text(&request["path"]));
    for header in request["headers"].as_array().expect("headers") {
        bytes.extend([text(&header[0]), ": ", text(&header[1]), "\r\n"]);
    }
    let mut bytes = (bytes + "\r\n").into_bytes();
    let generator = &request["body_generator"];
    bytes.extend(match text(&generator["kind"]) {
        "json text padded with spaces" => {
            let length = usize::try_from(generator["total_bytes"].as_u64().expect("a length")).expect("it fits");
            let json = text(&generator["json"]);
            (json.to_owned() + &" ".repeat(length - json.len())).into_bytes()
        }
        "nested arrays" => {
            let depth = usize::try_from(generator["depth"].as_u64().expect("a depth")).expect("it fits");
            ("[".repeat(depth) + &"]".repeat(depth)).into_bytes()
        }
        "" => match request["body_base64"].as_str() {
            Some(coded) => base64(coded),
            None => text(&request["body"]).as_bytes().to_owned(),
        },
        other => panic!("no such generator: {other}"),
    });
    bytes
}

fn base64(coded: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut count, mut out) = (0_u32, 0, Vec::new());
    for byte in coded.bytes().filter(|byte| *byte != b'=') {
        let digit = DIGITS.iter().position(|digit| *digit == byte).expect("base64");
        bits = (bits << 6) | u32::try_from(digit).expect("below 64");
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from((bits >> count) & 0xff).expect("a byte"));
        }
    }
    out
}

/// Cuts a request out of the received data as Unit does, one read after another.
#[derive(Debug, Default)]
struct Framing {
    head: Vec<u8>,
    /// Once the head is complete: the request, and the length of its body.
    body: Option<(Asked, usize)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    More,
    /// Unit closes the connection without an answer.
    Close,
    Request(Asked),
}

impl Framing {
    fn feed(&mut self, bytes: &[u8]) -> Step {
        if self.body.is_none() {
            let taken = bytes.len().min(HEAD - self.head.len());
            self.head.extend_from_slice(&bytes[..taken]);
            if self.head.first().is_some_and(|byte| !byte.is_ascii_uppercase()) {
                return Step::Close;
            }
            let end = |mark: &[u8]| self.head.windows(mark.len()).position(|w| w == mark).map(|at| at + mark.len());
            let Some(end) = end(b"\r\n\r\n").or_else(|| end(b"\n\n")) else {
                return if self.head.len() == HEAD { Step::Close } else { Step::More };
            };
            let Some((asked, length)) = parsed(&self.head[..end]) else { return Step::Close };
            // The rest of the same read is the body, whatever Content-Length says.
            let rest = [&self.head[end..], &bytes[taken..]].concat();
            self.body = Some((Asked { body: rest, ..asked }, length));
        } else if let Some((asked, length)) = &mut self.body {
            let room = length.saturating_sub(asked.body.len());
            asked.body.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        match &self.body {
            Some((asked, length)) if asked.body.len() >= *length => {
                let body = if asked.method == "GET" { Vec::new() } else { asked.body.clone() };
                Step::Request(Asked { body, ..asked.clone() })
            }
            _ => Step::More,
        }
    }
}

fn parsed(head: &[u8]) -> Option<(Asked, usize)> {
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ');
    let (method, path, version) = (words.next()?, words.next()?, words.next()?);
    if !path.starts_with('/') || !version.starts_with("HTTP/1.") {
        return None;
    }
    let mut length = 0;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        }
    }
    Some((Asked { method: method.to_owned(), path: path.to_owned(), body: Vec::new() }, length))
}

/// How a fake differs from a fresh Unit.
#[derive(Debug, Default, Clone)]
pub(crate) struct Behaviour {
    /// A recorded case whose answer takes precedence over other cases with the same request.
    pub(crate) like: Option<&'static str>,
    /// Delay before the first answer, as if remembered applications were starting.
    pub(crate) warm_up: Duration,
    /// Closes every connection without an answer, as FreeUnit does for other users.
    pub(crate) closes: bool,
    /// The number of PUTs that end with a reset instead of an answer.
    pub(crate) cut_puts: u32,
    /// Whether such a PUT still applies its configuration.
    pub(crate) cut_but_applied: bool,
    /// The duration of a PUT.
    pub(crate) put_takes: Duration,
    /// The initial configuration.
    pub(crate) config: Option<Vec<u8>>,
}

/// The running fake; stops when it is stopped, killed or dropped.
pub(crate) struct FakeUnit {
    path: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    behaviour: Behaviour,
    stop: AtomicBool,
    started: std::time::Instant,
    cuts: AtomicU32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The successful changes since the start.
    history: Vec<Asked>,
    /// The answer to a GET of /config, if it is recorded.
    config: Option<String>,
    log: Vec<Asked>,
    unknown: Vec<Asked>,
}

impl FakeUnit {
    pub(crate) fn start(path: &Path) -> Self {
        Self::with(path, Behaviour::default())
    }

    pub(crate) fn with(path: &Path, behaviour: Behaviour) -> Self {
        // Like Unit: the file appears only when the socket listens.
        let early = path.with_extension("tmp");
        let listener = UnixListener::bind(&early).expect("a free socket path");
        listener.set_nonblocking(true).expect("a socket");
        let mut state = State { config: fresh(), ..State::default() };
        if let Some(config) = &behaviour.config {
            state.change(Asked::put_config(config.clone()), None);
        }
        std::fs::rename(&early, path).expect("the directory is writable");
        let shared = Arc::new(Shared {
            behaviour,
            stop: AtomicBool::new(false),
            started: std::time::Instant::now(),
            cuts: AtomicU32::new(0),
            state: Mutex::new(state),
        });
        let served = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            while !served.stop.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let shared = Arc::clone(&served);
                        std::thread::spawn(move || drop(shared.exchange(stream)));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        Self { path: path.to_owned(), shared, thread: Some(thread) }
    }

    /// Stops as on SIGTERM: removes the socket's file and ends open connections without an answer.
    pub(crate) fn stop(mut self) {
        let _ = std::fs::remove_file(&self.path);
        self.end();
    }

    /// Stops as on SIGKILL: leaves the socket's file.
    pub(crate) fn kill(mut self) {
        self.end();
        self.path = PathBuf::new();
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    /// All requests, in order.
    pub(crate) fn log(&self) -> Vec<Asked> {
        self.shared.state().log.clone()
    }
    pub(crate) fn puts(&self) -> usize {
        self.log().iter().filter(|asked| asked.method == "PUT").count()
    }
    /// The configuration that the fake shows.
    pub(crate) fn config(&self) -> Option<String> {
        self.shared.state().config.clone()
    }
    /// Replaces the configuration, like a PUT of another client.
    pub(crate) fn replace(&self, config: &[u8]) {
        self.shared.state().change(Asked::put_config(config), None);
    }
    /// The requests that no recorded case answers.
    pub(crate) fn unknown(&self) -> Vec<Asked> {
        self.shared.state().unknown.clone()
    }
}

impl Drop for FakeUnit {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        self.end();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread has panicked with it")
    }

    fn exchange(&self, mut stream: UnixStream) -> std::io::Result<()> {
        // accept(2) does not inherit O_NONBLOCK; this makes it explicit.
        stream.set_nonblocking(false)?;
        if self.behaviour.closes {
            return Ok(());
        }
        let mut framing = Framing::default();
        let mut buffer = vec![0; 64 * 1024];
        let asked = loop {
            let room = if framing.body.is_none() { HEAD - framing.head.len() } else { buffer.len() };
            let count = match stream.read(&mut buffer[..room])? {
                0 => return Ok(()),
                count => count,
            };
            match framing.feed(&buffer[..count]) {
                Step::More => {}
                Step::Close => return Ok(()),
                Step::Request(asked) => break asked,
            }
        };
        let change = asked.method != "GET";
        self.state().log.push(asked.clone());
        self.sleep_until(self.started + self.behaviour.warm_up);
        if change {
            self.sleep_until(std::time::Instant::now() + self.behaviour.put_takes);
        }
        if self.stop.load(Ordering::SeqCst) {
            return Ok(());
        }
        if change && self.cuts.fetch_add(1, Ordering::SeqCst) < self.behaviour.cut_puts {
            if self.behaviour.cut_but_applied {
                self.state().change(asked, self.behaviour.like);
            }
            return Ok(());
        }
        let response = self.state().change(asked, self.behaviour.like);
        let Some(response) = response else { return Ok(()) };
        let mut bytes = format!("HTTP/1.1 {} {}\r\n", response.status, response.reason);
        for (name, value) in &response.headers {
            bytes.extend([name, ": ", value, "\r\n"]);
        }
        stream.write_all((bytes + "\r\n" + &response.body).as_bytes())?;
        // Close only the write side: data that the client still sends must not turn the answer into a reset.
        stream.shutdown(Shutdown::Write)
    }

    fn sleep_until(&self, moment: std::time::Instant) {
        while std::time::Instant::now() < moment && !self.stop.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl State {
    /// Finds the answer and applies its effect.
    fn change(&mut self, asked: Asked, like: Option<&str>) -> Option<Recorded> {
        let here = |case: &&Case| case.setup == self.history && case.asked.as_ref() == Some(&asked);
        let whole = |case: &&Case| case.setup.is_empty() && case.asked.as_ref() == Some(&asked);
        let found = CASES
            .iter()
            .filter(here)
            .find(|case| like == Some(case.name.as_str()))
            .or_else(|| CASES.iter().find(here))
            // A complete configuration replaces the current one, so the history does not matter.
            .or_else(|| {
                CASES.iter().find(whole).filter(|_| (asked.method.as_str(), asked.path.as_str()) == ("PUT", "/config"))
            });
        if let Some(case) = found {
            let response = case.response.clone();
            if asked.method != "GET" && response.as_ref().is_some_and(|response| response.status == 200) {
                self.record(asked, case.after.clone());
            }
            return response;
        }
        if asked.method == "GET" && asked.path == "/config" {
            return self.config.clone().map(ok);
        }
        // Each step in the setup of a recorded case succeeded.
        let step =
            |case: &Case| case.setup.starts_with(&self.history) && case.setup.get(self.history.len()) == Some(&asked);
        if CASES.iter().any(step) {
            self.record(asked, None);
            return Some(ok("{\r\n\t\"success\": \"Reconfiguration done.\"\r\n}\r\n".into()));
        }
        self.unknown.push(asked);
        None
    }

    fn record(&mut self, asked: Asked, config: Option<String>) {
        if (asked.method.as_str(), asked.path.as_str()) == ("PUT", "/config") {
            self.history.clear();
        }
        self.history.push(asked);
        // A recorded GET of /config shows the configuration after its setup.
        let reads = |case: &&Case| case.setup == self.history && case.asked.as_ref().is_some_and(|a| a.method == "GET");
        self.config = config.or_else(|| CASES.iter().find(reads).and_then(|case| case.after.clone()));
    }
}

fn fresh() -> Option<String> {
    let case = CASES.iter().find(|case| case.name == "get-fresh-config")?;
    Some(case.response.as_ref()?.body.clone())
}

/// The answer to a GET of /config, with another body.
fn ok(body: String) -> Recorded {
    let case = CASES.iter().find(|case| case.name == "get-fresh-config").expect("it is recorded");
    let mut recorded = case.response.clone().expect("it is answered");
    for (name, value) in &mut recorded.headers {
        if name == "Content-Length" {
            *value = body.len().to_string();
        }
    }
    Recorded { body, ..recorded }
}

/// The answer to some writes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Came {
    Response(Recorded),
    /// The connection ended without data.
    Nothing,
    /// The connection stays open without data.
    Silence,
}

/// Sends a case's writes to a socket and reads the whole answer, for at most `patience`.
pub(crate) fn ask(socket: &Path, case: &Case, patience: Duration) -> Came {
    let mut stream = UnixStream::connect(socket).expect("the socket listens");
    for (delay, bytes) in &case.writes {
        std::thread::sleep(*delay);
        // The server may close before it has received everything.
        if stream.write_all(bytes).is_err() {
            break;
        }
    }
    if case.half_closes {
        let _ = stream.shutdown(Shutdown::Write);
    }
    stream.set_read_timeout(Some(patience)).expect("a time");
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes);
    if bytes.is_empty() {
        let waits = end.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
        return if waits { Came::Silence } else { Came::Nothing };
    }
    let bytes = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = bytes.split_once("\r\n\r\n").expect("a head");
    let mut lines = head.split("\r\n");
    let mut words = lines.next().expect("a status line").splitn(3, ' ');
    assert_eq!(words.next(), Some("HTTP/1.1"));
    Came::Response(Recorded {
        status: words.next().and_then(|word| word.parse().ok()).expect("a status"),
        reason: words.next().expect("a reason").to_owned(),
        headers: lines
            .map(|line| {
                line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned())).expect("a header")
            })
            .collect(),
        body: body.to_owned(),
    })
}

/// The answer to a GET of /config, in the format of `after`.
pub(crate) fn shown(socket: &Path) -> Option<String> {
    let writes = vec![(Duration::ZERO, b"GET /config HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec())];
    match ask(socket, &Case::plain(writes), Duration::from_secs(5)) {
        Came::Response(response) => Some(response.body),
        _ => None,
    }
}

impl Case {
    /// A case with nothing but these writes.
    pub(crate) fn plain(writes: Vec<(Duration, Vec<u8>)>) -> Self {
        Self {
            name: String::new(),
            group: String::new(),
            setup: Vec::new(),
            writes,
            half_closes: false,
            asked: None,
            response: None,
            connection_end: String::new(),
            after: None,
        }
    }

    /// A case that sends the request of a step in `setup`.
    pub(crate) fn step(asked: &Asked) -> Self {
        let head = format!(
            "{} {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            asked.method,
            asked.path,
            asked.body.len()
        );
        Self::plain(vec![(Duration::ZERO, [head.as_bytes(), &asked.body].concat())])
    }
}
