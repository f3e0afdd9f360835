//! Package tools and a package index. After the first use they need no network.
//!
//! On first use, [`uv`] and [`wheelhouse`] download with pip into `target/test-tools`, with the machine's pip
//! configuration. [`IndexServer`] serves a wheelhouse as PEP 503 requires.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest, Sha256};

use super::http::{Request, Response, Server};

const UV: &str = "uv==0.13.9";
/// Flask and its dependencies for every Python of the tests. `docopt` is published only as source;
/// setuptools builds it.
const WHEELS: &[&str] = &[
    "flask==3.1.2",
    "werkzeug==3.1.3",
    "jinja2==3.1.6",
    "click==8.1.8",
    "blinker==1.9.0",
    "itsdangerous==2.2.0",
    "setuptools==75.3.2",
    "wheel==0.45.1",
];
/// A second version, which conflicts with the first.
const OLDER: &str = "click==8.1.7";
const SOURCES: &[&str] = &["docopt==0.6.2"];
const COMPILED: &str = "markupsafe==3.0.2";

/// The path of a uv binary.
pub(crate) fn uv() -> PathBuf {
    let tools = once("uv", UV, |dir| {
        run(Command::new("python3").args(["-m", "venv"]).arg(dir.join("venv")));
        run(Command::new(dir.join("venv/bin/python")).args(["-m", "pip", "install", "--quiet", UV]));
    });
    tools.join("venv/bin/uv")
}

/// A directory with wheels of Flask, its dependencies and setuptools, and one source distribution.
pub(crate) fn wheelhouse() -> PathBuf {
    let version = own_python();
    once(&format!("wheelhouse-{version}"), &format!("{WHEELS:?} {SOURCES:?} {COMPILED} {OLDER}"), |dir| {
        let pip = || {
            let mut command = Command::new("python3");
            command.args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"]).arg(dir);
            command
        };
        run(pip().args(WHEELS).arg(COMPILED));
        run(pip().arg(OLDER));
        // Building the metadata of the source needs setuptools, which pip also downloads.
        run(pip().args(["--no-binary", "docopt"]).args(SOURCES));
    })
}

/// The version of a Python that the tests do not run with.
pub(crate) fn other_python() -> &'static str {
    if own_python() == "3.13" { "3.12" } else { "3.13" }
}

/// A processor that the tests do not run on.
pub(crate) fn other_machine() -> &'static str {
    if std::env::consts::ARCH == "aarch64" { "x86_64" } else { "aarch64" }
}

/// The version of the Python that the tests run with, as `3.11`.
pub(crate) fn own_python() -> String {
    capture(Command::new("python3").args(["-c", "import sys; print('%d.%d' % sys.version_info[:2])"]))
}

/// A directory with wheels of markupsafe for other platforms: for another Python on both C libraries, for this
/// Python on the other C library, and for another processor.
pub(crate) fn elsewhere() -> PathBuf {
    let (own, other) = (own_python(), other_python());
    let wanted = [
        (other, "manylinux2014_x86_64"),
        (other, "musllinux_1_2_aarch64"),
        (own.as_str(), "musllinux_1_2_x86_64"),
        (own.as_str(), if other_machine() == "aarch64" { "manylinux2014_aarch64" } else { "manylinux2014_x86_64" }),
    ];
    once(&format!("elsewhere-{own}"), &format!("{wanted:?} {COMPILED}"), |dir| {
        for (python, platform) in wanted {
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", COMPILED, "--dest"]);
            run(pip.arg(dir).args(["--python-version", python, "--platform", platform]));
        }
    })
}

/// Runs `fill` on an empty directory once for all tests and test processes, and again when `contents`
/// changes.
pub(crate) fn once(name: &str, contents: &str, fill: impl FnOnce(&Path)) -> PathBuf {
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target directory").join("test-tools");
    std::fs::create_dir_all(&tools).expect("the target directory is writable");
    let lock = File::create(tools.join(format!("{name}.lock"))).expect("the target directory is writable");
    lock.lock().expect("a lock");
    let dir = tools.join(name);
    let done = tools.join(format!("{name}.done"));
    if std::fs::read_to_string(&done).unwrap_or_default() != contents {
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("the target directory is writable");
        fill(&dir);
        std::fs::write(&done, contents).expect("the target directory is writable");
    }
    dir
}

fn run(command: &mut Command) {
    let output = command.output().expect("python3 starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn capture(command: &mut Command) -> String {
    let output = command.output().expect("python3 starts");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// How an index answers requests.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Behaviour {
    /// Basic credentials; a request without them gets 401.
    pub(crate) login: Option<(&'static str, &'static str)>,
    /// The status of every answer.
    pub(crate) always: Option<u16>,
    /// The number of 503 answers before normal ones.
    pub(crate) unavailable: usize,
    /// Publishes the files' hashes, as real indexes do.
    pub(crate) hashes: bool,
}

/// A package index (PEP 503) for the files of one directory.
pub(crate) struct IndexServer {
    server: Server,
    served: Arc<Served>,
}

/// What an index answered so far.
#[derive(Default)]
struct Served {
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

impl IndexServer {
    pub(crate) fn start(wheelhouse: &Path) -> Self {
        Self::behaving(wheelhouse, Behaviour::default())
    }

    /// The same with TLS, for `localhost`; also returns the PEM of its CA.
    pub(crate) fn start_tls(wheelhouse: &Path) -> (Self, String) {
        let (handler, served) = Self::handler(wheelhouse, Behaviour::default());
        let (server, ca) = Server::start_for_localhost(handler);
        (Self { server, served }, ca)
    }

    pub(crate) fn behaving(wheelhouse: &Path, behaviour: Behaviour) -> Self {
        let (handler, served) = Self::handler(wheelhouse, behaviour);
        Self { server: Server::start(handler), served }
    }

    fn handler(
        wheelhouse: &Path,
        behaviour: Behaviour,
    ) -> (impl Fn(Request) -> Response + Send + Sync + 'static, Arc<Served>) {
        let wheelhouse = wheelhouse.to_owned();
        let served = Arc::new(Served::default());
        let count = Arc::clone(&served);
        let reply = move |request: Request| {
            let before = count.requests.fetch_add(1, Ordering::SeqCst);
            if let Some(status) = behaviour.always {
                return Response::new(status, "");
            }
            if before < behaviour.unavailable {
                return Response::new(503, "");
            }
            if let Some((user, password)) = behaviour.login
                && request.authorization() != Some(&format!("Basic {}", base64(&format!("{user}:{password}"))))
            {
                return Response::new(401, "").header("WWW-Authenticate", "Basic realm=\"index\"");
            }
            answer(&wheelhouse, &request, behaviour.hashes)
        };
        let count = Arc::clone(&served);
        let handler = move |request| {
            let response = reply(request);
            count.bytes.fetch_add(response.body.len(), Ordering::SeqCst);
            response
        };
        (handler, served)
    }

    /// `http://127.0.0.1:PORT/simple/`
    pub(crate) fn url(&self) -> String {
        format!("{}/simple/", self.server.url())
    }
    pub(crate) fn port(&self) -> u16 {
        self.server.port()
    }
    /// The same with credentials.
    pub(crate) fn url_with(&self, user: &str, password: &str) -> String {
        self.url().replace("http://", &format!("http://{user}:{password}@"))
    }
    pub(crate) fn requests(&self) -> usize {
        self.served.requests.load(Ordering::SeqCst)
    }
    /// The bytes of all bodies.
    pub(crate) fn bytes(&self) -> usize {
        self.served.bytes.load(Ordering::SeqCst)
    }
}

fn answer(wheelhouse: &Path, request: &Request, hashes: bool) -> Response {
    let path = request.path();
    if let Some(name) = path.strip_prefix("/files/") {
        return match std::fs::read(wheelhouse.join(name)) {
            Ok(bytes) if !name.contains('/') => {
                Response::new(200, bytes).header("Content-Type", "application/octet-stream")
            }
            _ => Response::new(404, ""),
        };
    }
    let mut projects: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in std::fs::read_dir(wheelhouse).expect("the wheelhouse exists") {
        let file = entry.expect("readable").file_name().to_string_lossy().into_owned();
        if Path::new(&file).extension().is_some_and(|extension| extension == "whl" || extension == "gz") {
            let project = file.split('-').next().unwrap_or_default().to_lowercase().replace(['_', '.'], "-");
            projects.entry(project).or_default().push(file);
        }
    }
    let link = |target: String, text: &str| format!("<a href=\"{target}\">{text}</a><br>\n");
    let body = match path.strip_prefix("/simple/").map(|rest| rest.trim_end_matches('/')) {
        Some("") => projects.keys().map(|name| link(format!("/simple/{name}/"), name)).collect(),
        Some(name) if projects.contains_key(name) => {
            let hash = |file: &String| {
                let bytes = std::fs::read(wheelhouse.join(file)).expect("the wheelhouse exists");
                let digest = Sha256::digest(bytes);
                digest.iter().fold("#sha256=".to_owned(), |text, byte| format!("{text}{byte:02x}"))
            };
            let target = |file| format!("/files/{file}{}", if hashes { hash(file) } else { String::new() });
            projects[name].iter().map(|file| link(target(file), file)).collect::<String>()
        }
        _ => return Response::new(404, ""),
    };
    Response::new(200, format!("<!DOCTYPE html><html><body>\n{body}</body></html>\n"))
        .header("Content-Type", "text/html")
}

/// Encodes as in RFC 4648, with padding.
fn base64(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bits = chunk.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    out
}
