//! Identifies a process in the process file system: Unit, the image's entrypoint, a shell.

use std::path::Path;

use crate::files;

/// The name and arguments of a process.
pub(super) struct Process {
    /// The name of the executable, or of a script with `#!`: at most 15 bytes.
    comm: String,
    pub(super) words: Vec<String>,
}

impl Process {
    /// Unreadable parts are empty, as under `hidepid`.
    pub(super) fn read(proc: &Path, pid: &str) -> Self {
        let text = |name| files::read_proc(&proc.join(pid).join(name)).unwrap_or_default();
        Self {
            comm: String::from_utf8_lossy(&text("comm")).trim_end().to_owned(),
            words: text("cmdline").split(|byte| *byte == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect(),
        }
    }
    pub(super) fn is_unit(&self) -> bool {
        // unitd and unitd-debug. Names of scripts are longer.
        self.comm.starts_with("unitd") || self.comm.starts_with("freeunitd")
    }
    /// `/bin/sh /usr/local/bin/docker-entrypoint.sh unitd …`; not `tini docker-entrypoint.sh …`.
    pub(super) fn is_entrypoint(&self) -> bool {
        let script = self.words.get(1).or(self.words.first());
        (self.is_shell() || self.comm.starts_with("docker-entrypoi"))
            && script.is_some_and(|script| base(script).starts_with("docker-entrypoint"))
    }
    /// Whether its arguments start Unit.
    pub(super) fn starts_unit(&self) -> bool {
        self.words.iter().any(|word| base(word).starts_with("unitd") || base(word).starts_with("freeunitd"))
    }
    pub(super) fn is_shell(&self) -> bool {
        self.words.first().is_some_and(|word| ["sh", "dash", "bash", "ash", "busybox"].contains(&base(word)))
    }
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
