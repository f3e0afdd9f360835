//! Reaps zombies, and kills every process that podstrap started before the command ends.
//!
//! Killing a child's process group misses processes that left the group: a package's build may call
//! `setsid`, fork twice and ignore SIGTERM. podstrap is therefore a *child subreaper*: every orphan
//! below it becomes its child, as below PID 1 of a container. `/proc/self/task/*/children` lists the
//! children. Killing all of them until the list is empty ends any process tree. podstrap touches only
//! direct children: the kernel does not reuse the id of a child before podstrap waits for it.
//!
//! There are three kinds of children:
//!
//! | child | who waits for it | killed |
//! |---|---|---|
//! | started by `command` ([`Owned`]) | tokio, never this module | with its handle |
//! | orphan | this module, when it ends | when no owned child is left that may need it |
//! | older than podstrap (a shell that started jobs, then `exec podstrap`) | this module, when it ends | never |
//!
//! The binary calls [`begin`], because a library must not reap the children of its host. Without the
//! list (a kernel without `CONFIG_PROC_CHILDREN`) this module does nothing, and podstrap only kills
//! process groups.

use std::collections::HashSet;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{Dir, Mode, OFlags, open};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid};

/// Time limit for killed processes to end. A process that waits for its disk ends only when the disk
/// answers, but the command must end within a second of a signal.
const END_TIME: Duration = Duration::from_millis(400);

/// Pause between two checks whether they have ended.
const LOOK: Duration = Duration::from_millis(1);

/// `None` until [`begin`].
static CHILDREN: Mutex<Option<Children>> = Mutex::new(None);

struct Children {
    /// Children that tokio has not waited for yet.
    owned: HashSet<Pid>,
    /// Children that are older than podstrap.
    foreign: HashSet<Pid>,
}

/// Marks a child that tokio waits for.
#[derive(Debug)]
pub(crate) struct Owned(Option<Pid>);

/// Makes this process the parent of all orphans below it, and starts to manage its children.
pub(crate) fn begin() {
    let Some(foreign) = listed() else {
        tracing::debug!("/proc lists no children: a process that leaves its group may outlive the command");
        return;
    };
    if let Err(error) = set_child_subreaper(Some(getpid())) {
        tracing::debug!("cannot become a subreaper: {error}");
    }
    *children() = Some(Children { owned: HashSet::new(), foreign });
}

/// Starts a child and marks it as owned.
pub(crate) fn start<T>(spawn: impl FnOnce() -> io::Result<(T, Option<Pid>)>) -> io::Result<(T, Owned)> {
    // Hold the lock: another thread must not take the new child for an orphan.
    let mut children = children();
    let (child, pid) = spawn()?;
    if let (Some(children), Some(pid)) = (children.as_mut(), pid) {
        children.owned.insert(pid);
    }
    Ok((child, Owned(pid)))
}

impl Owned {
    /// Records that tokio waited for the child. After the last owned child, kills all orphans.
    pub(crate) fn ended(&mut self) {
        let mut children = children();
        let (Some(pid), Some(children)) = (self.0.take(), children.as_mut()) else { return };
        children.owned.remove(&pid);
        if children.owned.is_empty() {
            kill(&children.foreign);
        }
    }
}

/// Reaps the orphans that have ended.
pub(crate) fn zombies() {
    if let Some(children) = children().as_ref() {
        for pid in listed().unwrap_or_default().difference(&children.owned) {
            let _ = waitpid(Some(*pid), WaitOptions::NOHANG);
        }
    }
}

/// Kills all remaining children. tokio must not need any child after that.
pub(crate) fn end() {
    if let Some(children) = children().take() {
        kill(&children.foreign);
    }
}

/// Kills and reaps every child except these, and the orphans that result.
fn kill(but: &HashSet<Pid>) {
    let end = Instant::now() + END_TIME;
    loop {
        let left: Vec<_> = listed().unwrap_or_default().difference(but).copied().collect();
        if left.is_empty() {
            return;
        }
        if Instant::now() > end {
            tracing::debug!("killed, but still running: {left:?}");
            return;
        }
        for pid in left {
            // Kill only a running child: any other id may belong to an unrelated process.
            if let Ok(None) = waitpid(Some(pid), WaitOptions::NOHANG) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        std::thread::sleep(LOOK);
    }
}

/// The direct children, including zombies. The kernel lists them by thread.
fn listed() -> Option<HashSet<Pid>> {
    // If /proc belongs to another PID namespace, its ids are not valid here.
    let own = std::fs::read_link("/proc/self").ok()?;
    if own.to_str()?.parse() != Ok(getpid().as_raw_nonzero().get())
        || !std::fs::exists("/proc/thread-self/children").ok()?
    {
        return None;
    }
    let mut found = HashSet::new();
    // std's reader of directories panics if it cannot close one.
    let tasks = open("/proc/self/task", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    for task in Dir::new(tasks).ok()?.flatten() {
        let Ok(task) = task.file_name().to_str() else { continue };
        // If a thread has ended meanwhile, another thread has its children.
        let text = std::fs::read_to_string(format!("/proc/self/task/{task}/children")).unwrap_or_default();
        found.extend(text.split_whitespace().filter_map(|id| Pid::from_raw(id.parse().ok()?)));
    }
    Some(found)
}

fn children() -> MutexGuard<'static, Option<Children>> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}
