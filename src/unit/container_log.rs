//! The log of this container, for a hook whose own output goes nowhere.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

use super::process::Process;

/// The standard output of PID 1, if that is Unit or the image's entrypoint, and is not ours anyway.
pub fn container_log() -> Option<File> {
    output(Path::new("/proc"))
}

/// The standard output of PID 1, where that is Unit or the entrypoint and its output is not our
/// stderr. Under `pause` or an init nobody would read it.
fn output(proc: &Path) -> Option<File> {
    let first = Process::read(proc, "1");
    if std::process::id() == 1 || !(first.is_unit() || first.is_entrypoint()) {
        return None;
    }
    let path = proc.join("1/fd/1");
    let id = |path: &Path| path.metadata().ok().map(|meta| (meta.dev(), meta.ino()));
    if id(&path) == id(&proc.join("self/fd/2")) {
        return None;
    }
    // A pipe that nobody empties must not hold us up.
    let nonblock = OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new().append(true).custom_flags(nonblock).open(path).ok()
}
