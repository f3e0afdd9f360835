//! Distinguishes the final Unit from the temporary one of the image's entrypoint.
//!
//! If the state directory is empty, the images' `docker-entrypoint.sh` starts a daemon
//! (`unitd --control unix:/var/run/control.unit.sock`). It applies the files of
//! `/docker-entrypoint.d` or a welcome page, stops the daemon, and then `exec`s `unitd --no-daemon`.
//! A configuration sent to the temporary daemon is lost. The kernel identifies the listening process
//! (`SO_PEERCRED`), and `/proc` describes it:
//!
//! | the listener | PID 1 | verdict |
//! |---|---|---|
//! | not in this PID namespace | – | unknown |
//! | is PID 1 | – | final: the script `exec`ed it |
//! | another process | Unit, or the script | temporary: the final one will be PID 1 |
//! | a daemon, while the script runs | a wrapper, an init, `pause` | temporary |
//! | runs with `--no-daemon`, unlike the script's daemon | no shell | final |
//! | anything else | anything else | unknown |
//!
//! The listening process of a daemon has usually exited: Unit becomes a daemon after listen(2), and the
//! kernel keeps reporting the process that called listen(2).

use std::path::Path;

use super::process::Process;
use crate::files;

/// The verdict on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listener {
    /// It keeps its configuration.
    Final,
    /// The entrypoint will stop it: send nothing.
    Temporary,
    /// No proof of either: apply, then watch whether the configuration stays.
    Unknown,
}

/// Judges the process `pid` by the process file system at `proc`.
///
/// `pid` comes from `SO_PEERCRED`: 0 or none for a process in another PID namespace.
pub(super) fn judge(proc: &Path, pid: Option<i32>) -> Listener {
    let Some(pid) = pid.filter(|pid| *pid > 0) else { return Listener::Unknown };
    if pid == 1 {
        return Listener::Final;
    }
    let first = Process::read(proc, "1");
    if first.is_unit() || first.is_entrypoint() {
        return Listener::Temporary;
    }
    let listener = Process::read(proc, &pid.to_string());
    // Unit rewrites its title to `unit: main v1.35.0 [unitd --no-daemon …]`.
    let foreground = listener.words.iter().any(|word| word.contains("--no-daemon"));
    let daemon = !foreground && (listener.is_unit() || !files::exists(&proc.join(pid.to_string())).unwrap_or(true));
    if daemon && entrypoint_runs(proc) {
        return Listener::Temporary;
    }
    // A shell script as PID 1 may start and stop any process.
    if foreground && !first.is_shell() { Listener::Final } else { Listener::Unknown }
}

fn entrypoint_runs(proc: &Path) -> bool {
    // Unreadable as under `hidepid`.
    let entries = files::names(proc).unwrap_or_default().into_iter();
    entries
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .map(|pid| Process::read(proc, &pid))
        // Many images have a script with this name. Its arguments must start Unit.
        .any(|process| process.is_entrypoint() && process.starts_unit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: (&str, &[&str]) =
        ("docker-entrypoi", &["/bin/sh", "/usr/local/bin/docker-entrypoint.sh", "unitd", "--no-daemon"]);
    const FINAL: (&str, &[&str]) = ("unitd", &["unit: main v1.35.0 [unitd --no-daemon --control unix:/x]"]);
    const DAEMON: (&str, &[&str]) = ("unitd", &["unit: main v1.35.0 [/usr/sbin/unitd --control unix:/x]"]);
    const PAUSE: (&str, &[&str]) = ("pause", &["/pause"]);
    const TINI: (&str, &[&str]) = ("tini", &["tini", "/usr/local/bin/docker-entrypoint.sh", "unitd", "--no-daemon"]);
    const CUSTOM: (&str, &[&str]) = ("start.sh", &["/bin/bash", "/start.sh", "unitd", "--no-daemon"]);
    const TEST: (&str, &[&str]) = ("it", &["/target/debug/it"]);

    fn judged(processes: &[(i32, (&str, &[&str]))], pid: Option<i32>) -> Listener {
        let proc = tempfile::tempdir().unwrap();
        for (pid, (comm, words)) in processes {
            let dir = proc.path().join(pid.to_string());
            std::fs::create_dir(&dir).unwrap();
            std::fs::write(dir.join("comm"), format!("{comm}\n")).unwrap();
            std::fs::write(dir.join("cmdline"), words.iter().fold(String::new(), |all, word| all + word + "\0"))
                .unwrap();
        }
        judge(proc.path(), pid)
    }

    #[test]
    fn in_the_image_only_pid_1_is_final() {
        assert_eq!(judged(&[(1, FINAL)], Some(1)), Listener::Final);
        assert_eq!(judged(&[(1, SCRIPT), (9, DAEMON)], Some(8)), Listener::Temporary);
        // The script has already `exec`ed, but the connection to the daemon is still open.
        assert_eq!(judged(&[(1, FINAL)], Some(8)), Listener::Temporary);
    }

    #[test]
    fn under_a_wrapper_pause_or_an_init_the_listener_itself_tells() {
        for first in [CUSTOM, PAUSE, TINI] {
            assert_eq!(judged(&[(1, first), (7, SCRIPT), (9, DAEMON)], Some(8)), Listener::Temporary);
            // Just before it becomes a daemon.
            assert_eq!(judged(&[(1, first), (7, SCRIPT), (8, DAEMON)], Some(8)), Listener::Temporary);
            assert_eq!(judged(&[(1, first), (9, DAEMON)], Some(8)), Listener::Unknown);
        }
        let other = ("docker-entrypoi", &["/bin/sh", "/usr/local/bin/docker-entrypoint.sh", "postgres"][..]);
        assert_eq!(judged(&[(1, PAUSE), (7, other), (9, DAEMON)], Some(9)), Listener::Unknown);
        assert_eq!(judged(&[(1, PAUSE), (7, FINAL)], Some(7)), Listener::Final);
        assert_eq!(judged(&[(1, TINI), (7, FINAL)], Some(7)), Listener::Final);
        // The custom script may behave as the entrypoint.
        assert_eq!(judged(&[(1, CUSTOM), (7, FINAL)], Some(7)), Listener::Unknown);
    }

    #[test]
    fn what_cannot_be_known_is_unknown() {
        assert_eq!(judged(&[(1, FINAL)], Some(0)), Listener::Unknown);
        assert_eq!(judged(&[(1, FINAL)], None), Listener::Unknown);
        assert_eq!(judged(&[], Some(9)), Listener::Unknown);
        assert_eq!(judged(&[(1, PAUSE), (7, SCRIPT), (9, TEST)], Some(9)), Listener::Unknown);
    }
}
