//! Environments as tar archives.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use ::tar::{Builder, EntryType, Header};

use super::tar;
use super::unpacker::{Rules, Unpacker, stays_inside};
use crate::error::{Error, IoContext, Result};
use crate::files;
use crate::retry::Deadline;
use crate::size::Size;
use crate::tree::Written;
use crate::walk::{WalkError, walk};

/// What an archive contains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) written: Written,
    /// The space that it takes on a volume, as the unpacker counts it.
    pub(crate) occupied: u64,
}

/// Writes an environment as a tar. The same files give the same bytes, whoever owns them.
///
/// # Errors
/// A file of the environment cannot be read, is special, or is a link out of the environment. Or `to` fails.
pub(crate) fn pack(tree: &Path, to: impl Write, deadline: Deadline) -> Result<Packed> {
    let what = || format!("cannot pack {}", tree.display());
    let mut archive = Builder::new(to);
    let mut packed = Packed::default();
    for entry in walk(tree) {
        let entry = entry.map_err(WalkError::on_volume)?;
        if deadline.passed() {
            return Err(deadline.late(&what()));
        }
        let meta = entry.metadata().map_err(WalkError::on_volume)?;
        let mut header = Header::new_gnu();
        header.set_mtime(meta.mtime().try_into().unwrap_or(0));
        header.set_size(0);
        let size = if meta.is_dir() { 0 } else { meta.len() };
        packed.occupied += Size::occupied(size);
        if meta.is_dir() {
            // The unpacker creates the top itself.
            if !entry.is_root() {
                header.set_entry_type(EntryType::Directory);
                header.set_mode(0o755);
                archive.append_data(&mut header, &entry.name, io::empty()).on_volume(what)?;
            }
            continue;
        }
        packed.written.files += 1;
        if meta.is_symlink() {
            let target = fs::read_link(&entry.path).on_volume(what)?;
            if !stays_inside(&entry.name, target.as_os_str().as_bytes()) {
                return Err(Error::environment(what())
                    .because(format!("{} is a link out of the environment", entry.name.display())));
            }
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            archive.append_link(&mut header, &entry.name, &target).on_volume(what)?;
            continue;
        }
        let file = files::open(&entry.path).on_volume(|| format!("cannot read {}", entry.path.display()))?;
        packed.written.bytes += size;
        header.set_size(size);
        header.set_mode(if meta.permissions().mode() & 0o100 != 0 { 0o755 } else { 0o644 });
        archive.append_data(&mut header, &entry.name, file.take(size)).on_volume(what)?;
    }
    archive.into_inner().and_then(|mut to| to.flush()).on_volume(what)?;
    Ok(packed)
}

/// Unpacks such a tar to `tree`, which must not exist yet.
pub(crate) fn unpack_environment(from: impl Read, tree: &Path, name: &str, rules: Rules) -> Result<Written> {
    let mut unpacker = Unpacker::new(name, tree, rules).of_environment();
    unpacker.begin()?;
    tar::unpack(from, "zstd-compressed", &mut unpacker)?;
    unpacker.finish()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use super::*;

    fn rules(limit: u64) -> Rules {
        Rules { strip: 0, forbidden: None, limit: Size(limit), deadline: Deadline::after(Duration::from_secs(20)) }
    }

    fn environment(dir: &Path) -> std::path::PathBuf {
        let env = dir.join("venv");
        fs::create_dir_all(env.join("bin")).unwrap();
        fs::create_dir_all(env.join("lib/python3.13/site-packages").join("x".repeat(120))).unwrap();
        symlink("/usr/bin/python3", env.join("bin/python")).unwrap();
        symlink("lib", env.join("lib64")).unwrap();
        fs::write(env.join("bin/run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(env.join("bin/run"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(env.join("lib/big"), vec![7; 3 << 20]).unwrap();
        for number in 0..500 {
            let name = format!("lib/python3.13/site-packages/{}/{number}.py", "x".repeat(120));
            fs::write(env.join(name), number.to_string().repeat(number)).unwrap();
        }
        env
    }

    fn listed(dir: &Path) -> Vec<(std::path::PathBuf, u32, i64, Vec<u8>)> {
        let entries = walk(dir).map(Result::unwrap).filter(|entry| !entry.is_root());
        entries
            .map(|entry| {
                let meta = entry.metadata().unwrap();
                let contents = match () {
                    () if meta.is_symlink() => {
                        fs::read_link(&entry.path).unwrap().into_os_string().into_encoded_bytes()
                    }
                    () if meta.is_file() => fs::read(&entry.path).unwrap(),
                    () => Vec::new(),
                };
                (entry.name, meta.mode(), meta.mtime(), contents)
            })
            .collect()
    }

    #[test]
    fn an_environment_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let env = environment(dir.path());
        let mut archive = Vec::new();
        let packed = pack(&env, &mut archive, rules(0).deadline).unwrap();
        let back = dir.path().join("back");
        let written = unpack_environment(&archive[..], &back, "it", rules(packed.occupied)).unwrap();
        assert_eq!(written, packed.written);
        assert_eq!(listed(&back), listed(&env));
        let mut again = Vec::new();
        pack(&back, &mut again, rules(0).deadline).unwrap();
        assert!(again == archive, "the same files give the same bytes");
        let small = unpack_environment(&archive[..], &dir.path().join("x"), "it", rules(packed.occupied - 1));
        assert!(small.unwrap_err().to_string().contains("the files take"));
    }

    #[test]
    fn only_links_of_bin_lead_out() {
        for (link, target, inside) in [
            ("bin/python", "/usr/bin/python3", true),
            ("bin/x/y", "/usr/bin/python3", false),
            ("lib64", "lib", true),
            ("lib/a/b", "../../bin/python", true),
            ("lib/a/b", "../../../bin/python", false),
            ("lib/a/b", "x/../../../../y", false),
            ("lib64", "..", false),
            ("lib64", "./lib/../lib", true),
            ("lib64", "/etc", false),
        ] {
            assert_eq!(stays_inside(Path::new(link), target.as_bytes()), inside, "{link} -> {target}");
        }
        let dir = tempfile::tempdir().unwrap();
        let env = environment(dir.path());
        symlink("/etc/passwd", env.join("lib/x")).unwrap();
        let error = pack(&env, io::sink(), rules(0).deadline).unwrap_err();
        assert!(error.to_string().contains("lib/x is a link out of the environment"), "{error}");
    }

    /// A tar with one entry, whatever its name.
    fn tar_with(kind: EntryType, name: &str, target: &str) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o4777);
        header.set_mtime(1);
        header.set_size(u64::from(kind == EntryType::Regular));
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        if kind == EntryType::Regular {
            bytes.extend([b'x'; 512]);
        }
        bytes.extend([0; 1024]);
        bytes
    }

    #[test]
    fn hostile_entries_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (number, (kind, name, target, why)) in [
            (EntryType::Regular, "../x", "", "`..`"),
            (EntryType::Regular, "/x", "", "absolute name"),
            (EntryType::Symlink, "lib/x", "/etc", "out of the environment"),
            (EntryType::Symlink, "x", "../y", "out of the environment"),
            (EntryType::Link, "x", "/etc/passwd", "hard link"),
            (EntryType::Char, "x", "", "is a device"),
            (EntryType::Fifo, "x", "", "named pipe"),
        ]
        .into_iter()
        .enumerate()
        {
            let tree = dir.path().join(number.to_string());
            let error = unpack_environment(&tar_with(kind, name, target)[..], &tree, "it", rules(1 << 20)).unwrap_err();
            assert!(error.to_string().contains(why), "{name}: {error}");
            assert!(!dir.path().join("x").exists());
        }
        let tree = dir.path().join("mode");
        unpack_environment(&tar_with(EntryType::Regular, "x", "")[..], &tree, "it", rules(1 << 20)).unwrap();
        assert_eq!(fs::metadata(tree.join("x")).unwrap().mode() & 0o7777, 0o755, "no setuid bit");
        let twice = [&tar_with(EntryType::Regular, "x", "")[..1024], &tar_with(EntryType::Regular, "x", "")].concat();
        let error = unpack_environment(&twice[..], &dir.path().join("twice"), "it", rules(1 << 20)).unwrap_err();
        assert!(error.to_string().contains("appears twice"), "{error}");
    }
}
