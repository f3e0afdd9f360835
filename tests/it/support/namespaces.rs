//! Commands in a PID and mount namespace of their own: to be PID 1, or to mount what nobody else
//! sees.
//!
//! ```text
//! let Some(mut command) = namespaced(&podstrap, r#"mount -t tmpfs -o size=1m none /some/dir && "$@""#) else { return };
//! ```

use std::process::{Child, Command};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// `1` leaves out the tests that need namespaces, where a machine allows none.
const LEAVE_OUT: &str = "PODSTRAP_TEST_NO_NAMESPACES";

const NAMESPACES: &[&str] = &["--pid", "--fork", "--mount-proc", "--kill-child"];
/// What an ordinary user needs besides: a user namespace, in which it is root.
const AS_USER: &[&str] = &["--user", "--map-root-user"];

/// `script`, run by sh as root in new PID and mount namespaces, where `"$@"` is the command. The
/// script's `exec "$@"` makes it PID 1. Environment and directory are the command's. The exit code
/// is the script's; killing the returned command's process kills everything in the namespace.
///
/// None, and a line that says so, where the variable leaves such tests out.
///
/// # Panics
/// The machine allows no namespaces and the variable does not say that this is known.
pub fn namespaced(command: &Command, script: &str) -> Option<Command> {
    if std::env::var(LEAVE_OUT).is_ok_and(|value| value == "1") {
        eprintln!("LEFT OUT: this test needs namespaces, and {LEAVE_OUT}=1");
        return None;
    }
    let mut unshare = unshare();
    unshare.args(["sh", "-c", script, "sh"]).arg(command.get_program()).args(command.get_args());
    // What the command was given; where it was told to begin with nothing, PATH is among it.
    unshare.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(dir) = command.get_current_dir() {
        unshare.current_dir(dir);
    }
    Some(unshare)
}

/// The namespace's PID 1, by its id out here.
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
             root with CAP_SYS_ADMIN or allow unprivileged user namespaces; or set {LEAVE_OUT}=1 to leave such tests out",
            flags.join(" ")
        )
    });
    let mut command = Command::new("unshare");
    command.args(flags);
    command
}
