//! The Unit that failed, and its surroundings.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::files;
use crate::unit::channel::Peer;

/// Facts about the Unit that failed, and the paths to check.
#[derive(Debug)]
pub struct Scene {
    pub(super) proc: PathBuf,
    /// The directory of `passwd` and `group`.
    pub(super) etc: PathBuf,
    /// None over TCP.
    pub(super) peer: Option<Peer>,
    /// Whether podstrap shares its network.
    pub(super) network: bool,
    /// Whether podstrap shares its files.
    pub(super) files: bool,
    /// The body of `GET /status`.
    pub(super) status: Value,
    /// Its current configuration.
    pub(super) before: Value,
}

impl Scene {
    pub fn new(proc: &Path, peer: Option<Peer>, status: Value, before: Value) -> Self {
        // The kernel reports a pid only within a PID namespace. For another container it is 0; the network
        // is then the Pod's.
        let pid = peer.and_then(|peer| peer.pid).filter(|pid| *pid > 0);
        let shared = |kind: &str| {
            let link = |pid: &str| proc.join(pid).join("ns").join(kind).read_link().ok();
            pid.is_some_and(|pid| link("self").is_some_and(|ours| Some(ours) == link(&pid.to_string())))
        };
        Self {
            proc: proc.to_owned(),
            etc: "/etc".into(),
            peer,
            network: peer.is_some() && (pid.is_none() || shared("net")),
            files: shared("mnt"),
            status,
            before,
        }
    }

    /// The uid that Unit runs as; None over TCP.
    pub(super) fn uid(&self) -> Option<u32> {
        self.peer.map(|peer| peer.uid)
    }

    /// The value of an option of the running unitd. Its process title contains its command line.
    pub(super) fn option(&self, name: &str) -> Option<String> {
        let pid = self.peer?.pid?.to_string();
        let title = files::read_proc(&self.proc.join(pid).join("cmdline")).ok()?;
        let title = String::from_utf8_lossy(&title).replace(['\0', ']'], " ");
        let mut words = title.split_whitespace().skip_while(|word| *word != name);
        words.nth(1).map(str::to_owned)
    }
}

/// The uid that podstrap runs as.
pub(super) fn ours() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{dir, scene};
    use std::fs;

    #[test]
    fn an_option_is_read_from_the_title() {
        let dir = dir();
        fs::create_dir_all(dir.path().join("proc/1")).unwrap();
        fs::write(dir.path().join("proc/1/cmdline"), "unit: main v1.35.0 [unitd --no-daemon --user me]\0").unwrap();
        assert_eq!(scene(dir.path()).option("--user").as_deref(), Some("me"));
        assert_eq!(scene(dir.path()).option("--group"), None);
    }
}
