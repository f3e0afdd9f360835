//! Logs to stderr, as text or JSON: one line per phase with its duration. A terminal also gets a spinner.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;

use crate::redact;

/// The spinner, if stderr is a terminal and logs are text.
static SPINNER: OnceLock<ProgressBar> = OnceLock::new();

/// A second destination for everything that goes to stderr.
static ALSO: OnceLock<File> = OnceLock::new();

/// Number of running phases.
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

/// Sets up logging for the process; call it once.
pub fn init(format: LogFormat, level: LogLevel) {
    let filter = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    // Events of other crates concern their internals (hyper's pool, rustls' handshakes).
    let ours = tracing_subscriber::filter::filter_fn(|meta| meta.target().starts_with("podstrap"));
    let registry = tracing_subscriber::registry();
    let layer = tracing_subscriber::fmt::layer().with_writer(Stderr);
    // Fails only if a logger is already set, as on a second call in one test process.
    let _ = match format {
        LogFormat::Json => registry.with(layer.event_format(Json).with_filter(filter).with_filter(ours)).try_init(),
        LogFormat::Text => {
            if io::stderr().is_terminal() && level != LogLevel::Error {
                let bar = ProgressBar::no_length();
                bar.set_style(ProgressStyle::with_template("{spinner} {msg} {elapsed}").expect("a valid template"));
                let _ = SPINNER.set(bar);
            }
            registry.with(layer.event_format(Lines).with_filter(filter).with_filter(ours)).try_init()
        }
    };
}

/// Also writes everything from now on to this file. Only the first call has an effect.
pub fn also(file: File) {
    let _ = ALSO.set(file);
}

/// Writes clean lines to the destinations of the log.
pub fn write(text: &str) {
    let _ = Stderr.write_all(text.as_bytes());
}

/// A step of the work, logged with its duration when it is done. A terminal shows the spinner while any
/// phase runs.
#[derive(Debug)]
pub struct Phase<'a> {
    /// Collects the duration, if set.
    phases: Option<&'a Phases>,
    name: &'static str,
    started: Instant,
}

/// The finished phases of one run.
#[derive(Debug, Default)]
pub struct Phases(Mutex<Vec<(Instant, PhaseTime)>>);

impl Phases {
    /// Starts a phase. A terminal shows `doing` meanwhile.
    pub fn start(&self, name: &'static str, doing: &str) -> Phase<'_> {
        Phase { phases: Some(self), ..Phase::start(name, doing) }
    }

    /// All finished phases, in the order of their starts.
    pub fn times(&self) -> Vec<PhaseTime> {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        times.sort_by_key(|(started, _)| *started);
        times.into_iter().map(|(_, time)| time).collect()
    }
}

/// Duration of a phase.
#[derive(Debug, Clone, Copy)]
pub struct PhaseTime {
    pub phase: &'static str,
    pub took: Duration,
}

impl Phase<'_> {
    /// Starts a phase that is only logged. A terminal shows `doing` meanwhile.
    pub fn start(name: &'static str, doing: &str) -> Self {
        if let Some(bar) = SPINNER.get() {
            if UNDER_WAY.fetch_add(1, Ordering::Relaxed) == 0 {
                bar.reset();
                bar.enable_steady_tick(Duration::from_millis(100));
            }
            bar.set_message(format!("{name}: {}", redact::clean(doing)));
        }
        tracing::debug!("{name}: {doing}");
        Self { phases: None, name, started: Instant::now() }
    }

    /// Logs the phase's line: its name, its duration and `result`.
    pub fn done(self, result: &str) {
        let took = self.started.elapsed();
        tracing::info!(phase = self.name, seconds = (took.as_secs_f64() * 1000.0).round() / 1000.0, "{result}");
        if let Some(Phases(times)) = self.phases {
            let time = PhaseTime { phase: self.name, took };
            times.lock().unwrap_or_else(PoisonError::into_inner).push((self.started, time));
        }
    }
}

impl Drop for Phase<'_> {
    fn drop(&mut self) {
        if let Some(bar) = SPINNER.get()
            && UNDER_WAY.fetch_sub(1, Ordering::Relaxed) == 1
        {
            bar.finish_and_clear();
        }
    }
}

/// Sets the text next to the spinner: bytes received, files written.
pub fn progress(text: &str) {
    if let Some(bar) = SPINNER.get() {
        bar.set_message(redact::clean(text));
    }
}

/// `podstrap: clone    0.412s  main is 1a2b3c4 …`, or `podstrap: warning: …`.
struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = match *event.metadata().level() {
            Level::ERROR => "error: ",
            Level::WARN => "warning: ",
            Level::INFO => "",
            _ => "debug: ",
        };
        write!(writer, "podstrap: {level}")?;
        if let (Some(phase), Some(seconds)) = (&fields.phase, fields.seconds) {
            write!(writer, "{phase:<8} {seconds:>7.3}s  ")?;
        }
        writeln!(writer, "{}{}", redact::clean(&fields.message), redact::clean(&fields.rest))
    }
}

/// `{"timestamp":…,"level":"INFO","message":…,"phase":"clone","seconds":0.412}`: cleans every text before
/// quoting it, because a JSON reader reverts the quoting.
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut members = Members::default();
        let now = humantime::format_rfc3339_micros(SystemTime::now());
        members.0.insert("timestamp".to_owned(), now.to_string().into());
        members.0.insert("level".to_owned(), event.metadata().level().as_str().into());
        event.record(&mut members);
        writeln!(writer, "{}", Value::Object(members.0))
    }
}

#[derive(Default)]
struct Members(Map<String, Value>);

impl Visit for Members {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), redact::clean(value).into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    phase: Option<String>,
    seconds: Option<f64>,
    rest: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => {
                use fmt::Write as _;
                let _ = write!(self.rest, " {name}={value:?}");
            }
        }
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "phase" => self.phase = Some(value.to_owned()),
            "message" => value.clone_into(&mut self.message),
            _ => self.record_debug(field, &value),
        }
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        match field.name() {
            "seconds" => self.seconds = Some(value),
            _ => self.record_debug(field, &value),
        }
    }
}

/// stderr that suspends the spinner while it writes. Both formats pass [clean](redact::clean) text.
#[derive(Clone, Copy)]
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(mut file) = ALSO.get() {
            // Ignore a log that is full or closed.
            let _ = file.write(bytes);
        }
        match SPINNER.get() {
            Some(bar) => bar.suspend(|| io::stderr().write(bytes)),
            None => io::stderr().write(bytes),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        *self
    }
}
