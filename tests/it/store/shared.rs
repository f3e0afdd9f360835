//! Many Pods use one store at once, and some of them die.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Bench, venv, warnings};
use crate::support::kill::kill_all;

/// Pods that start at once.
const PODS: usize = 8;

fn piped(command: &mut Command) -> &mut Command {
    command.stdout(Stdio::piped()).stderr(Stdio::piped())
}

#[test]
fn of_many_pods_at_once_one_builds() {
    let bench = Bench::new();
    let before = bench.app.index.bytes();
    bench.run(&mut bench.app.init("uv", "old", &bench.root("alone"), None));
    let one = bench.app.index.bytes() - before;
    let pods: Vec<_> =
        (0..PODS).map(|pod| piped(&mut bench.init("uv", &format!("pod-{pod}"))).spawn().unwrap()).collect();
    let runs: Vec<_> = pods.into_iter().map(|pod| bench.app.sandbox.ran(&pod.wait_with_output().unwrap())).collect();
    for ran in &runs {
        assert_eq!(ran.code, Some(0), "{}", ran.raw);
        assert!(warnings(ran).is_empty(), "{}", ran.raw);
    }
    let built = runs.iter().filter(|ran| !ran.raw.contains("from the store")).count();
    assert_eq!(built, 1, "{runs:#?}");
    let all = bench.app.index.bytes() - before - one;
    // uv breaks off a request that it no longer needs, so two builds can differ by some bytes.
    assert!(all < one + one / 2, "all of them need the index about as often as one: {all} bytes and {one}");
    assert!(runs.iter().any(|ran| ran.raw.contains("waiting for another podstrap")), "{runs:#?}");
    assert_eq!((bench.files(".json").len(), bench.files(".tar.zst").len(), bench.files(".lease").len()), (1, 1, 0));
    assert!(bench.files(".tmp").is_empty());
}

#[test]
fn a_dead_builder_keeps_nobody_for_long() {
    let bench = Bench::new();
    let mut victim = piped(&mut bench.init("pip", "victim")).spawn().unwrap();
    let until = Instant::now() + Duration::from_mins(1);
    while bench.files(".lease").is_empty() {
        assert!(Instant::now() < until, "the victim takes no lease");
        std::thread::sleep(Duration::from_millis(1));
    }
    kill_all(&mut victim);
    assert_eq!(bench.files(".lease").len(), 1, "a killed process leaves its lease");
    let started = Instant::now();
    let ran = bench.builds(&mut bench.init("uv", "other"));
    // Another engine has another key, so there is nobody to wait for.
    assert!(!ran.raw.contains("waiting"), "{}", ran.raw);
    let ran = bench.builds(&mut bench.init("pip", "one"));
    assert!(ran.raw.contains("waiting for another podstrap"), "{}", ran.raw);
    assert!(started.elapsed() < Duration::from_secs(45), "{:?}", started.elapsed());
    assert!(bench.files(".lease").is_empty());
    bench.restores(&mut bench.init("pip", "two"));
}

#[test]
fn kills_at_any_time_leave_no_wrong_entry() {
    let bench = Bench::new();
    let mut rng = fastrand::Rng::with_seed(crate::support::volume::seed());
    let started = Instant::now();
    bench.builds(&mut bench.init("uv", "first"));
    let took = started.elapsed();
    let wanted = super::restore::files(&venv(&bench.app.sandbox.path("first")));
    for round in 0..8 {
        for file in bench.files("") {
            if rng.bool() {
                fs::remove_file(file).unwrap();
            }
        }
        let pods: Vec<_> =
            (0..3).map(|pod| piped(&mut bench.init("uv", &format!("{round}-{pod}"))).spawn().unwrap()).collect();
        std::thread::sleep(took.mul_f64(rng.f64() * 1.5));
        for mut pod in pods {
            kill_all(&mut pod);
        }
        // Otherwise the next run waits for each dead builder.
        bench.files(".lease").iter().for_each(|file| fs::remove_file(file).unwrap());
        let name = format!("after-{round}");
        let ran = bench.run(&mut bench.init("uv", &name));
        let found = super::restore::files(&venv(&bench.app.sandbox.path(&name)));
        let differ: Vec<_> = wanted
            .iter()
            .filter(|(name, (mode, _, contents))| {
                // A rebuild has other times.
                found.get(*name).is_none_or(|(other, _, found)| (mode, contents) != (other, found))
            })
            .map(|(name, _)| name)
            .collect();
        assert!(differ.is_empty() && wanted.len() == found.len(), "{differ:?}\n{}", ran.raw);
        // An archive without its manifest is no damage, but a manifest without its archive is.
        assert!(warnings(&ran).iter().all(|line| line.contains("it is missing")), "{}", ran.raw);
    }
}
