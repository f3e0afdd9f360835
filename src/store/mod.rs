//! Ready environments that the Pods of a node or a cluster share: one builds, the others restore.
//!
//! An entry of the store is an archive, named after its hash, and a manifest, named after the environment's key. A
//! rename publishes each of them, and nothing changes them afterwards. A reader verifies the hash while it unpacks. A
//! lease lets one of several builders build while the others wait.
//!
//! | file | purpose |
//! |---|---|
//! | `entry` | the manifest: written, signed, read, verified |
//! | `directory` | entries in a directory |
//! | `lease` | who builds an entry |
//! | `prune` | deletes the entries that nobody used for the longest time |
//! | `command` | `podstrap store` |
//!
//! Only `directory`, `lease` and `prune` know where the entries are. Another kind of place needs its own three.
//!
//! A store must not fail a run, and must not delay it for long. Each access has a time limit, and runs on a thread that
//! podstrap gives up after it. Then podstrap leaves the store alone for the rest of the run.

mod command;
mod directory;
mod entry;
mod lease;
mod prune;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub(crate) use self::command::ago;
pub use self::command::run;
use self::directory::{Place, Unusable};
use self::entry::short;
pub(crate) use self::entry::{Draft, Manifest};
pub(crate) use self::lease::Lease;
use self::lease::Taken;
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
/// The first and the longest pause between two looks at an entry that another podstrap builds.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];

/// The store of one run.
#[derive(Debug)]
pub struct Store {
    plan: plan::Store,
    signer: Option<Arc<Signer>>,
    verifier: Option<Arc<AllowedSigners>>,
    /// A call did not return in time. There is no other call.
    is_given_up: AtomicBool,
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
    /// Reads the keys for the signatures.
    ///
    /// # Errors
    /// A file with keys is missing or invalid.
    pub async fn new(plan: &plan::Store) -> Result<Self> {
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
            signer: signer.map(Arc::new),
            verifier: verifier.map(Arc::new),
            is_given_up: AtomicBool::new(false),
            has_warned: AtomicBool::new(false),
        })
    }

    /// Restores the environment with this key to `to`, which must not exist yet. Waits for another podstrap that
    /// builds it, at most for half of the remaining time.
    pub(crate) async fn fetch(&self, key: &str, to: &Path, deadline: Deadline) -> Fetched {
        let until = Instant::now() + deadline.remaining() / 2;
        let (mut pause, mut seen, mut lease, mut is_first) = (PAUSES[0], None, None, true);
        loop {
            match self.restore(key, to, deadline, std::mem::take(&mut is_first)).await {
                Ok(Some(manifest)) => return Fetched::Restored(Box::new(manifest)),
                Ok(None) => {}
                // The next entry replaces it.
                Err(Unusable::Damaged(error)) => self.warn(&error),
                Err(Unusable::Failed(error)) => {
                    self.warn(&error);
                    return Fetched::Missing(None);
                }
            }
            if lease.is_some() || !self.is_writable() {
                return Fetched::Missing(lease);
            }
            let (place, name, known) = (self.place(), key.to_owned(), seen.take());
            let what = format!("cannot announce the build in the store {}", self.plan.dir.display());
            match self.bounded(LOOK, what, move || lease::take(&place.open()?, &name, known)).await {
                // Another podstrap may have finished since the look.
                Ok(Taken::Ours(ours)) => lease = Some(ours),
                Ok(Taken::By(_)) if Instant::now() >= until => {
                    tracing::warn!(
                        "another podstrap still builds this environment for the store: building it here too"
                    );
                    return Fetched::Missing(None);
                }
                Ok(Taken::By(other)) => {
                    if pause == PAUSES[0] {
                        tracing::info!("waiting for another podstrap, which builds this environment for the store");
                    }
                    seen = Some(other);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES[1]);
                }
                Err(error) => {
                    self.warn(&error);
                    return Fetched::Missing(None);
                }
            }
        }
    }

    /// Restores the entry with this key, if there is a good one. Only the first try says why there is none.
    async fn restore(
        &self,
        key: &str,
        to: &Path,
        deadline: Deadline,
        is_first: bool,
    ) -> Result<Option<Manifest>, Unusable> {
        let what = format!("cannot read the store {}", self.plan.dir.display());
        let (place, name, verifier) = (self.place(), key.to_owned(), self.verifier.clone());
        let found = self.bounded(LOOK, what.clone(), move || {
            let place = place.open()?;
            let Some(text) = place.manifest(&name)? else { return Ok(None) };
            Ok(Some(entry::open(&text, &name, verifier.as_deref())))
        });
        let shown = format!("the entry {} of the store {}", short(key), self.plan.dir.display());
        let manifest = match found.await.map_err(Unusable::Failed)? {
            None => return Ok(None),
            Some(Err(error)) => return Err(Unusable::Damaged(error.within(&shown))),
            Some(Ok(manifest)) => manifest,
        };
        if !manifest.is_fixed && manifest.age().is_none_or(|age| age > self.plan.max_age) {
            if is_first {
                tracing::info!("{shown} is older than --store-max-age: resolving its requirements again");
            }
            return Ok(None);
        }
        let limit = manifest.took().max(TRANSFER).min(deadline.remaining() / 2);
        // A thread that is given up may still write there.
        let beside = to.with_extension("restored");
        let (place, wanted, target, most) = (self.place(), manifest.clone(), beside.clone(), self.plan.size_limit);
        let unpacked = self.bounded(limit, what, move || {
            let place = place.open()?;
            place.touch(&wanted.key);
            Ok(place.unpack(&wanted, &target, most, Deadline::after(limit)))
        });
        match unpacked.await.map_err(Unusable::Failed)? {
            Ok(()) => {}
            Err(Unusable::Damaged(error)) if !self.is_writable() => {
                return Err(Unusable::Damaged(error.within(&shown)));
            }
            Err(Unusable::Damaged(error)) => {
                let (place, wanted) = (self.place(), manifest.clone());
                let discard = move || place.open()?.discard(&wanted);
                if let Err(error) = self.bounded(LOOK, "cannot delete the entry".to_owned(), discard).await {
                    tracing::debug!("{}", error.summary());
                }
                return Err(Unusable::Damaged(error.within(&shown)));
            }
            Err(Unusable::Failed(error)) => return Err(Unusable::Failed(error.within(&shown))),
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
        let limit = draft.took.max(TRANSFER).min(deadline.remaining() / 2);
        let what = format!("cannot save the environment in the store {}", self.plan.dir.display());
        let (place, venv, signer, most) = (self.place(), venv.to_owned(), self.signer.clone(), self.plan.limit);
        self.bounded(limit, what, move || {
            let place = place.open()?;
            let manifest = place.save(&draft, &venv, signer.as_deref(), Deadline::after(limit))?;
            // Replaced archives and the leftovers of killed runs are there without a limit too.
            match prune::prune(&place, most.unwrap_or(Size(u64::MAX))) {
                Ok(deleted) => tracing::debug!("deleted from the store: {deleted:?}"),
                Err(error) => tracing::debug!("{}", error.summary()),
            }
            Ok(manifest)
        })
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

    fn place(&self) -> Place {
        Place::new(&self.plan.dir)
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
    pub use super::entry::fuzz as store_entry;
}
