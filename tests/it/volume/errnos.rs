//! System calls that fail: EIO, EDQUOT, ESTALE, ENOLCK or EAGAIN, at a thread's first, second, fourth … call of its
//! kind. A run ends with the right release, or with an error and a documented exit code. A rerun leaves the same files
//! as a run without a failure.
//!
//! `PODSTRAP_TEST_SEED` chooses the failures, `PODSTRAP_TEST_ERRNOS` their number.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use fastrand::Rng;

use crate::support::strace::{injected, works};
use crate::support::volume::{App, Known, SETUPS, Setup, copy, seed};

const ERRNOS: [&str; 5] = ["EIO", "EDQUOT", "ESTALE", "ENOLCK", "EAGAIN"];

/// The system calls that touch files, and the one that starts a thread. Not write, which also wakes tokio: the tests of
/// full volumes are about it.
const CALLS: [&str; 27] = [
    "openat",
    "newfstatat",
    "statx",
    "fstat",
    "read",
    "pread64",
    "getdents64",
    "mkdir",
    "mkdirat",
    "rename",
    "renameat",
    "symlink",
    "symlinkat",
    "link",
    "linkat",
    "readlink",
    "unlink",
    "unlinkat",
    "rmdir",
    "chmod",
    "fchmod",
    "utimensat",
    "fsync",
    "syncfs",
    "flock",
    "close",
    "clone3",
];
/// Failures of a call come before this number of it.
const LAST: u32 = 9;
/// The exit codes of a failed `init`, as documented in docs/cli.md.
const CODES: [i32; 5] = [1, 2, 3, 4, 5];

#[test]
fn a_failed_system_call_ends_in_the_right_release_or_in_an_error() {
    fail(24);
}

#[test]
#[ignore = "needs strace, and minutes: just errnos"]
fn hundreds_of_failed_system_calls_end_in_the_right_release_or_in_an_error() {
    fail(std::env::var("PODSTRAP_TEST_ERRNOS").map_or(160, |text| text.parse().unwrap()));
}

#[derive(Debug, Default)]
struct Counts {
    runs: usize,
    /// Runs with so many calls that one of them failed.
    met: usize,
    right: usize,
    codes: BTreeMap<i32, usize>,
}

fn fail(runs: usize) {
    if !works() {
        return;
    }
    let app = App::new();
    // The engine is a child, so its calls are its own matter.
    let setups: Vec<&Setup> = SETUPS.iter().filter(|setup| setup.engine == "uv").collect();
    let trials: Vec<Trial> = setups.iter().map(|setup| Trial::new(&app, **setup)).collect();
    let mut random = Rng::with_seed(seed());
    let mut table: BTreeMap<&str, Counts> = BTreeMap::new();
    for number in 0..runs {
        let errno = ERRNOS[number % ERRNOS.len()];
        let call = *random.choice(&CALLS).unwrap();
        let when = 1_u32 << random.u32(..LAST);
        let trial = &trials[number % trials.len()];
        let counts = table.entry(errno).or_default();
        trial.run(call, errno, when, counts);
    }
    print(&table);
}

struct Trial<'a> {
    app: &'a App,
    known: Known,
    root: PathBuf,
}

impl<'a> Trial<'a> {
    fn new(app: &'a App, setup: Setup) -> Self {
        Self { app, known: Known::new(app, setup), root: app.place(setup).join("volume") }
    }

    fn run(&self, call: &str, errno: &str, when: u32, counts: &mut Counts) {
        let what = format!("{}: {errno} from {call} number {when}, PODSTRAP_TEST_SEED={}", self.known.setup, seed());
        copy(&self.known.before, &self.root);
        let mut init = self.app.run_of(self.known.setup, &self.root);
        init.env("PODSTRAP_DURABLE", "true");
        let log = self.app.sandbox.write("strace", "");
        let more = ["-o", log.to_str().unwrap()];
        let ran = self.app.sandbox.run(&mut injected(&init, call, &format!("error={errno}:when={when}"), &more));
        counts.met += usize::from(fs::read_to_string(log).unwrap().contains("(INJECTED)"));
        let code = ran.code.unwrap_or_else(|| panic!("{what}: ended by a signal: {}", ran.raw));
        assert!(!ran.raw.contains("panicked"), "{what}: {}", ran.raw);
        let state = self.known.seen(&self.root, &what);
        if code == 0 {
            assert_eq!(state, "new", "{what}: {}", ran.raw);
            counts.right += 1;
        } else {
            assert!(CODES.contains(&code), "{what}: exit code {code}: {}", ran.raw);
            assert!(ran.raw.contains("podstrap: error: ") && ran.raw.contains("because: "), "{what}: {}", ran.raw);
            *counts.codes.entry(code).or_default() += 1;
        }
        counts.runs += 1;
        let again = self.app.sandbox.run(&mut self.app.run_of(self.known.setup, &self.root));
        assert_eq!(again.code, Some(0), "{what}: {}", again.raw);
        assert_eq!(self.known.seen(&self.root, &what), "new", "{what}");
        self.known.assert_complete(&self.root, &format!("{what}: {}", ran.raw));
    }
}

/// Prints the table of docs/reliability.md.
fn print(table: &BTreeMap<&str, Counts>) {
    println!("\nPODSTRAP_TEST_SEED={}", seed());
    let codes = CODES.map(|code| format!("exit code {code}")).join(" | ");
    println!("| error | runs | a call failed | right release | {codes} |");
    println!("|{}", "---|".repeat(4 + CODES.len()));
    for (errno, counts) in table {
        let codes = CODES.map(|code| counts.codes.get(&code).copied().unwrap_or_default().to_string()).join(" | ");
        println!("| {errno} | {} | {} | {} | {codes} |", counts.runs, counts.met, counts.right);
    }
}
