//! A volume that is full, has no free inodes, becomes read-only, or has a directory that loses its write
//! permission. `init` succeeds, or exits with 5 and names the cause; the published release stays. A rerun without
//! the fault completes the volume.
//!
//! `PODSTRAP_TEST_SEED` chooses sizes and times, `PODSTRAP_TEST_FAULTS` the number of runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use fastrand::Rng;

use crate::support::namespaces::namespaced;
use crate::support::sandbox::Ran;
use crate::support::volume::{App, Known, SETUPS, Setup, seed};

#[test]
fn a_full_or_unwritable_volume_is_said_to_be_so_and_a_rerun_with_room_completes_it() {
    faults(&[SETUPS[0], SETUPS[7]], 10);
}

#[test]
#[ignore = "takes minutes: just faults"]
fn hundreds_of_full_or_unwritable_volumes_are_said_to_be_so_and_reruns_with_room_complete_them() {
    let number = std::env::var("PODSTRAP_TEST_FAULTS").map_or(320, |text| text.parse().unwrap());
    faults(&SETUPS, number);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Bytes,
    Inodes,
    ReadOnly,
    /// The same, at a random time of the run.
    TurnsReadOnly,
    Unwritable,
}

impl Fault {
    const ALL: [Self; 5] = [Self::Bytes, Self::Inodes, Self::ReadOnly, Self::TurnsReadOnly, Self::Unwritable];

    fn title(self) -> &'static str {
        match self {
            Self::Bytes => "full",
            Self::Inodes => "no free inodes",
            Self::ReadOnly => "read-only",
            Self::TurnsReadOnly => "becomes read-only",
            Self::Unwritable => "a directory loses its write permission",
        }
    }

    /// The text that the message must contain.
    fn cause(self) -> &'static str {
        match self {
            Self::Bytes | Self::Inodes => "No space left on device",
            Self::ReadOnly | Self::TurnsReadOnly => "Read-only file system",
            Self::Unwritable => "Permission denied",
        }
    }
}

/// The directories that may lose their write permission, as shell patterns.
const DIRECTORIES: &[&str] = &[
    "",
    "/.podstrap",
    "/.podstrap/releases",
    "/.podstrap/staging",
    "/.podstrap/staging/*",
    "/.podstrap/staging/*/scratch",
    "/.podstrap/staging/*/release",
    "/.podstrap/staging/*/release/tree",
    "/.podstrap/staging/*/release/tree/python",
    "/.podstrap/staging/*/venv",
    "/.podstrap/staging/*/venv/bin",
    "/.podstrap/staging/*/venv/lib/python*/site-packages",
    "/.podstrap/staging/*/venv/lib/python*/site-packages/click",
];

#[derive(Debug, Default)]
struct Counts {
    runs: usize,
    succeeded: usize,
    refused: usize,
}

fn faults(setups: &[Setup], number: usize) {
    let app = App::new();
    let known: Vec<_> = setups.iter().map(|setup| Known::new(&app, *setup)).collect();
    let (next, table) = (AtomicUsize::new(0), Mutex::new(BTreeMap::<Fault, Counts>::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from).min(2) {
            scope.spawn(|| {
                loop {
                    let trial = next.fetch_add(1, Ordering::SeqCst);
                    if trial >= number {
                        return;
                    }
                    let fault = Fault::ALL[trial / setups.len() % Fault::ALL.len()];
                    let Some(code) = disturb(&app, &known[trial % setups.len()], fault, trial) else { return };
                    let mut table = table.lock().unwrap();
                    let counts = table.entry(fault).or_default();
                    counts.runs += 1;
                    *if code == 0 { &mut counts.succeeded } else { &mut counts.refused } += 1;
                }
            });
        }
    });
    let table = table.into_inner().unwrap();
    println!("\n{number} runs, PODSTRAP_TEST_SEED={}", seed());
    println!("| volume | runs | succeeded anyway | exit code 5 |\n|---|---|---|---|");
    for (fault, counts) in &table {
        println!("| {} | {} | {} | {} |", fault.title(), counts.runs, counts.succeeded, counts.refused);
        assert!(counts.refused > 0, "{fault:?} never made init fail");
    }
}

/// Runs `init` with the fault and again without it. Returns the first run's exit code; `None` if such tests are
/// skipped.
fn disturb(app: &App, known: &Known, fault: Fault, number: usize) -> Option<i32> {
    let mut rng = Rng::with_seed(seed() + number as u64);
    let place = app.sandbox.path(&format!("fault-{number}"));
    let volume = place.join("volume");
    fs::create_dir_all(&volume).unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (room, inodes) = room(known, fault, &mut rng);
    let wait = known.took.mul_f64(1.1 * rng.f64()).as_secs_f64();
    // An ordinary user, or root without the capabilities that bypass file modes.
    let run = "setpriv --bounding-set=-all --inh-caps=-all \"$@\"";
    let (obstacle, lift, doing) = match fault {
        Fault::Bytes | Fault::Inodes => {
            let limit = format!("size={room},nr_inodes={inodes}");
            let lift = "mount -o remount,size=1g,nr_inodes=1m \"$volume\"".to_owned();
            (format!("mount -o remount,{limit} \"$volume\"; {run}"), lift, limit)
        }
        Fault::ReadOnly => {
            let remount = |how| format!("mount -o remount,{how} \"$volume\"");
            (format!("{}; {run}", remount("ro")), remount("rw"), "from the start".to_owned())
        }
        Fault::TurnsReadOnly => {
            // A second mount over the first, which has files open for writing and cannot become read-only.
            let mount = "mount --bind \"$volume\" \"$volume\" && mount -o remount,bind,ro \"$volume\"";
            let text = format!("{run} & sleep {wait:.3}; {mount}; wait $!");
            (text, "umount \"$volume\"".to_owned(), format!("after {wait:.3} s"))
        }
        Fault::Unwritable => {
            let directory = rng.choice(DIRECTORIES).unwrap();
            let wait = wait * if directory.contains('*') { 0.0 } else { 0.9 };
            let text = format!(
                "{run} & run=$!
                sleep {wait:.3}
                while kill -0 $run 2>/dev/null; do
                    for directory in \"$volume\"{directory}; do
                        if [ -d \"$directory\" ]; then sleep {:.3}; chmod a-w \"$directory\"; break 2; fi
                    done
                done
                wait $run",
                0.05 * rng.f64()
            );
            let lift = "find \"$volume\" -type d ! -perm -u+w -exec chmod u+w {} +".to_owned();
            (text, lift, format!("{directory} after {wait:.3} s"))
        }
    };
    let what = format!("fault {number}, {}, {}: {doing}, PODSTRAP_TEST_SEED={}", known.setup, fault.title(), seed());
    let script = format!(
        "volume='{volume}'; place='{place}'
        mount -t tmpfs -o size=1g,nr_inodes=1m,mode=755 none \"$volume\" && cp -a '{before}/.' \"$volume\" || exit 99
        ( {obstacle} ) 2> \"$place/first.stderr\"; echo $? > \"$place/first.code\"
        {lift} || exit 98
        cp -a \"$volume\" \"$place/first\" || exit 97
        \"$@\"; code=$?
        cp -a \"$volume\" \"$place/second\" || exit 96
        exit $code",
        volume = path(&volume),
        place = path(&place),
        before = path(&known.before),
    );
    let command = app.run_of(known.setup, &volume);
    let again = app.sandbox.run(&mut namespaced(&command, &script)?);
    let first = first(&place);
    let code = first.code.unwrap();
    assert_eq!(again.code, Some(0), "{what}: first {code}: {}\nthen {}", first.raw, again.raw);
    let seen = known.seen(&place.join("first"), &what);
    match code {
        0 => {
            assert_eq!(seen, "new", "{what}: {}", first.raw);
            // init cannot clear the files in an unwritable directory of staging.
            if fault != Fault::Unwritable {
                known.assert_complete(&place.join("first"), &what);
            }
        }
        5 => {
            let says = first.raw.contains(fault.cause()) && first.raw.contains("\nhint: ");
            assert!(says, "{what}: {}", first.raw);
        }
        _ => panic!("{what}: exit code {code}: {}", first.raw),
    }
    known.assert_complete(&place.join("second"), &what);
    fs::remove_dir_all(&place).unwrap();
    Some(code)
}

fn first(place: &Path) -> Ran {
    let read = |name| fs::read_to_string(place.join(name)).unwrap();
    let (raw, code) = (read("first.stderr"), read("first.code"));
    Ran { code: Some(code.trim().parse().unwrap()), stdout: String::new(), text: raw.clone(), raw }
}

/// Limits of the volume in bytes and inodes: from slightly more than in use to more than enough.
fn room(known: &Known, fault: Fault, rng: &mut Rng) -> (u64, u64) {
    let (before, after) = (usage(&known.before), usage(&known.after));
    // The build also needs space for a cache, and for the old release next to the new one.
    let mut between = |low: u64, high: u64| low + 1 + rng.u64(..2 * high);
    match fault {
        Fault::Bytes => (between(before.0, after.0), 1_000_000),
        Fault::Inodes => (1 << 30, between(before.1, after.1)),
        _ => (1 << 30, 1_000_000),
    }
}

/// Bytes in whole pages, and inodes, as tmpfs counts them.
fn usage(dir: &Path) -> (u64, u64) {
    let mut open = vec![PathBuf::from(dir)];
    let mut sum = (0, 0);
    while let Some(path) = open.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        sum.1 += 1;
        if meta.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if meta.is_file() {
            sum.0 += meta.len().next_multiple_of(4096);
        }
    }
    sum
}
