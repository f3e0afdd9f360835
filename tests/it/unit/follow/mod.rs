//! `sidecar --repo`: follows a branch, with and without a Unit.

mod files;
mod serving;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::git::{GitServer, Repo};
use crate::support::index::{IndexServer, uv};
use crate::support::packages::wheel;
use crate::support::sandbox::{Ran, Sandbox};
use crate::support::unit::MS;

/// Longer than anything here takes, even on a busy machine.
const LONG: Duration = Duration::from_secs(90);

/// A repository, its server, and a package index.
struct Remote {
    repo: Repo,
    git: GitServer,
    index: IndexServer,
}

impl Remote {
    /// With these versions of the package `dep` on the index, and a key that signs commits.
    fn new(sandbox: &Sandbox, versions: &[&str]) -> Self {
        let wheels = sandbox.path("wheels");
        for version in versions {
            wheel(&wheels, "dep", version, &[]);
        }
        let repo = Repo::new(&sandbox.path("repos/app.git"));
        let key = sandbox.path("key");
        let made = Command::new("ssh-keygen").args(["-q", "-N", "", "-t", "ed25519", "-f"]).arg(&key).status();
        assert!(made.unwrap().success());
        let public = fs::read_to_string(key.with_extension("pub")).unwrap();
        sandbox.write("allowed", format!("dev@example.org {public}"));
        repo.git(["config", "gpg.format", "ssh"]);
        repo.git(["config", "user.signingkey", key.to_str().unwrap()]);
        Self { git: GitServer::start(&sandbox.path("repos")), index: IndexServer::start(&wheels), repo }
    }

    /// Commits all files with a signature. Returns the commit.
    fn push(&self, message: &str) -> String {
        self.repo.git(["add", "--all"]);
        self.repo.git(["commit", "--quiet", "--allow-empty", "-S", "-m", message]);
        self.repo.rev("HEAD")
    }
}

/// A sidecar that follows the branch main.
struct Sidecar {
    child: Child,
    log: PathBuf,
    port: u16,
}

impl Sidecar {
    fn start(sandbox: &Sandbox, remote: &Remote, flags: &[&str]) -> Self {
        let port = free_port();
        let mut command = sandbox.podstrap();
        command.args(["sidecar", "--repo", &remote.git.url("app.git"), "--ref=main", "--root"]);
        command.arg(sandbox.root()).args(flags).arg("--engine").arg(uv());
        for (flag, default) in [("--period", "200ms"), ("--watch", "1s")] {
            if !flags.iter().any(|given| given.starts_with(flag)) {
                command.args([flag, default]);
            }
        }
        command.args(["--http-bind", &format!("127.0.0.1:{port}")]).env("PIP_INDEX_URL", remote.index.url());
        let log = sandbox.path("sidecar.log");
        let to = fs::File::options().create(true).append(true).open(&log).unwrap();
        Self { child: command.stderr(to).stdin(Stdio::null()).spawn().unwrap(), log, port }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
    /// Waits until the log has this text. Returns the time.
    fn says(&self, what: &str) -> Duration {
        eventually(what, || self.log().contains(what), || self.log())
    }
    fn count(&self, what: &str) -> usize {
        self.log().matches(what).count()
    }
    fn get(&self, path: &str) -> (u16, String) {
        request(self.port, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).unwrap_or_default()
    }
    /// The value of a counter.
    fn metric(&self, line: &str) -> u32 {
        let (_, text) = self.get("/metrics");
        let found = text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
        found.unwrap_or_default()
    }
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
    /// Ends it as Kubernetes does. Returns the exit code and the time.
    fn end(mut self) -> (Option<i32>, Duration) {
        let started = Instant::now();
        self.signal(Signal::TERM);
        (self.child.wait().unwrap().code(), started.elapsed())
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn order(sandbox: &Sandbox, what: &str, flags: &[&str]) -> Ran {
    let mut command = sandbox.podstrap();
    sandbox.run(command.arg(what).args(flags).arg("--root").arg(sandbox.root()))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Sends a request and reads the whole answer. `None` if the connection is refused or cut.
fn request(port: u16, text: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(text.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

/// Waits until it is. Returns the time.
fn eventually(what: &str, mut is: impl FnMut() -> bool, or: impl Fn() -> String) -> Duration {
    let started = Instant::now();
    while !is() {
        assert!(started.elapsed() < LONG, "it does not come: {what}: {}", or());
        std::thread::sleep(MS(10));
    }
    started.elapsed()
}

fn releases(root: &Path) -> usize {
    fs::read_dir(root.join(".podstrap/releases")).map_or(0, Iterator::count)
}
