//! Many inits on one root at once, some of them killed. One builds, the others wait and show the same release;
//! a killed holder of the lock blocks no other run.
//!
//! `PODSTRAP_TEST_SEED` chooses the victims and the times, `PODSTRAP_TEST_ROUNDS` the number of rounds.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::support::kill::{kill_all, pause};
use crate::support::sandbox::Ran;
use crate::support::volume::{App, Known, SETUPS, Tree, copy, difference, names, seed, view};

/// The number of inits that start at once.
const INITS: usize = 16;
/// The longest acceptable wait for a lock that no process holds.
const PROMPT: Duration = Duration::from_mins(1);

#[test]
fn of_many_inits_at_once_one_builds() {
    for (round, mut rng) in rounds() {
        let (app, known, volume) = place(&mut rng);
        let fetched = app.fetched();
        let runs = at_once(&app, &known, &volume, &[(known.setup.link, "new"); INITS], &[None; INITS]);
        let what = format!("round {round}, {}, PODSTRAP_TEST_SEED={}", known.setup, seed());
        assert_eq!(built(&runs), 1, "{what}: {runs:#?}");
        assert_eq!(app.fetched() - fetched, 1, "{what}");
        known.assert_complete(&volume, &what);
    }
}

#[test]
fn of_many_inits_at_once_the_killed_ones_block_nobody() {
    for (round, mut rng) in rounds() {
        let (app, known, volume) = place(&mut rng);
        let fetched = app.fetched();
        let kills = kills(&mut rng, known.took);
        let runs = at_once(&app, &known, &volume, &[(known.setup.link, "new"); INITS], &kills);
        let killed = INITS - runs.len();
        let what = format!("round {round}, {}, PODSTRAP_TEST_SEED={}, {killed} killed", known.setup, seed());
        assert!(killed > 0, "{what}");
        assert!(built(&runs) <= 1, "{what}: {runs:#?}");
        let fetched = app.fetched() - fetched;
        assert!((1..=1 + killed).contains(&fetched), "{what}: fetched {fetched} times");
        println!("{what}: fetched {fetched} times");
        // A killed init may have left files; the next one clears them.
        prompt(&app, &known, &volume, known.setup.link, "new", &what);
        known.assert_complete(&volume, &what);
    }
}

#[test]
fn inits_of_many_links_share_a_root_though_some_are_killed() {
    const LINKS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    for (round, mut rng) in rounds() {
        let app = App::new();
        let known = Known::new(&app, SETUPS[7]);
        let volume = app.place(known.setup).join("volume");
        std::fs::create_dir(&volume).unwrap();
        let branch = |link: usize| if link.is_multiple_of(2) { "old" } else { "new" };
        let inits: Vec<_> = (0..INITS).map(|number| (Some(LINKS[number / 2]), branch(number / 2))).collect();
        let kills = kills(&mut rng, known.took);
        let runs = at_once(&app, &known, &volume, &inits, &kills);
        let what = format!("round {round}, PODSTRAP_TEST_SEED={}, {} killed", seed(), INITS - runs.len());
        for (link, name) in LINKS.iter().enumerate() {
            prompt(&app, &known, &volume, Some(name), branch(link), &what);
        }
        // One release for each branch, whichever init built it.
        assert_eq!(names(&volume.join(".podstrap/releases")).len(), 2, "{what}");
        assert_eq!(names(&volume.join(".podstrap/staging")).len(), 0, "{what}");
        let seen = view(&volume);
        for (link, name) in LINKS.iter().enumerate() {
            let below = |tree: &Tree, top: &str| -> Tree {
                let paths = tree.iter().filter_map(|(path, what)| Some((path.strip_prefix(top).ok()?, what)));
                paths.map(|(path, what)| (path.to_owned(), what.clone())).collect()
            };
            let wanted = below(if branch(link) == "old" { &known.old } else { &known.new }, "app");
            let found = below(&seen, name);
            assert!(wanted == found, "{what}, {name}:\n{}", difference(&wanted, &found));
        }
    }
}

/// The seeded rounds; one by default.
fn rounds() -> impl Iterator<Item = (u64, Rng)> {
    let rounds = std::env::var("PODSTRAP_TEST_ROUNDS").map_or(1, |text| text.parse().unwrap());
    (0..rounds).map(|round| (round, Rng::with_seed(seed() + round)))
}

/// An app with a random setup, and its volume before the run.
fn place(rng: &mut Rng) -> (App, Known, PathBuf) {
    let app = App::new();
    let known = Known::new(&app, *rng.choice(&SETUPS).unwrap());
    let volume = app.place(known.setup).join("volume");
    copy(&known.before, &volume);
    (app, known, volume)
}

/// Times at which half of the inits are killed, during the first build and the next ones.
fn kills(rng: &mut Rng, took: Duration) -> [Option<Duration>; INITS] {
    let mut kills: [_; INITS] =
        std::array::from_fn(|number| number.is_multiple_of(2).then(|| took.mul_f64(2.0 * rng.f64())));
    rng.shuffle(&mut kills);
    kills
}

/// Starts inits for all of these links and branches at once and kills those that have a time. Returns the results
/// of the others, which must have succeeded.
fn at_once(
    app: &App,
    known: &Known,
    root: &Path,
    inits: &[(Option<&str>, &str)],
    kills: &[Option<Duration>],
) -> Vec<Ran> {
    let start = Instant::now();
    let started: Vec<Child> = inits
        .iter()
        .map(|(link, branch)| {
            let mut command = app.init(known.setup.engine, branch, root, *link);
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let runs: Vec<_> = std::thread::scope(|scope| {
        let watch = |mut child: Child, kill: Option<Duration>| {
            if let Some(at) = kill {
                pause(at.saturating_sub(start.elapsed()));
                kill_all(&mut child);
            }
            app.sandbox.ran(&child.wait_with_output().unwrap())
        };
        let watched: Vec<_> =
            started.into_iter().zip(kills).map(|(child, kill)| scope.spawn(move || watch(child, *kill))).collect();
        watched.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    // Some inits finished before their time.
    let survivors: Vec<_> =
        runs.into_iter().zip(kills).filter(|(ran, kill)| kill.is_none() || ran.code.is_some()).collect();
    for (ran, _) in &survivors {
        assert_eq!(ran.code, Some(0), "{}", ran.raw);
    }
    survivors.into_iter().map(|(ran, _)| ran).collect()
}

/// The number of inits that built a release.
fn built(runs: &[Ran]) -> usize {
    runs.iter().filter(|ran| ran.raw.contains(" built ")).count()
}

/// Runs once more, which must succeed without a long wait for the lock.
fn prompt(app: &App, known: &Known, root: &Path, link: Option<&str>, branch: &str, what: &str) {
    let start = Instant::now();
    let ran = app.sandbox.run(&mut app.init(known.setup.engine, branch, root, link));
    assert_eq!(ran.code, Some(0), "{what}: {}", ran.raw);
    assert!(start.elapsed() < PROMPT, "{what}: {}", ran.raw);
}
