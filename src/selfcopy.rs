//! Copies the running binary, and the static uv in its directory, for another container to run: Unit's
//! image contains neither.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, IoContext, Result};
use crate::files;

/// The running binary, even if its file was replaced meanwhile.
const RUNNING: &str = "/proc/self/exe";

/// Copies to `path`: a file, or a directory that gets a file `podstrap`. Returns the paths of the copies.
pub fn copy_to(path: &Path) -> Result<Vec<PathBuf>> {
    let as_directory = files::is_dir(path)? || path.as_os_str().as_encoded_bytes().ends_with(b"/");
    let to = if as_directory { path.join("podstrap") } else { path.to_owned() };
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_dirs(parent)?;
    let mut copied = vec![to.clone()];
    copy(Path::new(RUNNING), &to)?;
    if let Some(uv) = uv_beside() {
        let to = parent.join("uv");
        copy(&uv, &to)?;
        copied.push(to);
    }
    Ok(copied)
}

/// Sizes in bytes of the files to copy. Their times are not reliable, because they may be copies too.
pub fn sizes() -> Vec<u64> {
    let uv = std::env::current_exe().map(|own| own.with_file_name("uv"));
    let copied = std::iter::once(PathBuf::from(RUNNING)).chain(uv);
    copied.map(|file| fs::metadata(file).map_or(0, |meta| meta.len())).collect()
}

/// `mkdir -p` for directories that all users can read, whatever the umask.
fn make_dirs(dir: &Path) -> Result<()> {
    if files::is_dir(dir)? {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        make_dirs(parent)?;
    }
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && files::is_dir(dir)? => Ok(()),
        made => made.and_then(|()| fs::set_permissions(dir, Permissions::from_mode(0o755))),
    }
    .on_volume(|| format!("cannot create the directory {}", dir.display()))
}

/// A static uv in the directory of the running binary, which runs in any image.
fn uv_beside() -> Option<PathBuf> {
    let uv = std::env::current_exe().ok()?.with_file_name("uv");
    match is_static(&uv) {
        Ok(true) => Some(uv),
        Ok(false) => {
            tracing::warn!("{} not copied: it is dynamically linked and may not run in another image", uv.display());
            None
        }
        Err(error) => {
            tracing::debug!("uv not copied: {error}");
            None
        }
    }
}

/// Whether an ELF file has no program interpreter (`PT_INTERP`).
fn is_static(path: &Path) -> io::Result<bool> {
    use object::read::elf::{FileHeader, ProgramHeader};
    let cache = object::ReadCache::new(files::open(path)?);
    let header = object::elf::FileHeader64::<object::Endianness>::parse(&cache).map_err(io::Error::other)?;
    let endian = header.endian().map_err(io::Error::other)?;
    let segments = header.program_headers(endian, &cache).map_err(io::Error::other)?;
    Ok(segments.iter().all(|segment| segment.p_type(endian) != object::elf::PT_INTERP))
}

/// Writes a temporary file and renames it, so that a container never starts an incomplete copy. Skips a
/// copy that has the same size and time.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let (there, entry) = (files::metadata(to)?, files::entry(to)?);
    let other = there.as_ref().filter(|meta| meta.is_dir()).or(entry.as_ref().filter(|meta| !meta.is_symlink()));
    if let Some(what) = other.and_then(files::not_regular) {
        return Err(Error::volume(format!("cannot copy to {}: {what}", to.display()))
            .hint("give a path for the file, or a directory to copy it into"));
    }
    let modified =
        fs::metadata(from).and_then(|meta| meta.modified()).on_volume(|| format!("cannot read {}", from.display()))?;
    // Another user can give a file any size and time.
    let user = rustix::process::geteuid().as_raw();
    let same = |meta: fs::Metadata| -> io::Result<bool> {
        Ok(meta.modified()? == modified
            && meta.is_file()
            && meta.uid() == user
            && meta.permissions().mode() & 0o022 == 0
            && meta.len() == fs::metadata(from)?.len()
            && meta.permissions().mode() & 0o111 == 0o111)
    };
    if entry.map(same).transpose().on_volume(|| format!("cannot read {}", from.display()))? == Some(true) {
        return Ok(());
    }
    let mut name = to.file_name().unwrap_or_default().to_owned();
    // Not the process id, which is 1 in every container.
    name.push(format!(".{:016x}", fastrand::u64(..)));
    let temporary = to.with_file_name(name);
    let write = || {
        let mut file = File::create_new(&temporary)?;
        io::copy(&mut files::open(from)?, &mut file)?;
        file.set_permissions(Permissions::from_mode(0o755))?;
        file.set_modified(modified)?;
        fs::rename(&temporary, to)
    };
    let done = write();
    if done.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    let shown = if from == Path::new(RUNNING) { "podstrap".into() } else { from.display().to_string() };
    done.on_volume(|| format!("cannot copy {shown} to {}", to.display()))
}
