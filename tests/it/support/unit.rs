//! Runs the library's `apply` against the control socket of a fake or real Unit in a sandbox.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::future::Future;
use std::time::Duration;

use podstrap::config::Config;
use podstrap::error::{Error, Result};
use podstrap::plan::Control;
use podstrap::retry::Deadline;
use podstrap::unit::{self, Applied, Setup};

use super::fake_unit::CASES;
use super::sandbox::Sandbox;

/// A recorded case whose configuration Unit applies.
pub(crate) const OURS: &str = "put-return";

/// Recorded cases in which Unit refuses the text of a configuration.
pub(crate) const REFUSED: [&str; 9] = [
    "put-bad-json-missing-comma",
    "put-bad-json-utf8-column",
    "put-bad-json-truncated",
    "put-unknown-app-option",
    "put-article-verbatim",
    "put-wrong-type-processes",
    "put-pass-missing-app",
    "put-template-not-rendered",
    "put-listener-hostname",
];

pub(crate) fn body_of(case: &str) -> Vec<u8> {
    let case = CASES.iter().find(|found| found.name == case).expect("a recorded case");
    case.asked.as_ref().expect("with a request").body.clone()
}

pub(crate) fn config_of(case: &str) -> Setup {
    setup(body_of(case))
}

pub(crate) fn setup(bytes: impl Into<Vec<u8>>) -> Setup {
    Config::new("/cfg/unit.json".into(), bytes.into()).into()
}

/// Runs a future on a runtime like the binary's.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

pub(crate) fn within(time: Duration) -> Deadline {
    Deadline::after(time)
}

pub(crate) const SHORT: Duration = Duration::from_millis(300);
pub(crate) const AMPLE: Duration = Duration::from_secs(20);

/// A client that takes this process, which runs the fake, for a long-running Unit.
pub(crate) fn client(sandbox: &Sandbox) -> unit::Client {
    process(sandbox, std::process::id(), "unitd", "unit: main v1.35.0 [unitd --no-daemon]");
    process(sandbox, 1, "pause", "/pause");
    unit::Client { sockets: vec![sandbox.path("socket")], proc: sandbox.path("proc"), settle: Duration::ZERO }
}

pub(crate) fn process(sandbox: &Sandbox, pid: u32, comm: &str, words: &str) {
    sandbox.write(&format!("proc/{pid}/comm"), format!("{comm}\n"));
    sandbox.write(&format!("proc/{pid}/cmdline"), words.replace(' ', "\0"));
}

/// Applies [`OURS`] at `<sandbox>/socket`.
pub(crate) fn apply(sandbox: &Sandbox, deadline: Duration) -> Result<Applied> {
    apply_case(sandbox, OURS, deadline)
}

pub(crate) fn apply_case(sandbox: &Sandbox, case: &str, deadline: Duration) -> Result<Applied> {
    let control = Control::Unix(sandbox.path("socket"));
    run(client(sandbox).apply(Some(&control), &config_of(case), within(deadline)))
}

/// The printed error with variable parts replaced.
pub(crate) fn said(sandbox: &Sandbox, error: &Error) -> String {
    let text = error.to_string().replace(&*sandbox.path("").to_string_lossy(), "[TMP]/");
    let rules = [
        (r"\d+ tr(ies|y) in \d+\.\d s", "[N] tries in [TIME]"),
        (r"127\.0\.0\.1:\d{5}", "[HOST]"),
        (r"pid \d+", "pid [PID]"),
        (r"Unit/1\.\d+\.\d+", "Unit/[VERSION]"),
    ];
    rules.iter().fold(text, |text, (from, to)| regex::Regex::new(from).unwrap().replace_all(&text, *to).into_owned())
}

/// The exit code and the error's text.
pub(crate) fn failed<T: std::fmt::Debug>(sandbox: &Sandbox, result: Result<T>) -> String {
    let error = result.unwrap_err();
    format!("exit {}\n{}", error.kind().exit_code(), said(sandbox, &error))
}

pub(crate) fn later(time: Duration, what: impl FnOnce() + Send + 'static) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        std::thread::sleep(time);
        what();
    })
}

pub(crate) const MS: fn(u64) -> Duration = Duration::from_millis;
