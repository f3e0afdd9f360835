//! The public names: checked for conflicts, then switched by one rename.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

use super::layout::{entry_target, in_the_way, release_of_current, release_of_link, taken, tree_target};
use super::manifest::Release;
use super::root::Volume;
use crate::dir::{Dir, random};
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
            (None, Some(tree)) => {
                Dir::open(tree).and_then(|dir| dir.names()).on_volume(|| format!("cannot list {}", tree.display()))?
            }
            (None, None) => return Ok(()),
        };
        for name in entries {
            let path = self.root.path().join(&name);
            let failed = || format!("cannot inspect {}", path.display());
            if self.root.entry(&name).on_volume(failed)?.is_none() {
                continue;
            }
            let to = self.root.link(&name).on_volume(failed)?.filter(|to| to.starts_with(RESERVED));
            let Some(to) = to else { return Err(in_the_way(&path)) };
            // With and without --link, a run must not take the other's names.
            if target.link.is_some() && to == entry_target(&name) {
                let current = self.own.link("current").on_volume(failed)?;
                if self.shows(current.and_then(|to| release_of_current(&to)), Some(&name)).on_volume(failed)? {
                    return Err(taken(&path, "the tree that is published without --link"));
                }
            }
            if target.link.is_none() && self.shows(release_of_link(&to), None).on_volume(failed)? {
                return Err(taken(&path, "a tree that is published with --link"));
            }
        }
        Ok(())
    }

    /// Whether a release has a tree, or an entry of it.
    fn shows(&self, id: Option<String>, entry: Option<&OsStr>) -> io::Result<bool> {
        let Some(id) = id else { return Ok(false) };
        let tree = Path::new(&id).join("tree");
        Ok(self.releases.entry(entry.map_or(tree.clone(), |entry| tree.join(entry)))?.is_some())
    }

    fn switch_link(&self, release: &Release, name: &str) -> Result<bool> {
        let changed = self.set_link(&self.root, OsStr::new(name), &tree_target(&release.id))?;
        if changed {
            self.disk.sync(&self.root)?;
        }
        Ok(changed)
    }

    fn switch_entries(&self, release: &Release) -> Result<bool> {
        let tree = self.tree(release);
        let list = |dir: &Dir| dir.names().on_volume(|| format!("cannot list {}", dir.path().display()));
        let opened = self.releases.dir(&release.id).and_then(|dir| dir.dir("tree"));
        let entries = list(&opened.on_volume(|| format!("cannot open {}", tree.display()))?)?;
        let mut tidied = false;
        for name in &entries {
            tidied |= self.set_link(&self.root, name, &entry_target(name))?;
        }
        let changed = self.set_link(&self.own, OsStr::new("current"), &Path::new("releases").join(&release.id))?;
        if changed {
            self.disk.sync(&self.own)?;
        }
        let kept: HashSet<_> = entries.into_iter().collect();
        for name in list(&self.root)?.into_iter().filter(|name| !kept.contains(name)) {
            let shown = || self.root.path().join(&name).display().to_string();
            let to = self.root.link(&name).on_volume(|| format!("cannot read {}", shown()))?;
            if to == Some(entry_target(&name)) {
                self.root.remove_file(&name).on_volume(|| format!("cannot remove the old link {}", shown()))?;
                tidied = true;
            }
        }
        // An unchanged run writes nothing.
        if tidied {
            self.disk.sync(&self.root)?;
        }
        Ok(changed)
    }

    /// Creates or replaces a link by one rename. Returns false if it already was as wanted.
    fn set_link(&self, dir: &Dir, name: &OsStr, to: &Path) -> Result<bool> {
        let failed = || format!("cannot create the link {}", dir.path().join(name).display());
        // Another user could change his own link later.
        let ours = dir.entry(name).on_volume(failed)?.is_some_and(|stat| self.owner.is_of(&stat));
        if ours && dir.link(name).on_volume(failed)?.is_some_and(|now| now == to) {
            return Ok(false);
        }
        let temporary = random();
        self.staging
            .create_link(&temporary, to)
            .and_then(|()| self.staging.rename(&temporary, dir, name))
            .on_volume(failed)?;
        Ok(true)
    }
}
