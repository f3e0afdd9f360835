//! Who listens: the Unit that stays, or the temporary one of the image's entrypoint?
//!
//! With an empty state directory the images' `docker-entrypoint.sh` starts a daemon
//! (`unitd --control unix:/var/run/control.unit.sock`), gives it the files of
//! `/docker-entrypoint.d` or a welcome page, stops it, and only then `exec`s `unitd --no-daemon`.
//! A configuration that the temporary daemon took is gone. The kernel names the process that
//! listens (`SO_PEERCRED`), and `/proc` says what it is:
//!
//! | the listener | PID 1 | verdict |
//! |---|---|---|
//! | not in this PID namespace | – | unknown |
//! | is PID 1 | – | final: the script has exec'd it |
//! | another | Unit, or the script | temporary: the final one will be PID 1 |
//! | a daemon, and the script still runs | a wrapper, an init, `pause` | temporary |
//! | runs with `--no-daemon`, as the script's daemon never does | no shell | final |
//! | anything else | anything else | unknown |
//!
//! A daemon's listener is mostly gone: Unit becomes a daemon after listen(2), and the kernel goes on
//! to name the process that called it.

use std::path::Path;

use super::process::Process;

/// What a listener is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listener {
    /// It stays: what it takes, it keeps.
    Final,
    /// The entrypoint will stop it: give it nothing.
    Temporary,
    /// Nothing proves either: apply, then watch whether it stays.
    Unknown,
}

/// Judges the process `pid` (`SO_PEERCRED`; 0 or none for one of another PID namespace) by what
/// the process file system at `proc` tells.
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
    let daemon = !foreground && (listener.is_unit() || !proc.join(pid.to_string()).exists());
    if daemon && entrypoint_runs(proc) {
        return Listener::Temporary;
    }
    // A script that is PID 1 may start and stop what it likes.
    if foreground && !first.is_shell() { Listener::Final } else { Listener::Unknown }
}

fn entrypoint_runs(proc: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(proc) else { return false };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .map(|pid| Process::read(proc, &pid))
        // Many images have a script of that name: it must be about to start Unit.
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
        // The script already execs, the daemon's connection is still open.
        assert_eq!(judged(&[(1, FINAL)], Some(8)), Listener::Temporary);
    }

    #[test]
    fn under_a_wrapper_pause_or_an_init_the_listener_itself_tells() {
        for first in [CUSTOM, PAUSE, TINI] {
            assert_eq!(judged(&[(1, first), (7, SCRIPT), (9, DAEMON)], Some(8)), Listener::Temporary);
            // The instant before it becomes a daemon.
            assert_eq!(judged(&[(1, first), (7, SCRIPT), (8, DAEMON)], Some(8)), Listener::Temporary);
            assert_eq!(judged(&[(1, first), (9, DAEMON)], Some(8)), Listener::Unknown);
        }
        let other = ("docker-entrypoi", &["/bin/sh", "/usr/local/bin/docker-entrypoint.sh", "postgres"][..]);
        assert_eq!(judged(&[(1, PAUSE), (7, other), (9, DAEMON)], Some(9)), Listener::Unknown);
        assert_eq!(judged(&[(1, PAUSE), (7, FINAL)], Some(7)), Listener::Final);
        assert_eq!(judged(&[(1, TINI), (7, FINAL)], Some(7)), Listener::Final);
        // It may do as the entrypoint does.
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
