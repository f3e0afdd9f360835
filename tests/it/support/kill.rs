//! SIGKILL for a process, alone or with its descendants.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::volume::names;

/// Kills a process and its descendants. It stops all of them first, so that none can start another.
pub(crate) fn kill_all(child: &mut Child) {
    let mut stopped = vec![];
    let mut found = vec![Pid::from_child(child)];
    while let Some(pid) = found.pop() {
        let _ = kill_process(pid, Signal::STOP);
        wait_for(pid, &['T', 't', 'Z', 'X']);
        stopped.push(pid);
        found.extend(children(pid));
    }
    for pid in &stopped {
        let _ = kill_process(*pid, Signal::KILL);
    }
    child.wait().expect("a child of ours");
    gone(&stopped);
}

/// Kills a process and returns its children, which stay alive.
pub(crate) fn kill_alone(child: &mut Child) -> Vec<Pid> {
    let mut found = children(Pid::from_child(child));
    let mut next = 0;
    while next < found.len() {
        found.extend(children(found[next]));
        next += 1;
    }
    child.kill().expect("a child of ours");
    child.wait().expect("a child of ours");
    found
}

/// The children of all threads of a process.
fn children(pid: Pid) -> Vec<Pid> {
    let tasks = format!("/proc/{pid}/task");
    let lists = names(Path::new(&tasks)).into_iter().map(|task| {
        let path = Path::new(&tasks).join(task).join("children");
        fs::read_to_string(path).unwrap_or_default()
    });
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|id| Pid::from_raw(id.parse().ok()?)).collect::<Vec<_>>())
        .collect()
}

/// Waits until every thread of a process is in one of these states (`proc_pid_stat(5)`) or gone.
fn wait_for(pid: Pid, states: &[char]) {
    let tasks = format!("/proc/{pid}/task");
    let end = Instant::now() + Duration::from_secs(30);
    let reached = |task: &OsString| {
        let stat = fs::read_to_string(Path::new(&tasks).join(task).join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).is_none_or(|state| states.contains(&state))
    };
    while !names(Path::new(&tasks)).iter().all(reached) {
        assert!(Instant::now() < end, "process {pid} does not get into {states:?}");
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Waits until these processes are gone. Their new parent may take a while to reap them.
pub(crate) fn gone(pids: &[Pid]) {
    for pid in pids {
        wait_for(*pid, &['Z', 'X']);
    }
}

/// Sleeps without oversleeping.
pub(crate) fn pause(wait: Duration) {
    let end = Instant::now() + wait;
    std::thread::sleep(wait.saturating_sub(Duration::from_millis(1)));
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}
