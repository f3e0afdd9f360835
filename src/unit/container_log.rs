//! The log of this container, for hooks: Kubernetes drops their own output.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

use super::process::Process;

/// Opens the standard output of PID 1, if that is Unit or the image's entrypoint.
///
/// None if podstrap already writes there. `pause` or an init as PID 1 may have an output that nobody reads.
pub fn container_log() -> Option<File> {
    output(Path::new("/proc"))
}

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
    // Do not block on a full pipe without a reader.
    let nonblock = OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new().append(true).custom_flags(nonblock).open(path).ok()
}
