//! `podstrap sidecar`: keeps the wanted configuration in Unit while the Pod runs.
//!
//! Every second it checks its files and the socket file, which changes when Unit restarts (stat(2)).
//! Every few seconds it checks Unit's configuration. It applies any difference again and logs the reason.
//! If Unit refuses a configuration, the sidecar logs it once and keeps the last good configuration, also
//! when Unit restarts.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;
use tokio::time::{Instant, sleep};

use super::client::Client;
use super::expected::Expected;
use super::probe::probe;
use super::setup::{self, Setup};
use super::store;
use super::trouble::Trouble;
use super::wait::{self, Answering};
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::plan::Control;
use crate::retry::Deadline;

/// Between two checks of the files.
const TICK: Duration = Duration::from_secs(1);
/// Between two checks of Unit's configuration, which take a millisecond.
const LOOK: Duration = Duration::from_secs(3);
/// Between two checks of a socket without an answer, and the time after which it checks the files again.
const ABSENT: Duration = Duration::from_millis(100);
const TURN: Duration = Duration::from_secs(2);
/// Time until the retry of a refused configuration: the cause may be outside it (a port, a volume).
const AGAIN: Duration = Duration::from_mins(1);

/// The path, inode and ctime (seconds, nanoseconds) of a socket. A restarted Unit has another.
type SocketFile = (PathBuf, u64, i64, i64);

/// The state of a sidecar.
pub struct Sidecar {
    client: Client,
    from: PathBuf,
    control: Option<Control>,
    probe: Option<Url>,
    timeout: Duration,
    /// The setup in the files.
    newest: Option<Setup>,
    /// When Unit last refused it.
    refused: Option<Instant>,
    /// The last setup that Unit accepted.
    good: Option<Setup>,
    stamp: Vec<(PathBuf, u64, i64, i64, u64)>,
    socket: Option<SocketFile>,
    looked: Option<Instant>,
    /// The last logged obstacle, to log it only once.
    said: Option<String>,
    /// The last logged refusal of the newest setup.
    complaint: Option<String>,
    told: Told,
}

/// Publishes the current obstacle, for people who ask why Unit has no configuration; empty if there is none.
pub type Told = Box<dyn Fn(&str)>;

impl Sidecar {
    pub fn new(from: &Path, control: Option<Control>, probe: Option<Url>, timeout: Duration, told: Told) -> Self {
        Self {
            // The sidecar watches anyway, so an apply need not.
            client: Client { settle: Duration::ZERO, ..Client::default() },
            from: from.to_owned(),
            control,
            probe,
            timeout,
            newest: None,
            refused: None,
            good: None,
            stamp: Vec::new(),
            socket: None,
            looked: None,
            said: None,
            complaint: None,
            told,
        }
    }

    /// Runs until it is dropped.
    ///
    /// # Errors
    /// Usage: the configuration is unreadable at the start. Later failures are only logged.
    pub async fn keep(mut self) -> Result<()> {
        self.stamp = setup::stamp(&self.from);
        let first = Setup::read(&self.from, "/config")?;
        let mounts = files::read_proc(Path::new("/proc/self/mountinfo")).unwrap_or_default();
        let mounts = String::from_utf8_lossy(&mounts);
        for path in first.files().filter(|path| is_mounted(&mounts, path)) {
            tracing::warn!(
                "{} is a single mounted file (subPath), which Kubernetes never updates; mount the whole volume \
                 to apply changes",
                path.display()
            );
        }
        self.newest = Some(first);
        loop {
            self.read();
            let socket = self.socket.as_ref().and_then(|(path, ..)| identity(path));
            if socket != self.socket || self.looked.is_none_or(|at| at.elapsed() >= LOOK) {
                self.round().await;
            }
            sleep(if self.looked.is_none() { ABSENT } else { TICK }).await;
        }
    }

    /// Reads the files again if one changed.
    fn read(&mut self) {
        let stamp = setup::stamp(&self.from);
        if stamp == self.stamp {
            return;
        }
        match Setup::read(&self.from, "/config") {
            Ok(read) => {
                if self.newest.as_ref().is_none_or(|newest| !newest.same(&read)) {
                    tracing::info!("{} has changed", self.from.display());
                    self.newest = Some(read);
                    self.refused = None;
                    self.complaint = None;
                    self.looked = None;
                }
                self.stamp = stamp;
            }
            // The file may be incomplete: the next check reads it again.
            Err(error) => self.say(&error.summary(), &error.told()),
        }
    }

    /// Checks Unit once, and applies the wanted setup or, if Unit refuses it, the last good one.
    async fn round(&mut self) {
        let controls = self.client.controls(self.control.as_ref());
        let found = match wait::wait_slowly(&controls, &self.client.proc, ABSENT, Deadline::after(TURN)).await {
            Ok(found) => found,
            Err(obstacle) => {
                self.looked = None;
                return self.say(&obstacle, &format!("waiting for Unit: {obstacle}"));
            }
        };
        self.looked = Some(Instant::now());
        let socket = match &found.control {
            Control::Unix(path) => identity(path),
            Control::Http(_) => None,
        };
        let anew = socket != self.socket;
        self.socket = socket;

        let Some(newest) = self.newest.clone() else { return };
        if anew || self.refused.is_none_or(|at| at.elapsed() >= AGAIN) {
            match self.see_to(&found, &newest, anew).await {
                Ok(()) => {
                    self.good = Some(newest);
                    self.refused = None;
                    (self.told)("");
                    return;
                }
                Err(error) if error.kind() == Kind::UnitRefused => {
                    self.refused = Some(Instant::now());
                    if self.complaint.replace(error.summary()) != Some(error.summary()) {
                        tracing::error!("{}", error.told());
                        (self.told)(&format!("podstrap: {error}"));
                    }
                }
                // Unit is gone. The next round waits for it.
                Err(error) => {
                    self.looked = None;
                    return self.say(error.what(), &error.told());
                }
            }
        }
        if let Some(good) = self.good.clone()
            && !good.same(&newest)
            && let Err(error) = self.see_to(&found, &good, anew).await
        {
            self.say(&error.summary(), &error.told());
        }
    }

    /// Applies a setup if Unit does not have it.
    async fn see_to(&mut self, found: &Answering, setup: &Setup, anew: bool) -> Result<()> {
        let deadline = Deadline::after(self.timeout);
        let wanted = Expected::new(setup);
        let took = self.good.as_ref().is_some_and(|good| good.same(setup));
        // Do not resend a configuration that podstrap cannot parse to a Unit that accepted it.
        let unread = wanted.value().is_none() && took && !anew;
        if setup.config.is_none() || unread || wanted.is_surely(&found.config) {
            match store::has(found, setup, deadline).await {
                Ok(true) => {
                    self.said = None;
                    return Ok(());
                }
                Ok(false) => {}
                Err(Trouble::Cut(how)) => {
                    return Err(Error::new(Kind::UnitUnreachable, "lost the connection to Unit").because(how));
                }
                Err(Trouble::Failed(error)) => return Err(error),
            }
        }
        if took {
            tracing::warn!(
                "{}; applying {} again",
                if anew {
                    "Unit restarted and has another configuration"
                } else {
                    "another program changed Unit's configuration"
                },
                setup.shown()
            );
        }
        let applied = self.client.apply(Some(&found.control), setup, deadline).await?;
        self.said = None;
        if let Some(url) = &self.probe
            && let Err(error) = probe(url, Deadline::after(self.timeout)).await
        {
            tracing::warn!("{}", applied.explain(error).told());
        }
        Ok(())
    }

    /// Logs an obstacle once.
    fn say(&mut self, what: &str, text: &str) {
        if self.said.as_deref() != Some(what) {
            tracing::warn!("{text}");
            (self.told)(text);
            self.said = Some(what.to_owned());
        }
    }
}

fn identity(path: &Path) -> Option<SocketFile> {
    let meta = path.metadata().ok()?;
    Some((path.to_owned(), meta.ino(), meta.ctime(), meta.ctime_nsec()))
}

/// Whether the file itself is a mount point.
///
/// The mount point is the fifth field of a line, with `\040` for a space (`proc_pid_mountinfo(5)`).
fn is_mounted(mountinfo: &str, path: &Path) -> bool {
    let escaped = path.to_string_lossy().replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011");
    mountinfo.lines().any(|line| line.split(' ').nth(4) == Some(&escaped))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_a_mount_is_known() {
        let mounts =
            "36 35 98:0 /mnt1 /cfg/unit.json rw,noatime - ext3 /dev/root rw\n37 35 0:1 / /my\\040cfg/a rw - x y z\n";
        assert!(is_mounted(mounts, Path::new("/cfg/unit.json")) && is_mounted(mounts, Path::new("/my cfg/a")));
        assert!(!is_mounted(mounts, Path::new("/cfg")) && !is_mounted("", Path::new("/cfg/unit.json")));
    }
}
