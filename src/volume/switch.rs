//! The public names: checked for conflicts, then switched by one rename.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::layout::{entry_target, in_the_way, names, random, release_of_link, sync_dir, taken};
use super::manifest::Release;
use super::root::Volume;
use crate::error::{IoContext, Result};
use crate::plan::{RESERVED, Target};

impl Volume {
    /// Makes the target's links show the release. Returns false if they already did.
    ///
    /// # Errors
    /// A path exists that podstrap did not create. Nothing has changed then.
    pub fn switch(&self, release: &Release, target: &Target) -> Result<bool> {
        self.check(target, Some(&self.tree(release)))?;
        match &target.link {
            Some(name) => self.switch_link(release, name),
            None => self.switch_entries(release),
        }
    }

    /// Checks that the target's links have room, before any expensive work. `tree` is the tree to
    /// publish, once it exists.
    ///
    /// # Errors
    /// Names the first existing path that podstrap did not create.
    pub fn check(&self, target: &Target, tree: Option<&Path>) -> Result<()> {
        let entries = match (&target.link, tree) {
            (Some(name), _) => vec![OsString::from(name)],
            (None, Some(tree)) => names(tree)?,
            (None, None) => return Ok(()),
        };
        for name in entries {
            let path = self.root.join(&name);
            match fs::read_link(&path) {
                // With and without --link, a run must not take the other's names.
                Ok(to) if target.link.is_some() && to == entry_target(&name) && path.exists() => {
                    return Err(taken(&path, "the tree that is published without --link"));
                }
                Ok(to) if target.link.is_none() && release_of_link(&to).is_some() && path.exists() => {
                    return Err(taken(&path, "a tree that is published with --link"));
                }
                Ok(to) if to.starts_with(RESERVED) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                _ => return Err(in_the_way(&path)),
            }
        }
        Ok(())
    }

    fn switch_link(&self, release: &Release, name: &str) -> Result<bool> {
        let link = self.root.join(name);
        let to = Path::new(RESERVED).join("releases").join(&release.id).join("tree");
        if fs::read_link(&link).is_ok_and(|now| now == to) {
            return Ok(false);
        }
        self.link(&to, &link)?;
        sync_dir(&self.root)?;
        Ok(true)
    }

    fn switch_entries(&self, release: &Release) -> Result<bool> {
        let entries = names(&self.tree(release))?;
        let mut tidied = false;
        for name in &entries {
            let (link, to) = (self.root.join(name), entry_target(name));
            if !fs::read_link(&link).is_ok_and(|now| now == to) {
                self.link(&to, &link)?;
                tidied = true;
            }
        }
        let current = self.own.join("current");
        let to = Path::new("releases").join(&release.id);
        let changed = !fs::read_link(&current).is_ok_and(|now| now == to);
        if changed {
            self.link(&to, &current)?;
            sync_dir(&self.own)?;
        }
        let kept: HashSet<_> = entries.into_iter().collect();
        for name in names(&self.root)? {
            let link = self.root.join(&name);
            if !kept.contains(&name) && fs::read_link(&link).is_ok_and(|to| to == entry_target(&name)) {
                fs::remove_file(&link).on_volume(|| format!("cannot remove the old link {}", link.display()))?;
                tidied = true;
            }
        }
        // An unchanged run writes nothing.
        if tidied {
            sync_dir(&self.root)?;
        }
        Ok(changed)
    }

    /// Creates or replaces a link by one rename.
    fn link(&self, to: &Path, at: &Path) -> Result<()> {
        let temporary = self.own.join("staging").join(random());
        symlink(to, &temporary)
            .and_then(|()| fs::rename(&temporary, at))
            .on_volume(|| format!("cannot create the link {}", at.display()))
    }
}
