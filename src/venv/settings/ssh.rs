//! SSH keys of mounted files, for Git.

use std::path::{Path, PathBuf};

use crate::error::{IoContext, Result};
use crate::files;
use crate::source;

/// A command for Git that opens SSH with the keys and known hosts of `--auth`. Writes these to `scratch`, for their owner
/// alone: ssh refuses the modes of mounted Secrets.
pub(super) fn command(auth: &[PathBuf], scratch: &Path) -> Result<Option<String>> {
    let keys = source::keys(auth)?;
    if keys.private.is_empty() {
        return Ok(None);
    }
    let write = |name: &str, bytes: &[u8]| -> Result<String> {
        let path = scratch.join(name);
        files::write_private(&path, bytes).on_volume(|| format!("cannot write {}", path.display()))?;
        // For the shell that Git starts, and for ssh, which splits the value of an option at spaces.
        Ok(path.display().to_string().replace('\'', r"'\''"))
    };
    let mut command = "ssh -F /dev/null -o BatchMode=yes -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes".to_owned();
    for (number, (_, key)) in keys.private.iter().enumerate() {
        let text = format!("{}\n", key.reveal().trim_end());
        command += &format!(" -i '{}'", write(&format!("ssh-key-{number}"), text.as_bytes())?);
    }
    let hosts: Vec<&[u8]> = keys.known_hosts.iter().map(|(_, bytes)| bytes.as_slice()).collect();
    let path = write("known_hosts", &hosts.join(&b'\n'))?;
    command += &format!(" -o 'UserKnownHostsFile=\"{path}\"' -o GlobalKnownHostsFile=/dev/null");
    Ok(Some(command))
}
