//! `podstrap sidecar`: keeps the wanted configuration in Unit for as long as the Pod lives.
//!
//! Once a second the files are looked at and the control socket's own file (stat(2), which says that
//! Unit was started anew), every few seconds the configuration that Unit has. What differs is applied
//! again, and why is logged. A configuration that Unit refuses is logged once, and the last one that it
//! took is kept instead, also across Unit's restarts.

use std::fs;
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
use crate::plan::Control;
use crate::retry::Deadline;

/// Between two looks at files.
const TICK: Duration = Duration::from_secs(1);
/// Between two looks at what Unit has: an exchange of a millisecond.
const LOOK: Duration = Duration::from_secs(3);
/// Between two looks at a socket that nobody answers, and the time after which the files have their turn.
const ABSENT: Duration = Duration::from_millis(100);
const TURN: Duration = Duration::from_secs(2);
/// A refused configuration is tried again after this time: its reason may have been elsewhere (a port, a
/// volume).
const AGAIN: Duration = Duration::from_mins(1);

/// The file and the inode of a listening socket, and when it was made: another Unit, another socket.
type SocketFile = (PathBuf, u64, i64, i64);

/// One sidecar's memory.
#[derive(Debug)]
pub struct Sidecar {
    client: Client,
    from: PathBuf,
    control: Option<Control>,
    probe: Option<Url>,
    timeout: Duration,
    /// What the files say, and when that was refused.
    newest: Option<Setup>,
    refused: Option<Instant>,
    /// What Unit took last.
    good: Option<Setup>,
    stamp: Vec<(PathBuf, u64, i64, i64, u64)>,
    socket: Option<SocketFile>,
    looked: Option<Instant>,
    /// What was last said to be in the way, and of the newest setup, so that it is said once.
    said: Option<String>,
    complaint: Option<String>,
}

impl Sidecar {
    pub fn new(from: &Path, control: Option<Control>, probe: Option<Url>, timeout: Duration) -> Self {
        Self {
            // Nothing needs to be watched after an apply: everything is, always.
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
        }
    }

    /// Goes on until it is dropped.
    ///
    /// # Errors
    /// Usage: the configuration cannot be read at the start. What goes wrong later is logged.
    pub async fn keep(mut self) -> Result<()> {
        self.stamp = setup::stamp(&self.from);
        let first = Setup::read(&self.from, "/config")?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for path in first.files().filter(|path| is_mounted(&mounts, path)) {
            tracing::warn!(
                "{} is mounted by itself (subPath): a change of its ConfigMap never reaches it; mount the whole volume \
                 to have changes applied",
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

    /// Takes the files anew if one changed.
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
            // Somebody may be amid writing it: the next look may find more.
            Err(error) => self.say(&error.summary(), &error.told()),
        }
    }

    /// Looks whether Unit has what it is to have, and sees to it.
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
                    return;
                }
                Err(error) if error.kind() == Kind::UnitRefused => {
                    self.refused = Some(Instant::now());
                    if self.complaint.replace(error.summary()) != Some(error.summary()) {
                        tracing::error!("{}", error.told());
                    }
                }
                // It went away; the next round will tell.
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

    /// Applies a setup unless Unit has it.
    async fn see_to(&mut self, found: &Answering, setup: &Setup, anew: bool) -> Result<()> {
        let deadline = Deadline::after(self.timeout);
        let wanted = Expected::new(setup);
        let took = self.good.as_ref().is_some_and(|good| good.same(setup));
        // What podstrap cannot read is not sent again and again to a Unit that took it.
        let unread = wanted.value().is_none() && took && !anew;
        if setup.config.is_none() || unread || wanted.is_surely(&found.config) {
            match store::has(found, setup, deadline).await {
                Ok(true) => {
                    self.said = None;
                    return Ok(());
                }
                Ok(false) => {}
                Err(Trouble::Cut(how)) => return Err(Error::new(Kind::UnitUnreachable, "Unit went away").because(how)),
                Err(Trouble::Failed(error)) => return Err(error),
            }
        }
        if took {
            tracing::warn!(
                "{}; applying {} again",
                if anew {
                    "Unit was started anew and has another configuration"
                } else {
                    "something else has changed Unit's configuration"
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

    /// Logs what is in the way, once.
    fn say(&mut self, what: &str, text: &str) {
        if self.said.as_deref() != Some(what) {
            tracing::warn!("{text}");
            self.said = Some(what.to_owned());
        }
    }
}

fn identity(path: &Path) -> Option<SocketFile> {
    let meta = path.metadata().ok()?;
    Some((path.to_owned(), meta.ino(), meta.ctime(), meta.ctime_nsec()))
}

/// Whether a file is a mount point itself: the fifth word of a line, with `\040` for a space
/// (`proc_pid_mountinfo(5)`).
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
