//! Ready environments that the Pods of a node or a cluster share: one builds, the others restore.
//!
//! An entry of the store is an archive, named after its hash, and a manifest, named after the environment's key. It
//! appears at once, and nothing changes it afterwards. A reader verifies the hash while it unpacks. A lease lets one of
//! several builders build while the others wait.
//!
//! | file | purpose |
//! |---|---|
//! | `entry` | the manifest: written, signed, read, verified |
//! | `transfer` | the archive: packed, unpacked, hashed |
//! | `unusable` | why an entry is not used |
//! | `place` | a directory or a registry |
//! | `directory` | entries in a directory |
//! | `registry` | entries in an OCI registry |
//! | `oci` | the client of a registry |
//! | `challenge` | the ways to log in that a registry names |
//! | `lease` | who builds an entry |
//! | `prune` | deletes the entries of a directory that nobody used for the longest time |
//! | `command` | `podstrap store` |
//!
//! Only `place` and the files that it uses know where the entries are.
//!
//! A store must not fail a run, and must not delay it for long. Each access has a time limit, and runs on a thread that
//! podstrap gives up after it. Then podstrap leaves the store alone for the rest of the run.

mod challenge;
mod command;
mod directory;
mod entry;
mod lease;
mod oci;
mod place;
mod prune;
mod registry;
mod transfer;
mod unusable;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub(crate) use self::command::ago;
pub use self::command::run;
use self::entry::short;
pub(crate) use self::entry::{Draft, Manifest};
pub(crate) use self::lease::Lease;
use self::lease::Taken;
use self::place::Place;
use self::unusable::Unusable;
use crate::error::{Error, Result};
use crate::plan;
use crate::retry::Deadline;
use crate::runtime::blocking;
use crate::signature::{AllowedSigners, Purpose, Signer};
use crate::size::Size;

/// Time limit for a look at an entry.
const LOOK: Duration = Duration::from_secs(5);
/// The shortest time limit to restore or save an environment. It is longer if the build took longer.
const TRANSFER: Duration = Duration::from_secs(20);
/// A restore may take this many times as long as the build: several Pods of a node may restore at once, and to build then
/// would take even longer.
const CROWD: u32 = 4;
/// The first and the longest pause between two looks at an entry that another podstrap builds.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];

/// The store of one run.
#[derive(Debug)]
pub struct Store {
    plan: plan::Store,
    place: Place,
    signer: Option<Arc<Signer>>,
    verifier: Option<Arc<AllowedSigners>>,
    /// A call did not return in time. There is no other call.
    is_given_up: AtomicBool,
    /// The entry is one of a newer podstrap, which keeps it.
    is_newer: AtomicBool,
    has_warned: AtomicBool,
}

/// The result of a search.
#[derive(Debug)]
pub(crate) enum Fetched {
    /// The environment is in place.
    Restored(Box<Manifest>),
    /// This run must build it. Others wait while it holds the lease.
    Missing(Option<Lease>),
}

impl Store {
    /// Reads the keys for the signatures. `auth` are the files with logins.
    ///
    /// # Errors
    /// A file with keys is missing or invalid.
    pub async fn new(plan: &plan::Store, auth: &[PathBuf]) -> Result<Self> {
        let (sign, verify) = (plan.sign.clone(), plan.verify.clone());
        let (signer, verifier) = blocking(move || {
            let signer = sign.as_deref().map(Signer::read).transpose()?;
            // Whoever signs replaces entries without a signature.
            let own = || signer.as_ref().map(AllowedSigners::only);
            let verifier =
                verify.as_deref().map(|file| AllowedSigners::read(file, Purpose::Store)).transpose()?.or_else(own);
            Ok((signer, verifier))
        })
        .await?;
        Ok(Self {
            plan: plan.clone(),
            place: Place::new(&plan.at, auth),
            signer: signer.map(Arc::new),
            verifier: verifier.map(Arc::new),
            is_given_up: AtomicBool::new(false),
            is_newer: AtomicBool::new(false),
            has_warned: AtomicBool::new(false),
        })
    }

    /// Restores the environment with this key to `to`, which must not exist yet. Waits for another podstrap that
    /// builds it, at most for half of the remaining time.
    ///
    /// # Errors
    /// With `--store-only`, the store cannot be read or written: there is no use in building.
    pub(crate) async fn fetch(&self, key: &str, to: &Path, deadline: Deadline) -> Result<Fetched> {
        let until = Instant::now() + deadline.remaining() / 2;
        let (mut pause, mut seen, mut lease, mut is_first) = (PAUSES[0], None, None, true);
        loop {
            match self.restore(key, to, deadline, std::mem::take(&mut is_first)).await {
                Ok(Some(manifest)) => return Ok(Fetched::Restored(Box::new(manifest))),
                Ok(None) => {}
                // The next entry replaces it.
                Err(Unusable::Damaged(error)) => self.warn(&error),
                Err(Unusable::Newer(error)) => {
                    self.is_newer.store(true, Ordering::Relaxed);
                    return self.without(error);
                }
                Err(Unusable::Failed(error)) => return self.without(error),
            }
            if lease.is_some() || !self.is_writable() {
                return Ok(Fetched::Missing(lease));
            }
            let (place, name, known) = (self.place.clone(), key.to_owned(), seen.take());
            let what = format!("cannot announce the build in the store {}", self.plan.at);
            match self.bounded(LOOK, what, move || place.take(&name, known)).await {
                // Another podstrap may have finished since the look.
                Ok(Taken::Ours(ours)) => lease = Some(ours),
                Ok(Taken::By(_)) if Instant::now() >= until => {
                    tracing::warn!(
                        "another podstrap still builds this environment for the store: building it here too"
                    );
                    return Ok(Fetched::Missing(None));
                }
                Ok(Taken::By(other)) => {
                    if pause == PAUSES[0] {
                        tracing::info!("waiting for another podstrap, which builds this environment for the store");
                    }
                    seen = Some(other);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES[1]);
                }
                Err(error) => return self.without(error),
            }
        }
    }

    /// The entry with this key that [`fetch`](Self::fetch) would restore.
    ///
    /// # Errors
    /// With `--store-only`, the store cannot be read.
    pub(crate) async fn look(&self, key: &str) -> Result<Option<Manifest>> {
        match self.find(key, true).await {
            Ok(found) => Ok(found),
            Err(Unusable::Failed(error)) if self.is_required() => Err(error),
            Err(Unusable::Damaged(error) | Unusable::Newer(error) | Unusable::Failed(error)) => {
                self.warn(&error);
                Ok(None)
            }
        }
    }

    /// This run must build without the store, unless it is there to fill the store.
    fn without(&self, error: Error) -> Result<Fetched> {
        if self.is_required() {
            return Err(error);
        }
        self.warn(&error);
        Ok(Fetched::Missing(None))
    }

    /// The manifest of the entry with this key, if it may be used. Only the first try says why not.
    async fn find(&self, key: &str, is_first: bool) -> Result<Option<Manifest>, Unusable> {
        let what = format!("cannot read the store {}", self.plan.at);
        let (place, name, verifier) = (self.place.clone(), key.to_owned(), self.verifier.clone());
        let found = self.bounded(LOOK, what, move || Ok(place.look(&name, verifier.as_deref())));
        let manifest = match found.await? {
            Ok(None) => return Ok(None),
            Ok(Some(manifest)) => manifest,
            // It says which store.
            Err(Unusable::Failed(error)) => return Err(Unusable::Failed(error)),
            Err(why) => return Err(why.within(&self.shown(key))),
        };
        if !manifest.is_fixed && manifest.age().is_none_or(|age| age > self.plan.max_age) {
            if is_first {
                tracing::info!("{} is older than --store-max-age: resolving its requirements again", self.shown(key));
            }
            return Ok(None);
        }
        Ok(Some(manifest))
    }

    fn shown(&self, key: &str) -> String {
        format!("the entry {} of the store {}", short(key), self.plan.at)
    }

    /// Restores the entry with this key, if there is a good one.
    async fn restore(
        &self,
        key: &str,
        to: &Path,
        deadline: Deadline,
        is_first: bool,
    ) -> Result<Option<Manifest>, Unusable> {
        let Some(manifest) = self.find(key, is_first).await? else { return Ok(None) };
        let what = format!("cannot read the store {}", self.plan.at);
        let limit = (manifest.took() * CROWD).max(TRANSFER).min(deadline.remaining() / 2);
        // A thread that is given up may still write there.
        let beside = to.with_extension("restored");
        let (place, wanted, target, most) =
            (self.place.clone(), manifest.clone(), beside.clone(), self.plan.size_limit);
        let unpacked =
            self.bounded(limit, what, move || Ok(place.restore(&wanted, &target, most, Deadline::after(limit))));
        if let Err(why) = unpacked.await? {
            if matches!(why, Unusable::Damaged(_)) && self.is_writable() {
                let (place, wanted) = (self.place.clone(), manifest.clone());
                let discard = move || place.discard(&wanted);
                if let Err(error) = self.bounded(LOOK, "cannot delete the entry".to_owned(), discard).await {
                    tracing::debug!("{}", error.summary());
                }
            }
            return Err(why.within(&self.shown(key)));
        }
        let moved = std::fs::rename(&beside, to);
        moved.map_err(|error| Unusable::Failed(Error::volume("cannot move the environment").because(error)))?;
        Ok(Some(manifest))
    }

    /// Saves a built environment.
    ///
    /// # Errors
    /// Volume: the store is full, read-only, or too slow.
    pub(crate) async fn save(&self, draft: Draft, venv: &Path, deadline: Deadline) -> Result<Manifest> {
        if self.is_newer.load(Ordering::Relaxed) {
            return Err(Error::volume("a newer podstrap saved this environment: leaving its entry alone"));
        }
        let limit = draft.took.max(TRANSFER).min(deadline.remaining() / 2);
        let what = format!("cannot save the environment in the store {}", self.plan.at);
        let (place, venv, signer) = (self.place.clone(), venv.to_owned(), self.signer.clone());
        let most = self.plan.limit.unwrap_or(Size(u64::MAX));
        self.bounded(limit, what, move || place.save(&draft, &venv, signer.as_deref(), most, Deadline::after(limit)))
            .await
    }

    /// Whether this run may add entries: not if it trusts only signed ones and has no key to sign.
    pub(crate) fn is_writable(&self) -> bool {
        self.verifier.is_none() || self.signer.is_some()
    }

    /// Whether the run fails if it cannot save its environment.
    pub(crate) fn is_required(&self) -> bool {
        self.plan.only
    }

    /// Logs why the store is not used: the first time as a warning.
    pub(crate) fn warn(&self, error: &Error) {
        if self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::debug!("{}", error.summary());
        } else {
            tracing::warn!("{}: continuing without the store", error.summary());
        }
    }

    /// Runs work on the store, and gives up after `limit`.
    async fn bounded<T: Send + 'static>(
        &self,
        limit: Duration,
        what: String,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if self.is_given_up.load(Ordering::Relaxed) {
            return Err(Error::volume(what).because("the store did not answer before"));
        }
        if let Ok(result) = tokio::time::timeout(limit, blocking(work)).await {
            return result;
        }
        self.is_given_up.store(true, Ordering::Relaxed);
        Err(Error::volume(what).because(format!("not done after {:.1} s", limit.as_secs_f64())))
    }
}

#[cfg(fuzzing)]
pub mod fuzzing {
    pub use super::challenge::fuzz as challenge;
    pub use super::entry::fuzz as store_entry;
}
