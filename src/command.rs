//! Starts every child process of podstrap.
//!
//! A child gets no standard input, its own process group, and an environment without the variables of
//! `CHANGES_MEANING`. When its future is dropped or the deadline passes, podstrap kills and reaps the
//! whole group; `reap` ends the processes that left the group. podstrap logs the child's stderr line by
//! line at debug level and keeps its first and last lines for the error.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::confine::Confinement;
use crate::files;
use crate::reap::{self, Owned};
use crate::redact;
use crate::retry::Deadline;

/// Variables that children do not inherit, because they would change what an interpreter does. Settings that
/// users rely on (proxies, `SSL_CERT_FILE`, compiler flags, …) pass. A caller that starts an installer removes more.
const CHANGES_MEANING: &[&str] = &[
    // Select another Python.
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "__PYVENV_LAUNCHER__",
];

/// Prefixes of more such variables: Python's (`PYTHONPATH`, …), and podstrap's, which may contain
/// credentials that no child needs.
const CHANGES_MEANING_PREFIXES: &[&str] = &["PYTHON", "PODSTRAP_"];

/// Bytes to keep of one line, and of a child's stdout: a package's build may print gigabytes, and the
/// init container has little memory.
const LINE: u64 = 16 << 10;
const PRINTED: u64 = 4 << 20;

/// Number of first and last stderr lines to keep. uv names the package in its first lines, before hundreds
/// of lines from a compiler.
const FIRST_LINES: usize = 40;
const LAST_LINES: usize = 200;

/// Checks whether a killed child has ended, and the pause between them. It takes a millisecond or two
/// unless the machine is busy.
const KILLED_LOOKS: u32 = 100;
const KILLED_PAUSE: Duration = Duration::from_millis(1);

/// A child to start: program, arguments and changes to the environment.
#[derive(Debug)]
pub struct Command {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    inherited: Option<Vec<(OsString, OsString)>>,
    cwd: Option<PathBuf>,
    stdin: Option<Vec<u8>>,
    user: Option<(u32, u32)>,
    confinement: Option<Arc<Confinement>>,
}

/// The result of a finished child.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    /// Its first and last lines, cleaned for printing.
    pub stderr: String,
}

/// Why a child gave no [`Output`].
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("cannot start {}", program.display())]
    Start { program: PathBuf, source: std::io::Error },
    #[error("{} was killed at the deadline, after {:.1} s ({})", program.display(), deadline.elapsed().as_secs_f64(), deadline.shown())]
    Deadline { program: PathBuf, deadline: Deadline, stderr: String },
    #[error("cannot read the output of {}", program.display())]
    Read { program: PathBuf, source: std::io::Error },
}

impl Failure {
    /// Whether the system failed, and not the program: another program would fail too.
    pub(crate) fn is_of_system(&self) -> bool {
        match self {
            Self::Start { source, .. } => !files::is_of_file(source),
            Self::Read { .. } => true,
            Self::Deadline { .. } => false,
        }
    }
}

impl Command {
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            inherited: None,
            cwd: None,
            stdin: None,
            user: None,
            confinement: None,
        }
    }
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }
    /// Sets variables, and overrides inherited ones.
    #[must_use]
    pub fn envs<N: AsRef<OsStr>, V: AsRef<OsStr>>(self, vars: impl IntoIterator<Item = (N, V)>) -> Self {
        vars.into_iter().fold(self, |command, (name, value)| command.env(name, value))
    }
    /// Sets a variable, and overrides an inherited one.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }
    /// Replaces the environment that the child inherits. `CHANGES_MEANING` still applies.
    #[must_use]
    pub fn inherit(mut self, vars: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        self.inherited = Some(vars.into_iter().collect());
        self
    }
    #[must_use]
    pub fn cwd(mut self, dir: impl AsRef<Path>) -> Self {
        self.cwd = Some(dir.as_ref().to_owned());
        self
    }
    /// Runs the child as this user and group, without other groups. Needs root, unless they are its own.
    #[must_use]
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.user = Some((uid, gid));
        self
    }
    /// Limits the files that the child may use.
    #[must_use]
    pub fn confine(mut self, confinement: Option<Arc<Confinement>>) -> Self {
        self.confinement = confinement;
        self
    }
    /// Sets the bytes of the standard input.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Runs the child to its end, whatever its exit status.
    ///
    /// # Errors
    /// The child does not start, its output cannot be read, or podstrap killed it at the deadline.
    pub async fn run(self, deadline: Deadline) -> Result<Output, Failure> {
        let program = self.program.clone();
        // Leave out podstrap's own scripts.
        let args: Vec<_> = self.args.iter().filter(|arg| !arg.as_encoded_bytes().contains(&b'\n')).collect();
        tracing::debug!(program = %program.display(), args = ?args, "start");
        let input = self.stdin.clone();
        let mut child = self.spawn(Stdio::piped(), Stdio::piped())?;

        let stdout = child.process.stdout.take().expect("stdout is piped");
        let stderr = child.process.stderr.take().expect("stderr is piped");
        let stdin = child.process.stdin.take();
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut said = Ends::default();
        let mut printed = Vec::new();
        let finished = async {
            let feed = async {
                if let (Some(mut pipe), Some(bytes)) = (stdin, input) {
                    // If the child does not read all of it, its exit status tells.
                    let _ = pipe.write_all(&bytes).await;
                }
                Ok(())
            };
            // Processes that it leaves behind hold the pipes open until wait() ends them too.
            let (status, ..) =
                tokio::try_join!(child.wait(), keep(stdout, &mut printed), said.follow(stderr, &name), feed)?;
            Ok(status)
        };
        match tokio::time::timeout_at(deadline.instant(), finished).await {
            Ok(Ok(status)) => Ok(Output { status, stdout: printed, stderr: said.text() }),
            Ok(Err(source)) => Err(Failure::Read { program, source }),
            Err(_) => Err(Failure::Deadline { program, deadline, stderr: said.text() }),
        }
    }

    /// Starts a child that shares podstrap's stdout and stderr. Dropping the handle kills it.
    ///
    /// # Errors
    /// The child does not start.
    pub fn serve(self) -> Result<Running, Failure> {
        self.spawn(Stdio::inherit(), Stdio::inherit())
    }

    fn spawn(self, stdout: Stdio, stderr: Stdio) -> Result<Running, Failure> {
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(&self.args)
            .stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(stdout)
            .stderr(stderr)
            .process_group(0);
        let inherited = self.inherited.unwrap_or_else(|| std::env::vars_os().collect());
        command.env_clear().envs(inherited.into_iter().filter(|(name, _)| !changes_meaning(name)));
        command.envs(self.env);
        if let Some(dir) = &self.cwd {
            command.current_dir(dir);
        }
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        let started = reap::start(|| {
            let process = match &self.confinement {
                Some(confinement) => confinement.start(|| command.spawn())?,
                None => command.spawn()?,
            };
            let pid = process.id().and_then(|id| Pid::from_raw(id.cast_signed()));
            Ok((process, pid))
        });
        let (process, owned) = started.map_err(|source| Failure::Start { program: self.program.clone(), source })?;
        Ok(Running { process, owned })
    }
}

/// A started child. Dropping it kills its process group.
#[derive(Debug)]
pub struct Running {
    process: tokio::process::Child,
    owned: Owned,
}

impl Running {
    /// Waits until the child ends by itself.
    ///
    /// # Errors
    /// The wait itself failed.
    pub async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        let ended = self.process.wait().await;
        if ended.is_ok() {
            self.owned.ended();
        }
        ended
    }

    /// Sends SIGTERM and waits at most `grace` for the child.
    pub async fn stop(&mut self, grace: Duration) {
        if let Some(pid) = self.pid() {
            let _ = kill_process(pid, Signal::TERM);
            let _ = tokio::time::timeout(grace, self.wait()).await;
        }
    }

    /// The id of the child. `None` after the child is reaped, when another process may get the id.
    fn pid(&self) -> Option<Pid> {
        self.process.id().and_then(|id| Pid::from_raw(id.cast_signed()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The child leads its group.
        if let Some(pid) = self.pid() {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        // Return only after the child can no longer write. Give up on a child that waits for its disk.
        for _ in 0..KILLED_LOOKS {
            match self.process.try_wait() {
                Ok(None) => std::thread::sleep(KILLED_PAUSE),
                Ok(Some(_)) | Err(_) => return self.owned.ended(),
            }
        }
    }
}

/// Whether a child can use this home: an arbitrary user ID has none, and HOME is `/`, missing, or not writable.
pub fn is_home(home: &Path) -> bool {
    home.is_absolute() && home != Path::new("/") && rustix::fs::access(home, rustix::fs::Access::WRITE_OK).is_ok()
}

fn changes_meaning(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    CHANGES_MEANING.contains(&name) || CHANGES_MEANING_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Reads a stream to its end and keeps its beginning.
async fn keep(mut stream: impl tokio::io::AsyncRead + Unpin, kept: &mut Vec<u8>) -> std::io::Result<()> {
    (&mut stream).take(PRINTED).read_to_end(kept).await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(())
}

/// The first and last lines of a stream. Logs every line.
#[derive(Default)]
struct Ends {
    first: Vec<String>,
    last: VecDeque<String>,
}

impl Ends {
    async fn follow(&mut self, stream: impl tokio::io::AsyncRead + Unpin, name: &str) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream);
        let mut line = Vec::new();
        // Treat a longer line as several.
        while (&mut lines).take(LINE).read_until(b'\n', &mut line).await? > 0 {
            let text = redact::clean(&String::from_utf8_lossy(&line));
            let text = text.trim_end();
            if !text.is_empty() {
                tracing::debug!("{name}: {text}");
                if self.first.len() < FIRST_LINES {
                    self.first.push(text.to_owned());
                } else {
                    if self.last.len() == LAST_LINES {
                        self.last.pop_front();
                    }
                    self.last.push_back(text.to_owned());
                }
            }
            line.clear();
        }
        Ok(())
    }

    fn text(&self) -> String {
        self.first.iter().chain(&self.last).map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn run(command: Command, limit: Duration) -> Result<Output, Failure> {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(command.run(Deadline::after(limit)))
    }

    #[test]
    fn output_status_and_stderr_come_back() {
        let script = "cat; echo 'https://u:pw@h/x' >&2; exit 3";
        let output = run(Command::new("/bin/sh").args(["-c", script]).stdin(*b"in"), Duration::from_secs(10)).unwrap();
        assert_eq!(
            (output.status.code(), output.stdout.as_slice(), output.stderr.as_str()),
            (Some(3), &b"in"[..], "https://***@h/x")
        );
    }

    #[test]
    fn of_much_that_a_child_says_both_ends_are_kept() {
        let script = "i=1; while [ $i -le 1000 ]; do echo $i >&2; i=$((i+1)); done";
        let output = run(Command::new("/bin/sh").args(["-c", script]), Duration::from_secs(10)).unwrap();
        let kept: Vec<usize> = output.stderr.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(kept, (1..=FIRST_LINES).chain(1001 - LAST_LINES..=1000).collect::<Vec<_>>());
    }

    #[test]
    fn the_deadline_ends_grandchildren_in_the_group_too() {
        let started = Instant::now();
        let failure =
            run(Command::new("/bin/sh").args(["-c", "sleep 30 & echo $! >&2; wait"]), Duration::from_millis(300))
                .unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(5));
        let Failure::Deadline { stderr, .. } = failure else { panic!("{failure:?}") };
        let gone = Instant::now() + Duration::from_secs(5);
        let stat = format!("/proc/{}/stat", stderr.trim());
        // A killed process may stay a zombie until its new parent reaps it.
        let alive = || std::fs::read_to_string(&stat).is_ok_and(|s| !s.contains(") Z"));
        while alive() {
            assert!(Instant::now() < gone, "grandchild {stderr} is still alive");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
