//! Runs commands in a separate PID and mount namespace: as PID 1, or with private mounts.
//!
//! ```text
//! let Some(mut command) = namespaced(&podstrap, r#"mount -t tmpfs -o size=1m none /some/dir && "$@""#) else { return };
//! ```

use std::process::{Child, Command};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// `1` skips the tests that need namespaces, for machines that do not allow them.
const LEAVE_OUT: &str = "PODSTRAP_TEST_NO_NAMESPACES";

const NAMESPACES: &[&str] = &["--pid", "--fork", "--mount-proc", "--kill-child"];
/// Additional flags for an ordinary user: a user namespace in which it is root.
const AS_USER: &[&str] = &["--user", "--map-root-user"];

/// Runs `script` with sh as root in new PID and mount namespaces. In the script, `"$@"` is the command, and
/// `exec "$@"` makes it PID 1. Environment and directory are the command's. The exit code is the script's.
/// Killing the returned command's process kills everything in the namespace.
///
/// Prints a line and returns `None` if the variable skips such tests.
///
/// # Panics
/// The machine does not allow namespaces, and the variable does not skip such tests.
pub fn namespaced(command: &Command, script: &str) -> Option<Command> {
    if std::env::var(LEAVE_OUT).is_ok_and(|value| value == "1") {
        eprintln!("SKIPPED: this test needs namespaces, and {LEAVE_OUT}=1");
        return None;
    }
    let mut unshare = unshare();
    unshare.args(["sh", "-c", script, "sh"]).arg(command.get_program()).args(command.get_args());
    // The command's own variables. A command with a cleared environment sets PATH itself.
    unshare.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(dir) = command.get_current_dir() {
        unshare.current_dir(dir);
    }
    Some(unshare)
}

/// The id of the namespace's PID 1, seen from outside.
pub fn first_process(namespaced: &Child) -> i32 {
    let children = format!("/proc/{0}/task/{0}/children", namespaced.id());
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        let list = std::fs::read_to_string(&children).unwrap_or_default();
        if let Some(pid) = list.split_whitespace().next() {
            return pid.parse().expect("a process id");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("{children} names no child: unshare did not fork, or the kernel is without CONFIG_PROC_CHILDREN")
}

fn unshare() -> Command {
    static FLAGS: OnceLock<Vec<&str>> = OnceLock::new();
    let flags = FLAGS.get_or_init(|| {
        let mut flags = NAMESPACES.to_vec();
        if !rustix::process::geteuid().is_root() {
            flags.extend(AS_USER);
        }
        let tried = Command::new("unshare").args(&flags).args(["mount", "-t", "tmpfs", "none", "/tmp"]).output();
        let why = match tried {
            Ok(output) if output.status.success() => return flags,
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        panic!(
            "this test needs PID and mount namespaces, but `unshare {}` fails: {why}. Install util-linux, and run as \
             root with CAP_SYS_ADMIN or allow unprivileged user namespaces; or set {LEAVE_OUT}=1 to skip such tests",
            flags.join(" ")
        )
    });
    let mut command = Command::new("unshare");
    command.args(flags);
    command
}
