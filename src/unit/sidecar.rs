//! `podstrap sidecar`: keeps the wanted configuration in Unit while the Pod runs.
//!
//! Every second it checks its files and the socket file, which changes when Unit restarts (stat(2)).
//! Every few seconds it checks Unit's configuration. It applies any difference again and logs the reason.
//! If Unit refuses a configuration, the sidecar logs it once and keeps the last good configuration, also
//! when Unit restarts.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;
use tokio::time::{Instant, sleep};

use super::canary;
use super::client::Client;
use super::expected::Expected;
use super::probe::{glance, probe};
use super::setup::{self, Setup, Stamp};
use super::store;
use super::wait::{self, Answering};
use crate::config::dialect;
use crate::config::localize::{Mapping, remap};
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::plan::{self, Control};
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

/// Reads the setup that a sidecar keeps in Unit.
#[derive(Debug, Clone)]
pub struct Reader {
    /// A file or a directory.
    pub from: PathBuf,
    /// The paths in the configuration that name a release, and that release.
    pub release: Option<Mapping>,
}

impl Reader {
    /// # Errors
    /// Usage: the configuration is unreadable, or with a release no JSON.
    pub fn read(&self) -> Result<Setup> {
        let mut setup = Setup::read(&self.from, "/config")?;
        if let (Some(mapping), Some(config)) = (&self.release, &mut setup.config) {
            let mut value = dialect::to_value(&config.bytes).map_err(|why| {
                Error::usage(format!("cannot read {}", config.path.display()))
                    .because(why)
                    .hint("run `podstrap check` on it")
            })?;
            let before = value.clone();
            remap(&mut value, mapping);
            if value == before {
                tracing::warn!(
                    "{} names no path of the release, so Unit will not run it: give the paths as the app's container sees them",
                    config.path.display()
                );
            }
            setup.config = Some(config.clone().derived(value.to_string().into_bytes()));
        }
        Ok(setup)
    }
}

/// What a sidecar has seen of Unit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// Whether Unit answered last time.
    pub answers: bool,
    /// How often Unit had lost or changed the configuration.
    pub repairs: u64,
}

/// The state of a sidecar.
pub struct Sidecar {
    client: Client,
    reader: Reader,
    control: Option<Control>,
    probe: Option<Url>,
    timeout: Duration,
    /// The setup in the files.
    newest: Option<Setup>,
    /// When Unit last refused it.
    refused: Option<Instant>,
    /// The last setup that Unit accepted.
    good: Option<Setup>,
    stamp: Stamp,
    socket: Option<SocketFile>,
    looked: Option<Instant>,
    /// The last logged obstacle, to log it only once.
    said: Option<String>,
    /// The last logged refusal of the newest setup.
    complaint: Option<String>,
    seen: Seen,
    told: Told,
}

/// Publishes the current obstacle, for people who ask why Unit has no configuration; empty if there is none.
pub type Told = Box<dyn Fn(&str)>;

impl Sidecar {
    pub fn new(plan: &plan::Sidecar, told: Told) -> Self {
        Self {
            // The sidecar watches anyway, so an apply need not.
            client: Client { settle: Duration::ZERO, ..Client::default() },
            reader: Reader { from: plan.config.clone(), release: None },
            control: plan.control.clone(),
            probe: plan.probe.clone(),
            timeout: plan.timeout,
            newest: None,
            refused: None,
            good: None,
            stamp: Stamp::new(),
            socket: None,
            looked: None,
            said: None,
            complaint: None,
            seen: Seen::default(),
            told,
        }
    }

    /// Runs until it is dropped.
    ///
    /// # Errors
    /// Usage: the configuration is unreadable at the start. Later failures are only logged.
    pub async fn keep(mut self) -> Result<()> {
        self.stamp = setup::stamp(&self.reader.from);
        let first = self.reader.read()?;
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
            let pause = self.tick().await;
            sleep(pause).await;
        }
    }

    /// Checks the files and Unit once. Returns the time until the next check.
    pub async fn tick(&mut self) -> Duration {
        self.read();
        let socket = self.socket.as_ref().and_then(|(path, ..)| identity(path));
        if socket != self.socket || self.looked.is_none_or(|at| at.elapsed() >= LOOK) {
            self.round().await;
        }
        if self.looked.is_none() { ABSENT } else { TICK }
    }

    /// Keeps another setup in Unit from now on, whatever Unit has. If the configuration is unreadable, Unit keeps what it has
    /// until that changes.
    ///
    /// # Errors
    /// Usage: the configuration is unreadable.
    pub fn serve(&mut self, reader: Reader) -> Result<()> {
        let stamp = setup::stamp(&reader.from);
        let read = reader.read();
        self.looked = None;
        // Without a stamp, the next check reads it again.
        let stamp = if read.is_ok() { stamp } else { Stamp::new() };
        self.adopt(reader, read.as_ref().ok().cloned(), stamp);
        read.map(drop)
    }

    fn adopt(&mut self, reader: Reader, setup: Option<Setup>, stamp: Stamp) {
        (self.reader, self.newest, self.stamp) = (reader, setup, stamp);
        (self.refused, self.complaint) = (None, None);
    }

    /// Applies another setup if it works, and keeps it from then on. If it fails, Unit has the former one afterwards.
    ///
    /// With `file`, a file of the release, Unit tries the setup first. An error has the name of its step.
    ///
    /// # Errors
    /// As for [`apply`](super::apply::run), with the step that failed. Usage: the configuration is unreadable.
    pub async fn replace(&mut self, reader: Reader, file: Option<&Path>) -> Result<(), (&'static str, Error)> {
        let stamp = setup::stamp(&reader.from);
        let setup = reader.read().map_err(|error| ("apply", error))?;
        let deadline = Deadline::after(self.timeout);
        let controls = self.client.controls(self.control.as_ref());
        let found = wait::wait(&controls, &self.client.proc, deadline).await.map_err(|error| ("apply", error))?;
        // The next check repairs what cannot be put back.
        self.looked = None;
        if let Some(file) = file {
            let tried = canary::try_out(&self.client, &found, &setup, self.probe.as_ref(), file, deadline).await;
            tried.map_err(|error| ("canary", error))?;
        }
        let deadline = Deadline::after(self.timeout);
        if let Err(error) = self.go_over(&found.control, &setup, deadline).await {
            canary::put_back(&found, Deadline::after(self.timeout)).await;
            return Err(error);
        }
        self.good = Some(setup.clone());
        self.adopt(reader, Some(setup), stamp);
        Ok(())
    }

    async fn go_over(&self, control: &Control, setup: &Setup, deadline: Deadline) -> Result<(), (&'static str, Error)> {
        let applied = self.client.apply(Some(control), setup, deadline).await.map_err(|error| ("apply", error))?;
        if let Some(url) = &self.probe {
            probe(url, deadline).await.map_err(|error| ("probe", applied.explain(error)))?;
        }
        Ok(())
    }

    /// Whether the page of --probe answers well now.
    ///
    /// # Errors
    /// `Probe`: no answer within the time, or one with status 500 or above.
    pub async fn answers(&self, within: Duration) -> Result<()> {
        match &self.probe {
            Some(url) => glance(url, within).await,
            None => Ok(()),
        }
    }

    /// The strings in Unit's configuration, without those of a trial; `None` if Unit does not answer in this time.
    pub async fn configured(&self, within: Duration) -> Option<Vec<String>> {
        let controls = self.client.controls(self.control.as_ref());
        let found = wait::wait_slowly(&controls, &self.client.proc, ABSENT, Deadline::after(within)).await.ok()?;
        Some(canary::serving(&dialect::to_value(&found.config).ok()?))
    }

    /// Changes with the files of the configuration.
    pub fn stamp(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        setup::stamp(&self.reader.from).hash(&mut hasher);
        hasher.finish()
    }

    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// Reads the files again if one changed.
    fn read(&mut self) {
        let stamp = setup::stamp(&self.reader.from);
        if stamp == self.stamp {
            return;
        }
        match self.reader.read() {
            Ok(read) => {
                if self.newest.as_ref().is_none_or(|newest| !newest.same(&read)) {
                    tracing::info!("{} has changed", self.reader.from.display());
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
                self.seen.answers = false;
                return self.say(&obstacle, &format!("waiting for Unit: {obstacle}"));
            }
        };
        self.looked = Some(Instant::now());
        self.seen.answers = true;
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
                Err(trouble) => return Err(trouble.error()),
            }
        }
        if took {
            self.seen.repairs += 1;
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
