//! `podstrap sidecar --repo`: follows a reference. podstrap builds each new commit beside the release that serves, tries it
//! in the Unit that will serve it, and only then lets it serve.
//!
//! ```text
//! resolve ── new commit ──▶ prepare ──▶ check ──▶ canary ──▶ apply, probe ──▶ switch the links ──▶ watch
//!    ▲                         │          │          │            │                                  │
//!    └─────────────────────────┴──────────┴──────────┴────────────┴─── the former release serves ◀───┘
//! ```
//!
//! The configuration in Unit names the release: an old process that imports late stays in its own release, and the change of
//! the paths is what makes Unit load the new one. Between two looks, the sidecar keeps this configuration in Unit, as it
//! does without `--repo`.
//!
//! | file | purpose |
//! |---|---|
//! | `state` | what the sidecar remembers on the volume |
//! | `order` | `podstrap rollback` and `resume` |
//! | `server`, `webhook`, `metrics` | the HTTP server |
//! | `hook` | tells another program of each release |

mod hook;
mod metrics;
mod order;
mod server;
mod state;
mod webhook;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::SignalKind;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep_until};

use crate::check;
use crate::config::localize::Mapping;
use crate::error::{Error, IoContext, Kind, Result};
use crate::files;
use crate::http;
use crate::plan::{self, Target, Tree};
use crate::prepare::{Prepared, prepare};
use crate::retry::Deadline;
use crate::runtime::listen;
use crate::source;
use crate::telemetry::Phases;
use crate::unit::{Reader, Setup, Sidecar, Told};
use crate::venv::EnvironmentRecord;
use crate::volume::{Notes, Release, Volume};

pub use order::{Order, give};
pub use state::{State, status};

use server::Board;
use state::{ROLLBACK, Refused, STATE, Serving, WATCH, now, shown};

/// The longest pause after looks that fail, in periods.
const LONGEST: u32 = 16;
/// Between two checks if no Unit is configured.
const TICK: Duration = Duration::from_secs(1);
/// Time for one answer while a release is watched, and the failures in a row after which the release before comes back.
const ANSWER: Duration = Duration::from_secs(2);
const FAILURES: u32 = 3;
/// Time for Unit to show its configuration.
const CONFIGURED: Duration = Duration::from_secs(1);
/// Time limit to get the volume's lock for a return.
const LOCK: Duration = Duration::from_mins(1);
/// The lock that a sidecar holds while it runs.
const CLAIM: &str = "follow.lock";

/// A sidecar that follows.
struct Follow {
    plan: plan::Follow,
    target: Target,
    unit: Option<Sidecar>,
    notes: Notes,
    _claim: File,
    state: State,
    /// The state that is on the volume, and why the last one is not: logged once.
    saved: State,
    unsaved: Option<String>,
    /// The release that serves first, then those before it.
    releases: Vec<Release>,
    /// When releases stopped serving, or left the list above. The last requests of the former may still run.
    left: Vec<(String, Instant)>,
    /// When to try a refused commit again whose cause may pass, and the files of the configuration at its failure.
    again: Option<Instant>,
    stamp: Option<u64>,
    watch: Option<Watch>,
    /// Looks that failed in a row.
    failures: u32,
    /// The commit whose release was built again, because it had lost files.
    mended: Option<String>,
    /// The commit in whose trial Unit ended.
    fatal: Option<String>,
    /// Whether a look since the start found the reference.
    has_looked: bool,
    board: Arc<Board>,
    /// The POST to the hook.
    hook: JoinSet<()>,
    told: Told,
}

/// A release that has just begun to serve.
struct Watch {
    until: Instant,
    failures: u32,
}

/// The result of one look at the reference.
enum Look {
    /// The Git server did not say its commit.
    Failed(Error),
    /// There is nothing to do for this commit.
    Same(String),
    /// It is another commit, or the release that serves has lost files.
    New { commit: String, is_damaged: bool, built: Result<Box<Built>> },
}

struct Built {
    volume: Volume,
    release: Release,
    took: Duration,
}

/// A failed step.
type Failed = (&'static str, Error);

/// What a check asks for.
enum Next {
    Pause(Duration),
    /// Go back, for this reason.
    Return(Failed),
    Ordered(Order),
}

/// Follows until it is dropped. `told` publishes why the newest commit does not serve; empty if it does.
///
/// # Errors
/// Usage: a flag or a file at the start. Volume: it is unusable, or another sidecar follows on it. Later failures are only
/// logged.
pub async fn run(plan: plan::Follow, unit: Option<Sidecar>, told: Told) -> Result<()> {
    LocalSet::new().run_until(Box::pin(follow(plan, unit, told))).await
}

async fn follow(plan: plan::Follow, unit: Option<Sidecar>, told: Told) -> Result<()> {
    let init = plan.init()?;
    if let Some(file) = &init.source.ca_file {
        http::trust(file)?;
    }
    let notes = Notes::open(&init.target.root)?;
    let claim = notes.claim(CLAIM)?;
    notes.tidy(STATE);
    let longest = plan.unit.as_ref().map_or(Duration::ZERO, |unit| unit.timeout);
    let board = Arc::new(Board::new(plan.secret.clone(), longest * 4 + LOCK * 2));
    if let Some(address) = plan.http {
        server::start(address, Arc::clone(&board)).await?;
    }
    let mut hangup = listen(SignalKind::hangup())?;
    let mut follow = Follow {
        target: init.target,
        unit,
        state: State::read(&notes)?.unwrap_or_default(),
        saved: State::default(),
        unsaved: None,
        notes,
        _claim: claim,
        releases: Vec::new(),
        left: Vec::new(),
        again: None,
        stamp: None,
        watch: None,
        failures: 0,
        mended: None,
        fatal: None,
        has_looked: false,
        board,
        hook: JoinSet::new(),
        told,
        plan,
    };
    follow.resume().await?;
    // At most one look, which goes on during a check.
    let (mut look, mut next, mut check) = (JoinSet::new(), Instant::now(), Instant::now());
    // Whether somebody asked for a look during one.
    let mut asked = false;
    loop {
        follow.board.live();
        if look.is_empty() && Instant::now() >= next {
            asked = false;
            look.spawn_local(follow.look()?);
        }
        let board = Arc::clone(&follow.board);
        tokio::select! {
            Some(found) = look.join_next() => {
                let found = found.unwrap_or_else(|error| Look::Failed(Error::internal("a look ended").because(error)));
                let pause = follow.arrived(found).await;
                next = Instant::now() + if asked { Duration::ZERO } else { pause };
            }
            () = sleep_until(next), if look.is_empty() => {}
            () = sleep_until(check) => {
                let pause = match follow.check().await {
                    Next::Pause(pause) => pause,
                    // A look may hold the volume's lock.
                    Next::Return(why) => {
                        look.shutdown().await;
                        // It is logged, and the watch goes on.
                        let _ = follow.give_up(why).await;
                        Duration::ZERO
                    }
                    Next::Ordered(order) => {
                        if order == Order::Rollback {
                            look.shutdown().await;
                        }
                        follow.obey(order).await;
                        (next, asked) = (Instant::now(), true);
                        Duration::ZERO
                    }
                };
                check = Instant::now() + pause;
            }
            _ = hangup.recv() => (next, asked) = (follow.hurry(), true),
            () = board.woken.notified() => (next, asked) = (follow.hurry(), true),
        }
    }
}

impl Follow {
    /// Continues with the release that serves: Unit's configuration names it, or else the links do.
    async fn resume(&mut self) -> Result<()> {
        // The flags may be others now. A release that served and failed must not serve again by a restart.
        if self.state.refused.as_ref().is_some_and(|refused| !refused.has_served()) {
            self.state.refused = None;
        }
        let volume = Volume::lock(&self.target, Deadline::after(LOCK)).await?;
        let mut serving = volume.published(&self.target)?;
        if !volume.is_new()?
            && let Some(unit) = &self.unit
            && let Some(texts) = unit.configured(CONFIGURED).await
            && let Some(id) = texts.iter().find_map(|text| volume.id_of(text))
            && let Some(release) = volume.release(id)?
        {
            serving = Some(release);
        }
        let Some(release) = serving else {
            self.state.serving = None;
            return self.save();
        };
        if let Err(error) = self.unit_serves(&volume, &release) {
            tracing::error!("Unit keeps what it has: {}", error.told());
        }
        volume.vouch(&release).await?;
        volume.switch(&release, &self.target)?;
        let mut former = Vec::new();
        let before = self.state.serving.as_ref().map(|serving| serving.release.clone());
        for id in before.iter().chain(&self.state.former).filter(|id| **id != release.id) {
            former.extend(volume.release(id)?);
        }
        // A kill may have come before the release proved itself.
        let since = self.state.serving.as_ref().filter(|serving| serving.release == release.id).map(Serving::age);
        let must_prove = since.is_none_or(|age| age < self.plan.watch) && !former.is_empty();
        self.took_over(release, former);
        if must_prove {
            self.watch();
        } else {
            self.proved();
        }
        let serving = self.state.serving.as_ref().map(|now| shown(&now.commit, now.reference.as_ref()));
        tracing::info!("{} serves, as before", serving.unwrap_or_default());
        // A kill may have come before the hook knew.
        self.tell();
        self.save()
    }

    /// Records which release serves, and those before it.
    fn took_over(&mut self, release: Release, former: Vec<Release>) {
        if self.state.serving.as_ref().is_none_or(|serving| serving.release != release.id) {
            let before = self.state.serving.replace(Serving::new(&release));
            self.left.extend(before.map(|serving| (serving.release, Instant::now())));
        }
        self.releases = former;
        self.releases.insert(0, release);
        self.trim();
    }

    /// Keeps as many releases as the plan says, and the last one that passed its watch, which a failed watch needs.
    fn trim(&mut self) {
        let proven = self.proven();
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.releases)
            .into_iter()
            .enumerate()
            .partition(|(number, _)| *number < self.plan.keep || proven == Some(*number));
        self.releases = kept.into_iter().map(|(_, release)| release).collect();
        self.left.extend(gone.into_iter().map(|(_, release)| (release.id, Instant::now())));
        self.state.former = self.releases.iter().skip(1).map(|release| release.id.clone()).collect();
    }

    /// Where the last release that passed its watch is among the releases.
    fn proven(&self) -> Option<usize> {
        self.releases.iter().position(|release| Some(&release.id) == self.state.proven.as_ref())
    }

    /// The release that serves has passed its watch.
    fn proved(&mut self) {
        self.watch = None;
        self.state.proven = self.releases.first().map(|release| release.id.clone());
        self.trim();
    }

    /// Writes the state to the volume if it changed, and shows it.
    fn save(&mut self) -> Result<()> {
        if self.state == self.saved {
            return Ok(());
        }
        self.board.show(&self.state);
        let why = self.state.refused.as_ref().map_or_else(String::new, |refused| {
            format!("podstrap: {} does not serve: {}: {}", refused.commit, refused.step, refused.why)
        });
        (self.told)(&why);
        self.state.write(&self.notes)?;
        self.saved = self.state.clone();
        Ok(())
    }

    fn keep(&mut self) {
        let unsaved = self.save().err();
        let summary = unsaved.as_ref().map(Error::summary);
        if let (Some(error), true) = (unsaved, summary != self.unsaved) {
            tracing::warn!("{}", error.told());
        }
        self.unsaved = summary;
    }

    /// The configuration of a release, with its paths.
    fn reader(&self, tree: &Path) -> Result<Reader> {
        let listing = files::list(tree).on_volume(|| format!("cannot list {}", tree.display()))?;
        let names = listing.into_iter().map(|(name, _)| name).collect();
        let release = Mapping::new(self.target.public(), tree.to_owned()).only(names);
        Ok(Reader { from: self.config(tree), release: Some(release) })
    }

    fn config(&self, tree: &Path) -> PathBuf {
        match (&self.plan.config, &self.plan.unit) {
            (Some(path), _) => tree.join(path.as_path()),
            (None, Some(unit)) => unit.config.clone(),
            (None, None) => PathBuf::new(),
        }
    }

    /// Lets the next check apply a release.
    fn unit_serves(&mut self, volume: &Volume, release: &Release) -> Result<()> {
        let reader = self.reader(&volume.tree(release))?;
        self.unit.as_mut().map_or(Ok(()), |unit| unit.serve(reader))
    }

    /// Asks for the reference, and builds its release if it is new.
    fn look(&mut self) -> Result<impl Future<Output = Look> + use<>> {
        let init = self.plan.init()?;
        let serving = self.releases.first().cloned();
        let id = serving.as_ref().map(|serving| serving.id.clone());
        // The next look is the next try.
        let deadline = if serving.is_some() { init.deadline.once() } else { init.deadline };
        let is_first_look = !self.has_looked;
        // An app that deletes its own files would do it again.
        let mended = self.mended.clone();
        let stamp = self.stamp();
        let is_same = self.stamp == stamp && self.again.is_none_or(|again| Instant::now() < again);
        let is_final = |refused: &&Refused| refused.has_served() || is_same;
        let refused = self.state.refused.as_ref().filter(is_final).map(|refused| refused.commit.clone());
        self.stamp = stamp;
        Ok(async move {
            let scratch = || Err(Error::internal("a Git repository needs no scratch directory"));
            let commit = match source::resolve(&init.source, None, &scratch, init.size_limit, deadline).await {
                Ok(resolved) => resolved.revision.commit,
                Err(error) => return Look::Failed(error),
            };
            let is_refused = refused.as_ref() == Some(&commit);
            let serving = serving.filter(|serving| serving.manifest.source.revision.commit == commit);
            let is_damaged = match &serving {
                // The flags or the image may be others since the restart: the key of the release tells.
                _ if is_first_look => false,
                Some(release) if !is_refused && mended.as_ref() != Some(&commit) => !is_whole(&init, release).await,
                _ => false,
            };
            if is_refused || serving.is_some() && !is_damaged && !is_first_look {
                return Look::Same(commit);
            }
            if serving.is_none() {
                tracing::info!("new commit {commit}");
            }
            match Box::pin(build(&init)).await {
                Ok(built) if Some(&built.release.id) == id.as_ref() => Look::Same(commit),
                built => Look::New { commit, is_damaged, built: built.map(Box::new) },
            }
        })
    }

    /// The files of the configuration outside the tree.
    fn stamp(&self) -> Option<u64> {
        self.unit.as_ref().filter(|_| self.plan.config.is_none()).map(Sidecar::stamp)
    }

    /// Uses what a look found. Returns the time until the next one.
    async fn arrived(&mut self, look: Look) -> Duration {
        let period = self.plan.period.mul_f64(fastrand::f64().mul_add(0.4, 0.8));
        match look {
            Look::Failed(error) => {
                self.failures = (self.failures * 2).clamp(1, LONGEST);
                self.board.metrics.round("failed");
                self.board.metrics.failed("resolve");
                if self.state.look.replace(error.summary()) != Some(error.summary()) {
                    tracing::warn!("{}", error.told());
                }
                self.keep();
                period * self.failures
            }
            Look::Same(commit) => {
                self.sees(&commit);
                self.failures = 0;
                // The reference went back to what serves.
                if self.state.refused.as_ref().is_some_and(|refused| refused.commit != commit) {
                    self.state.refused = None;
                }
                self.board.metrics.round("unchanged");
                self.keep();
                if self.left.iter().any(|(_, at)| at.elapsed() >= self.plan.watch)
                    && let Ok(volume) = Volume::lock(&self.target, Deadline::after(CONFIGURED)).await
                {
                    self.retain(&volume).await;
                }
                period
            }
            Look::New { commit, is_damaged, built } => {
                self.sees(&commit);
                let offered = match built {
                    Ok(built) => self.offer(*built).await,
                    Err(error) => Err(("prepare", error)),
                };
                if let Err(failed) = offered {
                    self.failures = (self.failures * 2).clamp(1, LONGEST);
                    self.board.metrics.round("failed");
                    let pause = period * self.failures;
                    self.refuse(commit, failed, pause);
                    self.keep();
                    return if self.again.is_some() { pause } else { period };
                }
                self.failures = 0;
                if is_damaged {
                    self.board.metrics.rebuilds();
                    self.mended = Some(commit);
                }
                self.board.metrics.round("served");
                self.keep();
                period
            }
        }
    }

    /// Records the commit of the reference.
    fn sees(&mut self, commit: &str) {
        self.state.look = None;
        self.has_looked = true;
        self.state.wanted = Some(commit.to_owned());
    }

    /// Records why a commit does not serve.
    fn refuse(&mut self, commit: String, (step, error): Failed, pause: Duration) {
        // A release may crash Unit in its trial, and then it would each time; but somebody else may have ended Unit.
        let ends_unit = step == "canary" && error.kind() == Kind::UnitUnreachable;
        let is_fatal = ends_unit && self.fatal.replace(commit.clone()).as_ref() == Some(&commit);
        // A volume may have room again as soon as an old release is gone.
        let passes = !is_fatal
            && (error.is_unreachable()
                || matches!(error.kind(), Kind::UnitUnreachable | Kind::Volume | Kind::Internal));
        self.board.metrics.failed(step);
        tracing::error!("{commit} does not serve, step {step}: {}", error.told());
        self.again = passes.then(|| Instant::now() + pause);
        self.state.refused =
            Some(Refused { commit, step: step.to_owned(), why: error.summary(), since: now(), passes });
    }

    /// Lets Unit serve a release if it works.
    async fn offer(&mut self, built: Built) -> Result<(), Failed> {
        let Built { volume, release, took } = built;
        self.board.metrics.took("prepare", took);
        let started = Instant::now();
        let offered = self.go_over(&volume, &release).await;
        self.board.metrics.took("serve", started.elapsed());
        let had_former = match offered {
            Ok(had_former) => had_former,
            Err(failed) => {
                self.retain(&volume).await;
                return Err(failed);
            }
        };
        let mut former = std::mem::take(&mut self.releases);
        // A damaged one that was built again.
        former.retain(|former| former.manifest.key != release.manifest.key);
        self.took_over(release, former);
        if had_former {
            self.watch();
        } else {
            self.proved();
        }
        (self.state.refused, self.again) = (None, None);
        if let Some(serving) = &self.state.serving {
            tracing::info!("{} serves", shown(&serving.commit, serving.reference.as_ref()));
        }
        self.tell();
        self.keep();
        self.retain(&volume).await;
        Ok(())
    }

    /// Watches the release that serves from now on.
    fn watch(&mut self) {
        if self.plan.watch.is_zero() {
            return self.proved();
        }
        self.watch = Some(Watch { until: Instant::now() + self.plan.watch, failures: 0 });
    }

    /// Tells the hook which release serves.
    fn tell(&mut self) {
        if let (Some(url), Some(serving), Ok(init)) = (&self.plan.hook, &self.state.serving, self.plan.init()) {
            // What the hook does not know yet is no longer true.
            self.hook.abort_all();
            self.hook.spawn(hook::send(url.clone(), hook::body(&init, serving)));
            while self.hook.try_join_next().is_some() {}
        }
    }

    /// Checks, tries and applies a release, and switches the links. Returns whether Unit served another one before.
    async fn go_over(&mut self, volume: &Volume, release: &Release) -> Result<bool, Failed> {
        let tree = volume.tree(release);
        self.check_release(volume, release, &tree).map_err(|error| ("check", error))?;
        volume.vouch(release).await.map_err(|error| ("prepare", error))?;
        let reader = self.reader(&tree).map_err(|error| ("check", error))?;
        let is_first = self.releases.is_empty();
        match &mut self.unit {
            // Unit may not even run.
            Some(unit) if is_first => unit.serve(reader).map_err(|error| ("check", error))?,
            Some(unit) => {
                let record = volume.record(release);
                unit.replace(reader, self.plan.canary.then_some(record.as_path())).await?;
            }
            None => {}
        }
        if let Err(error) = volume.switch(release, &self.target) {
            let former = self.releases.first().map(|former| self.reader(&volume.tree(former)));
            if let (Some(Ok(reader)), Some(unit)) = (former, &mut self.unit)
                && let Err((_, error)) = unit.replace(reader, None).await
            {
                tracing::warn!("{}", error.told());
            }
            return Err(("publish", error));
        }
        Ok(!is_first && self.unit.is_some())
    }

    /// Checks that the links have room, and that the configuration fits the tree.
    fn check_release(&self, volume: &Volume, release: &Release, tree: &Path) -> Result<()> {
        volume.check(&self.target, Some(tree))?;
        if self.unit.is_none() {
            return Ok(());
        }
        let environment = release.manifest.environment.as_ref();
        if let Some(package) = environment.and_then(EnvironmentRecord::editable) {
            return Err(Error::usage(format!("the release has the editable project {}", package.name))
                .because("the app would import its code from the release that the links show, not from its own")
                .hint("install it without -e"));
        }
        let named = Tree {
            dir: tree.to_owned(),
            venv: environment.map_or_else(|| "venv".into(), |record| record.venv.clone()),
            final_path: Some(self.target.public()),
        };
        match Setup::read(&self.config(tree), "/config")?.config {
            Some(config) => check::refuse(&config, &named),
            None => Ok(()),
        }
    }

    /// Deletes old releases, but none that Unit's configuration names, or whose last requests may still run.
    async fn retain(&mut self, volume: &Volume) {
        let mut ids: Vec<&str> = self.releases.iter().map(|release| release.id.as_str()).collect();
        let watch = self.plan.watch;
        ids.extend(self.left.iter().filter(|(_, at)| at.elapsed() < watch).map(|(id, _)| id.as_str()));
        let texts = match &self.unit {
            Some(unit) => unit.configured(CONFIGURED).await,
            None => Some(Vec::new()),
        };
        let Some(texts) = texts else { return };
        ids.extend(texts.iter().filter_map(|text| volume.id_of(text)));
        volume.retain(0, &ids).await;
        self.left.retain(|(_, at)| at.elapsed() < watch);
    }

    /// Keeps the configuration in Unit, watches a new release, and looks for orders.
    async fn check(&mut self) -> Next {
        match Order::waiting(&self.notes) {
            Ok(Some(order)) => return Next::Ordered(order),
            Ok(None) => {}
            Err(error) => tracing::warn!("{}", error.told()),
        }
        let Some(unit) = &mut self.unit else { return Next::Pause(TICK) };
        if self.releases.is_empty() {
            return Next::Pause(TICK);
        }
        let pause = unit.tick().await;
        self.board.metrics.saw(unit.seen());
        let Some(watch) = &mut self.watch else { return Next::Pause(pause) };
        // What fails at the end may be the first sign.
        if Instant::now() >= watch.until && watch.failures == 0 {
            self.proved();
            self.keep();
            return Next::Pause(pause);
        }
        match unit.answers(ANSWER).await {
            Ok(()) => watch.failures = 0,
            // It is Unit that does not answer.
            Err(_) if !unit.seen().answers => {}
            Err(error) => {
                watch.failures += 1;
                if watch.failures >= FAILURES {
                    return Next::Return((WATCH, error));
                }
            }
        }
        Next::Pause(pause)
    }

    /// Lets the release before serve again, and refuses the one that served.
    ///
    /// # Errors
    /// It still serves: the volume is locked or unusable, or the configuration is unreadable.
    async fn give_up(&mut self, why: Failed) -> Result<()> {
        self.watch = None;
        let failed = self.releases.first().map(|failed| failed.manifest.source.revision.commit.clone());
        let failed = failed.unwrap_or_default();
        if self.releases.len() < 2 {
            tracing::error!("there is no release before: {}", why.1.told());
            return Ok(());
        }
        let (is_watched, before) = (why.0 == WATCH, self.state.refused.clone());
        // A person does not want the commit of the reference either, which may have failed for another reason.
        let wanted = self.state.wanted.clone().filter(|_| !is_watched);
        self.refuse(wanted.unwrap_or(failed), why, Duration::ZERO);
        // The same commit would fail in the same way.
        self.again = None;
        // First, so that a restart does not offer it again.
        self.keep();
        let target = if is_watched { self.proven().filter(|number| *number > 0).unwrap_or(1) } else { 1 };
        if let Err(error) = self.go_back(target).await {
            tracing::error!("cannot go back: {}", error.told());
            self.state.refused = before;
            // Try again, if it still fails.
            if is_watched {
                self.watch();
            }
            self.keep();
            return Err(error);
        }
        self.board.metrics.rolled_back();
        self.tell();
        self.keep();
        if let Ok(volume) = Volume::lock(&self.target, Deadline::after(CONFIGURED)).await {
            self.retain(&volume).await;
        }
        Ok(())
    }

    /// Serves an earlier release.
    async fn go_back(&mut self, target: usize) -> Result<()> {
        let volume = Volume::lock(&self.target, Deadline::after(LOCK)).await?;
        let mut former = self.releases[target..].to_vec();
        let release = former.remove(0);
        let reader = self.reader(&volume.tree(&release))?;
        if let Some(unit) = &mut self.unit {
            // Nothing may change if it is unreadable.
            reader.read()?;
            if let Err((_, error)) = unit.replace(reader.clone(), None).await {
                tracing::warn!("{}", error.told());
                // The next check applies it.
                unit.serve(reader)?;
            }
        }
        volume.switch(&release, &self.target)?;
        self.took_over(release, former);
        if let Some(serving) = &self.state.serving {
            tracing::info!("{} serves again", shown(&serving.commit, serving.reference.as_ref()));
        }
        Ok(())
    }

    async fn obey(&mut self, order: Order) {
        let failed = match order {
            Order::Rollback if self.releases.len() < 2 => Some("there is no release before".to_owned()),
            Order::Rollback => {
                let why = Error::new(Kind::Interrupted(0), "podstrap rollback")
                    .hint("`podstrap resume` lets the newest commit serve again");
                self.give_up((ROLLBACK, why)).await.err().map(|error| error.summary())
            }
            Order::Resume => {
                tracing::info!("podstrap resume: every commit may serve again");
                (self.state.refused, self.again) = (None, None);
                self.keep();
                None
            }
        };
        if let Err(error) = Order::answer(&self.notes, failed) {
            tracing::warn!("{}", error.told());
        }
    }

    /// Forgets pauses: somebody asked for a look.
    fn hurry(&mut self) -> Instant {
        self.failures = 0;
        if self.again.is_some() {
            self.again = Some(Instant::now());
        }
        Instant::now()
    }
}

/// Builds the release of the reference, or finds it on the volume.
async fn build(init: &plan::Init) -> Result<Built> {
    let started = Instant::now();
    let volume = Volume::lock(&init.target, init.deadline).await?;
    volume.check(&init.target, None)?;
    match Box::pin(prepare(init, &volume, &Phases::default(), init.deadline)).await? {
        Prepared::Built(release, _) | Prepared::Found(release) => {
            Ok(Built { volume, release, took: started.elapsed() })
        }
        Prepared::Stored(_) => Err(Error::internal("the environment was only stored")),
    }
}

/// Whether a release that serves still has its files. If another podstrap works on the volume, the next look checks it.
async fn is_whole(init: &plan::Init, release: &Release) -> bool {
    match Volume::lock(&init.target, Deadline::after(CONFIGURED)).await {
        Ok(volume) => volume.is_whole(release).unwrap_or_default(),
        Err(_) => true,
    }
}
