//! A single file: an archive becomes a tree of its entries, any other file becomes the only one of its tree.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use crate::archive::{self, Rules};
use crate::error::{Error, IoContext, Kind, Result};
use crate::files;
use crate::formats::{self, Format};
use crate::plan::{RESERVED, TreePath, Unpack};
use crate::retry::Deadline;
use crate::runtime::{blocking, hex};
use crate::source::destination::{Contents, Destination};
use crate::source::lfs;
use crate::source::revision::Revision;
use crate::tree::{Written, count, reserved, set_mode};
use crate::walk::WalkError;

const BUFFER: usize = 256 << 10;

/// A file that is a whole source.
#[derive(Debug, Clone)]
pub(crate) struct SingleFile {
    pub(crate) path: PathBuf,
    /// Its name in messages.
    pub(crate) shown: String,
    /// Its file name at its origin.
    pub(crate) name: String,
    pub(crate) modified: Option<SystemTime>,
    /// Whether the server says that it is a web page.
    pub(crate) web_page: bool,
}

/// A file on this machine.
#[derive(Debug)]
pub(crate) struct LocalFile {
    path: PathBuf,
    unpack: Unpack,
    revision: Revision,
}

impl LocalFile {
    pub(crate) async fn resolve(path: &Path, unpack: &Unpack, deadline: Deadline) -> Result<Self> {
        let from = path.to_owned();
        let sha256 = blocking(move || digest(&from, deadline)).await?;
        Ok(Self { path: path.to_owned(), unpack: unpack.clone(), revision: Revision::of_file(&sha256) })
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision.clone()
    }

    pub(crate) async fn check_out(&self, to: Destination<'_>, deadline: Deadline) -> Result<Written> {
        let file = SingleFile {
            path: self.path.clone(),
            shown: self.path.display().to_string(),
            name: self.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            modified: files::metadata(&self.path)?.and_then(|meta| meta.modified().ok()),
            web_page: false,
        };
        check_out(file, self.unpack.clone(), to, deadline).await
    }
}

/// Makes a tree of a file.
pub(crate) async fn check_out(
    file: SingleFile,
    unpack: Unpack,
    to: Destination<'_>,
    deadline: Deadline,
) -> Result<Written> {
    let (tree, scratch, subdir) = (to.tree.to_owned(), to.scratch.to_owned(), to.subdir.cloned());
    let (limit, lfs_pointers) = (to.limit, to.lfs_pointers);
    blocking(move || {
        let to = Destination {
            tree: &tree,
            scratch: &scratch,
            subdir: subdir.as_ref(),
            limit,
            lfs_pointers,
            contents: Contents::Ask,
        };
        let written = file.write(&unpack, to, deadline)?;
        lfs::judge_tree(&file.shown, &tree, lfs_pointers)?;
        Ok(written)
    })
    .await
}

impl SingleFile {
    fn write(&self, unpack: &Unpack, to: Destination<'_>, deadline: Deadline) -> Result<Written> {
        if let Some(name) = &unpack.file {
            return self.copy(name, to.tree);
        }
        let head = self.head()?;
        let (contents, named) = (Format::of_contents(&head), Format::of_name(Path::new(&self.name)));
        if contents.is_some_and(Format::is_supported) {
            let rules = Rules { strip: unpack.strip, forbidden: Some(RESERVED), limit: to.limit, deadline };
            return match to.subdir {
                None => archive::unpack(&self.path, to.tree, &self.shown, rules),
                Some(subdir) => self.unpack_part(subdir, to, rules),
            };
        }
        let is = match (contents, named) {
            _ if self.web_page => None,
            (Some(_), _) => Some(archive::not_unpacked(&head)),
            (None, Some(format)) if !format.is_supported() => {
                Some(format!("its name says that it is {}, which podstrap does not unpack", format.shown))
            }
            _ => None,
        };
        if let Some(is) = is {
            return Err(Error::source(format!("cannot unpack {}", self.shown)).because(is).hint(formats::HINT));
        }
        if named.is_some() || self.web_page || to.subdir.is_some() || unpack.strip > 0 {
            let is = if self.web_page {
                "the server answers with a web page".to_owned()
            } else {
                archive::not_unpacked(&head)
            };
            return Err(Error::source(format!("{} is not an archive", self.shown))
                .because(is)
                .hint("check the URL and whether it requires a login, or publish the file itself with --file NAME"));
        }
        self.copy(&self.name, to.tree)
    }

    /// The first bytes, which identify an archive.
    fn head(&self) -> Result<Vec<u8>> {
        let mut head = Vec::new();
        files::open(&self.path)
            .and_then(|file| file.take(formats::FIRST as u64).read_to_end(&mut head))
            .map_err(|error| files::unreadable(Kind::Source, format!("cannot read {}", self.shown), &error))?;
        Ok(head)
    }

    /// Unpacks the whole archive to the scratch directory, because only then it is known whether the part
    /// exists.
    fn unpack_part(&self, subdir: &TreePath, to: Destination<'_>, rules: Rules) -> Result<Written> {
        let whole = to.scratch.join("unpacked");
        archive::unpack(&self.path, &whole, &self.shown, rules)?;
        let part = crate::tree::directory("--subdir", &whole, subdir).map_err(|error| error.within(&self.shown))?;
        if files::entry(&part.join(RESERVED))?.is_some() {
            return Err(reserved(format!("{} of {} has an entry {RESERVED}", subdir, self.shown)));
        }
        fs::rename(&part, to.tree).on_volume(|| format!("cannot move the files to {}", to.tree.display()))?;
        count(to.tree).map_err(WalkError::on_volume)
    }

    /// Makes the file the only one of the tree.
    fn copy(&self, name: &str, tree: &Path) -> Result<Written> {
        if TreePath::new(Path::new(name)).is_none_or(|path| path.as_path() != Path::new(name)) {
            return Err(
                Error::source(format!("{} has no valid file name", self.shown)).hint("set the name with --file NAME")
            );
        }
        let to = tree.join(name);
        let written = || {
            fs::create_dir(tree)?;
            set_mode(tree, 0o755)?;
            let mut copy = fs::File::create_new(&to)?;
            let bytes = io::copy(&mut files::open(&self.path)?, &mut copy)?;
            set_mode(&to, 0o644)?;
            if let Some(modified) = self.modified {
                copy.set_modified(modified)?;
            }
            Ok(Written { files: 1, bytes })
        };
        written().on_volume(|| format!("cannot write {}", to.display()))
    }
}

/// The SHA-256 of a file.
fn digest(path: &Path, deadline: Deadline) -> Result<String> {
    let unreadable =
        |error: &io::Error| files::unreadable(Kind::Source, format!("cannot read {}", path.display()), error);
    let mut file = files::open(path).map_err(|error| unreadable(&error))?;
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; BUFFER]);
    loop {
        let length = file.read(&mut buffer).map_err(|error| unreadable(&error))?;
        if length == 0 {
            return Ok(hex(&digest.finalize()));
        }
        digest.update(&buffer[..length]);
        if deadline.passed() {
            return Err(deadline.late(&format!("cannot read {}", path.display())));
        }
    }
}
