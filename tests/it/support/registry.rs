//! A real OCI registry on this machine: Debian's docker-registry (CNCF Distribution).
//!
//! Without it, [`Registry::start`] prints a line and returns `None`; with `PODSTRAP_TEST_REQUIRE_REGISTRY` it fails.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::http::{Localhost, Request, Response, Server, localhost};

/// A user of the registry with a login.
pub(crate) const LOGIN: (&str, &str) = ("ci", "reg-s3cret-9");
/// The login as bcrypt, the only hash that the registry reads.
const HTPASSWD: &str = "ci:$2b$04$abcdefghijklmnopqrstuuMONsgjg40ke0D8rGZGI9jPWPLhMgzCe\n";

pub(crate) struct Registry {
    child: Child,
    dir: PathBuf,
    port: u16,
    /// The PEM of its CA, if it speaks TLS.
    pub(crate) ca: Option<String>,
}

impl Registry {
    /// Without TLS and login.
    pub(crate) fn start(dir: &Path) -> Option<Self> {
        Self::with(dir, "", None)
    }

    /// With TLS, for `localhost`, and with [`LOGIN`].
    pub(crate) fn start_private(dir: &Path) -> Option<Self> {
        let Localhost { leaf, key, ca } = localhost();
        fs::create_dir_all(dir).expect("the sandbox is writable");
        let [certificate, private, users] = ["cert.pem", "key.pem", "users"].map(|name| dir.join(name));
        fs::write(&certificate, leaf.pem()).expect("the sandbox is writable");
        fs::write(&private, key.serialize_pem()).expect("the sandbox is writable");
        fs::write(&users, HTPASSWD).expect("the sandbox is writable");
        let [certificate, private, users] = [certificate, private, users].map(|path| path.display().to_string());
        let more = format!(
            "  tls: {{certificate: {certificate}, key: {private}}}\nauth:\n  htpasswd: {{realm: test, path: {users}}}\n"
        );
        Self::with(dir, &more, Some(ca))
    }

    fn with(dir: &Path, more: &str, ca: Option<String>) -> Option<Self> {
        fs::create_dir_all(dir).expect("the sandbox is writable");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp:\n  addr: 127.0.0.1:PORT\n{more}",
            dir.join("data").display()
        );
        fs::write(dir.join("config"), text).expect("the sandbox is writable");
        let (child, port) = run(dir, 0)?;
        Some(Self { child, dir: dir.to_owned(), port, ca })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
    /// `localhost:PORT`
    pub(crate) fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }
    pub(crate) fn store(&self) -> String {
        format!("oci://{}/team/envs", self.host())
    }
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
    /// Starts it again at the same port.
    pub(crate) fn restart(&mut self) {
        self.kill();
        (self.child, _) = run(&self.dir, self.port).expect("it was there before");
    }
    /// The stored blobs and manifests, the largest first.
    pub(crate) fn blobs(&self) -> Vec<PathBuf> {
        let all = podstrap::walk::walk(&self.dir.join("data/docker/registry/v2/blobs"));
        let mut found: Vec<_> = all.filter_map(Result::ok).map(|entry| entry.path).collect();
        found.retain(|path| path.ends_with("data") && path.is_file());
        found.sort_by_key(|path| std::cmp::Reverse(path.metadata().expect("it is there").len()));
        found
    }
    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.kill();
        // Nothing is there before the first upload.
        let _ = fs::remove_dir_all(self.dir.join("data"));
        self.restart();
    }
}

/// Starts it, and waits until it accepts connections. Port 0 is any free port.
fn run(dir: &Path, port: u16) -> Option<(Child, u16)> {
    let config = fs::read_to_string(dir.join("config")).expect("it was written");
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let port = if port == 0 {
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr()).expect("a free port").port()
        } else {
            port
        };
        let file = dir.join("config.yml");
        fs::write(&file, config.replace("PORT", &port.to_string())).expect("the sandbox is writable");
        let log = fs::File::options().create(true).append(true).open(dir.join("log")).expect("the sandbox is writable");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let Ok(mut child) = command.spawn() else {
            assert!(std::env::var_os("PODSTRAP_TEST_REQUIRE_REGISTRY").is_none(), "no docker-registry");
            eprintln!("SKIPPED: no docker-registry (Debian: docker-registry)");
            return None;
        };
        while child.try_wait().expect("its own child").is_none() {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Some((child, port));
            }
            assert!(Instant::now() < until, "docker-registry does not start: {}", log_of(dir));
            std::thread::sleep(Duration::from_millis(10));
        }
        // Somebody else took the port.
        assert!(Instant::now() < until, "docker-registry ends: {}", log_of(dir));
    }
}

fn log_of(dir: &Path) -> String {
    let log = fs::File::open(dir.join("log")).map(BufReader::new).expect("it was made");
    log.lines().map_while(Result::ok).collect::<Vec<_>>().join("\n")
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The requests that a [`Front`] saw.
pub(crate) type Seen = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// A server in front of a registry without login, which answers some requests itself, or changes answers.
pub(crate) struct Front {
    pub(crate) server: Server,
    /// Method and path, and the login.
    pub(crate) seen: Seen,
}

impl Front {
    /// `answers` gets each request. Without an answer, the registry answers, and `changes` may change that.
    pub(crate) fn start(
        registry: &Registry,
        answers: impl Fn(&Request) -> Option<Response> + Send + Sync + 'static,
        changes: impl Fn(&Request, Response) -> Response + Send + Sync + 'static,
    ) -> Self {
        let (seen, port) = (Seen::default(), registry.port());
        let asked = Arc::clone(&seen);
        let server = Server::start(move |request| {
            let line = format!("{} {}", request.method, request.path());
            asked.lock().expect("no panic").push((line, request.authorization().map(str::to_owned)));
            answers(&request).unwrap_or_else(|| changes(&request, super::http::forward(&request, port)))
        });
        Self { server, seen }
    }

    /// The same, whose every answer is this one.
    pub(crate) fn always(registry: &Registry, answer: Response) -> Self {
        Self::start(registry, move |_| Some(answer.clone()), |_, answer| answer)
    }

    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.server.port())
    }
    pub(crate) fn store(&self) -> String {
        format!("oci://{}/team/envs", self.host())
    }
    pub(crate) fn requests(&self) -> Vec<(String, Option<String>)> {
        self.seen.lock().expect("no panic").clone()
    }
}
