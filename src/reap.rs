//! Nothing that was started here outlives the command, and nothing stays a zombie.
//!
//! Killing a child's process group does not reach what left it: a package's build that called
//! `setsid`, forked twice, ignores SIGTERM. So the process is a *child subreaper*: whatever loses
//! its parent below us becomes our child (as PID 1 of a container it would anyway), and
//! `/proc/self/task/*/children` lists those. Killing what is listed until nothing is takes down
//! any tree. Only direct children are ever touched: until we wait for one, its id is nobody else's.
//!
//! Three kinds of them are told apart:
//!
//! | child | who waits for it | killed |
//! |---|---|---|
//! | started by `command` ([`Owned`]) | tokio, so never this module | with its handle |
//! | orphaned to us | this module, when it ends | when no owned child is left that it may serve |
//! | there before us (a shell that started jobs, then `exec podstrap`) | this module, when it ends | never |
//!
//! All of that begins with [`begin`], which the binary calls: a library does not reap its host's
//! children. Without the list (a kernel without `CONFIG_PROC_CHILDREN`) nothing begins, and
//! killing process groups has to do.

use std::collections::HashSet;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid};

/// How long what was killed may take to end: a process that waits for its disk ends when that
/// answers. The command as a whole must end within a second of a signal.
const END_TIME: Duration = Duration::from_millis(400);

/// Between two looks at whether it has ended.
const LOOK: Duration = Duration::from_millis(1);

/// None until [`begin`].
static CHILDREN: Mutex<Option<Children>> = Mutex::new(None);

struct Children {
    /// Not waited for yet by tokio.
    owned: HashSet<Pid>,
    /// There before us.
    foreign: HashSet<Pid>,
}

/// The mark of a child that tokio waits for.
#[derive(Debug)]
pub(crate) struct Owned(Option<Pid>);

/// From here on orphans come to this process, and none stays.
pub(crate) fn begin() {
    let Some(foreign) = listed() else {
        tracing::debug!("/proc lists no children here: what leaves its process group may outlive the command");
        return;
    };
    if let Err(error) = set_child_subreaper(Some(getpid())) {
        tracing::debug!("no subreaper: {error}");
    }
    *children() = Some(Children { owned: HashSet::new(), foreign });
}

/// Starts a child that is not to be taken for an orphan.
pub(crate) fn start<T>(spawn: impl FnOnce() -> io::Result<(T, Option<Pid>)>) -> io::Result<(T, Owned)> {
    // Held meanwhile: another thread must not find the child before it is known.
    let mut children = children();
    let (child, pid) = spawn()?;
    if let (Some(children), Some(pid)) = (children.as_mut(), pid) {
        children.owned.insert(pid);
    }
    Ok((child, Owned(pid)))
}

impl Owned {
    /// The child was waited for. What it and all before it left behind ends too, if it was the last.
    pub(crate) fn ended(&mut self) {
        let mut children = children();
        let (Some(pid), Some(children)) = (self.0.take(), children.as_mut()) else { return };
        children.owned.remove(&pid);
        if children.owned.is_empty() {
            kill(&children.foreign);
        }
    }
}

/// Waits for the orphans that have ended by themselves.
pub(crate) fn zombies() {
    if let Some(children) = children().as_ref() {
        for pid in listed().unwrap_or_default().difference(&children.owned) {
            let _ = waitpid(Some(*pid), WaitOptions::NOHANG);
        }
    }
}

/// Ends all that is left. tokio must need no child any more.
pub(crate) fn end() {
    if let Some(children) = children().take() {
        kill(&children.foreign);
    }
}

/// Kills and reaps every child but these, and what becomes one by that.
fn kill(but: &HashSet<Pid>) {
    let end = Instant::now() + END_TIME;
    loop {
        let left: Vec<_> = listed().unwrap_or_default().difference(but).copied().collect();
        if left.is_empty() {
            return;
        }
        if Instant::now() > end {
            tracing::debug!("killed, but not ended yet: {left:?}");
            return;
        }
        for pid in left {
            // Running, and a child of ours: else the id could be anybody's.
            if let Ok(None) = waitpid(Some(pid), WaitOptions::NOHANG) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        std::thread::sleep(LOOK);
    }
}

/// Our direct children, those that wait to be reaped included. A process has them by thread.
fn listed() -> Option<HashSet<Pid>> {
    // In a PID namespace with the /proc of another, ids in it are not what they are here.
    let own = std::fs::read_link("/proc/self").ok()?;
    if own.to_str()?.parse() != Ok(getpid().as_raw_nonzero().get())
        || !std::fs::exists("/proc/thread-self/children").ok()?
    {
        return None;
    }
    let mut found = HashSet::new();
    for task in std::fs::read_dir("/proc/self/task").ok()?.flatten() {
        // A thread that has ended meanwhile has none: another one has them now.
        let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(text.split_whitespace().filter_map(|id| Pid::from_raw(id.parse().ok()?)));
    }
    Some(found)
}

fn children() -> MutexGuard<'static, Option<Children>> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}
