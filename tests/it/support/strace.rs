//! Disturbs the system calls of a command with strace(1).

use std::process::Command;

/// Whether strace works here: it needs ptrace(2). Says so if not.
pub(crate) fn works() -> bool {
    let works = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).output();
    let works = works.is_ok_and(|output| output.status.success());
    if !works {
        eprintln!("SKIPPED: strace does not work here (Debian: strace; in a container: CAP_SYS_PTRACE)");
    }
    works
}

/// The command under strace, which injects into system calls of every thread, but of no child process. `calls` is an
/// expression of strace; `more` are further arguments.
pub(crate) fn injected(command: &Command, calls: &str, what: &str, more: &[&str]) -> Command {
    let mut strace = Command::new("strace");
    strace
        .args(["-qq", "-o", "/dev/null", "--follow-forks", "--detach-on=execve"])
        .args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{what}")])
        .args(more)
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear()
        .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(dir) = command.get_current_dir() {
        strace.current_dir(dir);
    }
    strace
}
