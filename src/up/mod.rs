//! `podstrap up`: init and a server on this machine, to try an app.
//!
//! podstrap runs init in a temporary root, then serves the app's configuration: with the real `unitd` if
//! it is on PATH, else with the environment's Python and the WSGI server of the standard library. The
//! configuration has the paths of the app's container. podstrap maps them to the temporary tree and
//! changes nothing else except `user` and `group`.

mod listener;
mod wsgi;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::command::{Command, Running};
use crate::config::applications::applications;
use crate::config::localize::localize;
use crate::config::{Config, dialect, read_config};
use crate::error::{Error, IoContext, Kind, Result};
use crate::files;
use crate::init::{self, Outcome};
use crate::plan::{self, AppTarget, Control, Environment, Init, Origin, Source, Target, Up};
use crate::runtime::Signals;
use crate::scratch::Scratch;
use crate::unit;

/// The app to serve if the user gives no source: `examples/flask` of this repository.
const EXAMPLE: &[(&str, &str)] = &[
    ("index.py", include_str!("../../examples/flask/index.py")),
    ("requirements.txt", include_str!("../../examples/flask/requirements.txt")),
    ("unit.conf.json", include_str!("../../examples/flask/unit.conf.json")),
];

/// Time limit for a server to end after SIGTERM.
const STOP_TIME: Duration = Duration::from_secs(1);

const SERVE: &str = include_str!("serve.py");

/// Serves the app until a signal arrives, or with `--once` until the app has answered once.
pub(crate) async fn run(plan: Up, mut signals: Signals) -> Result<()> {
    let scratch = Scratch::new("up")?;
    let app = signals.unless_one(Box::pin(App::prepare(plan, &scratch))).await?;
    // Otherwise another server on this port could answer instead of the app.
    port_is_free(&app.url)?;
    let (server, mut running) = app.start(&scratch)?;
    let served = tokio::select! {
        served = app.serve(&server, &mut signals) => served,
        ended = running.wait() => Err(ended_early(&server, ended)),
    };
    running.stop(STOP_TIME).await;
    served
}

/// An installed app, with its configuration for this machine.
struct App {
    plan: Up,
    outcome: Box<Outcome>,
    config: Config,
    /// The same configuration, parsed.
    value: Value,
    url: reqwest::Url,
}

/// The server of the app.
struct Server {
    name: &'static str,
    /// Unit's control socket; `None` for another server.
    control: Option<Control>,
}

impl App {
    async fn prepare(plan: Up, scratch: &Scratch) -> Result<Self> {
        let source = if let Some(source) = &plan.source {
            source.clone()
        } else {
            tracing::info!("no DIR or URL given: serving the built-in example; use `podstrap up .` for this directory");
            let dir = scratch.make("example")?;
            example(&dir)?;
            Source::directory(dir)
        };
        // Fail before the installation if possible.
        if let Origin::Local(dir, _) = &source.origin
            && files::is_dir(dir)?
        {
            let part = source.subdir.as_ref().map_or(Path::new(""), plan::TreePath::as_path);
            config_is_there(&dir.join(part), &plan.config)?;
        }
        let target = Target { root: scratch.make("volume")?, link: Some("app".to_owned()), durable: false };
        let environment = plan.environment.clone().published_at(&target);
        // The app runs on this machine.
        let mut environment = Environment { python_final: None, target: AppTarget::default(), ..environment };
        // The path of the environment is a part of its key.
        if !environment.final_path_named && environment.store.take().is_some() {
            tracing::warn!("not using the store: without --venv-final-path, `up` builds at another path each time");
        }
        let init = Init {
            source,
            target,
            environment,
            copy_self: None,
            entrypoint: None,
            size_limit: plan::SIZE_LIMIT,
            stale_ok: false,
            deadline: plan.deadline,
        };
        let init::Done::Published(outcome) = Box::pin(init::run(&init)).await? else {
            return Err(Error::internal("nothing is published"));
        };
        let environment = init.environment;
        let tree = outcome.path.canonicalize().on_volume(|| format!("cannot find {}", outcome.path.display()))?;

        config_is_there(&tree, &plan.config)?;
        let mut config = read_config(&tree.join(&plan.config))?;
        // Messages name the file that the user knows, not its copy.
        config.path.clone_from(&plan.config);
        let mut value = dialect::to_value(&config.bytes).map_err(|error| {
            Error::usage(format!("{} is not valid JSON for Unit", plan.config.display()))
                .because(error)
                .hint("correct the JSON; Unit also allows comments and one trailing comma")
        })?;
        let named = environment.final_path_named.then_some(environment.final_path.as_path());
        localize(&mut value, named, environment.venv.as_path(), &tree);
        if let Some(home) = missing_home(&value) {
            return Err(Error::usage(format!("the configuration's \"home\" does not exist: {home}")).hint(
                "give packages or a requirements file to build an environment, set its path with --venv, or remove \
                 \"home\": Unit cannot start the application like this",
            ));
        }
        let text = serde_json::to_vec_pretty(&value);
        config =
            config.derived(text.map_err(|error| Error::internal("cannot serialize the configuration").because(error))?);
        let url = listener::listener(&value).and_then(|(address, _)| listener::url_of(address)).ok_or_else(|| {
            Error::usage(format!("{} has no TCP listener", plan.config.display()))
                .hint("add one for `up`, such as \"listeners\": {\"*:8300\": {\"pass\": \"applications/NAME\"}}")
        })?;
        Ok(Self { plan, outcome, config, value, url })
    }

    fn start(&self, scratch: &Scratch) -> Result<(Server, Running)> {
        match on_path("unitd") {
            Some(unitd) => start_unit(&unitd, scratch),
            None => self.start_wsgi(scratch),
        }
    }

    /// Configures the server and sends a request. Prints the answer with `--once`, else waits for a signal.
    async fn serve(&self, server: &Server, signals: &mut Signals) -> Result<()> {
        let started = async {
            if let Some(control) = &server.control {
                unit::apply(Some(control), &self.config.clone().into(), self.plan.deadline).await?;
            }
            // The application has started, so its first answer is final: no retry.
            unit::first_answer(&self.url, self.plan.deadline).await
        };
        let answer = signals.unless_one(started).await?;
        let failing = (answer.status >= 500).then(|| {
            Error::new(Kind::Probe, format!("the app answers {} at {}", answer.status, self.url))
                .hint("read the output of the app above, such as a traceback")
        });
        if self.plan.once {
            std::io::stdout()
                .write_all(&answer.body)
                .map_err(|error| Error::internal("cannot print the answer").because(error))?;
            tracing::info!("{} answered {} at {}", server.name, answer.status, self.url);
            return failing.map_or(Ok(()), Err);
        }
        if let Some(error) = failing {
            tracing::warn!("{}", error.summary());
        }
        tracing::info!("serving at {} with {} until Ctrl-C", self.url, server.name);
        signals.one().await;
        Ok(())
    }

    fn start_wsgi(&self, scratch: &Scratch) -> Result<(Server, Running)> {
        tracing::info!(
            "no unitd on PATH: serving with Python's WSGI server instead, \
             without Unit's processes, limits, routes or static files"
        );
        let application = wsgi::wsgi(&self.value)?;
        let python = match &self.outcome.release.manifest.environment {
            Some(record) => {
                application.warn_of_version(&record.python);
                self.outcome.path.join(&record.venv).join("bin/python")
            }
            None => on_path("python3").ok_or_else(|| {
                Error::environment("cannot serve the app: neither unitd nor python3 is on PATH")
                    .hint("install one of the two")
            })?,
        };
        let wanted = scratch.dir.join("wsgi.json");
        let host = self.url.host_str().unwrap_or("127.0.0.1");
        let any = listener::listener(&self.value).is_some_and(|(address, _)| address.starts_with('*'));
        let text = json!({
            "host": if any { "0.0.0.0" } else { host },
            "port": self.url.port_or_known_default(),
            "path": application.path,
            "module": application.module,
            "callable": application.callable,
            "factory": application.factory,
            "working_directory": application.working_directory,
            "environment": application.environment,
            "prefix": application.prefix,
        });
        fs::write(&wanted, text.to_string()).on_volume(|| format!("cannot write {}", wanted.display()))?;
        let running = Command::new(python)
            .args(["-B", "-c", SERVE])
            .arg(&wanted)
            .serve()
            .map_err(|failure| Error::environment("cannot start the WSGI server").because(failure))?;
        Ok((Server { name: "Python's WSGI server", control: None }, running))
    }
}

fn config_is_there(tree: &Path, config: &Path) -> Result<()> {
    if files::exists(&tree.join(config))? {
        return Ok(());
    }
    let what = if config.is_absolute() { "there is no" } else { "the app has no" };
    Err(Error::usage(format!("{what} {}", config.display())).hint(
        "add Unit's configuration as unit.conf.json, or give another file with --config: \
         a path in the app's tree or an absolute path",
    ))
}

/// The first `home` that does not exist.
fn missing_home(config: &Value) -> Option<&str> {
    applications(config)
        .filter_map(|(_, app)| app.get("home")?.as_str())
        .find(|home| files::is_dir(Path::new(home)).is_ok_and(|there| !there))
}

fn port_is_free(url: &reqwest::Url) -> Result<()> {
    let addresses = url.socket_addrs(|| None).unwrap_or_default();
    match std::net::TcpListener::bind(&addresses[..]) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            Err(Error::usage(format!("cannot serve at {url}"))
                .because(error)
                .hint("stop the program that listens there, or use another port in the configuration"))
        }
        // The server itself reports any other problem.
        _ => Ok(()),
    }
}

fn start_unit(unitd: &Path, scratch: &Scratch) -> Result<(Server, Running)> {
    tracing::info!("serving with unitd: {}", unitd.display());
    let socket = scratch.dir.join("control.unit.sock");
    let running = Command::new(unitd)
        .args(["--no-daemon", "--log", "/dev/stderr", "--control"])
        .arg(format!("unix:{}", socket.display()))
        .arg("--pid")
        .arg(scratch.dir.join("unit.pid"))
        .arg("--statedir")
        .arg(scratch.make("unit-state")?)
        .arg("--tmpdir")
        .arg(scratch.make("unit-tmp")?)
        .serve()
        .map_err(|failure| Error::environment("cannot start Unit").because(failure))?;
    Ok((Server { name: "Unit", control: Some(Control::Unix(socket)) }, running))
}

fn ended_early(server: &Server, ended: std::io::Result<std::process::ExitStatus>) -> Error {
    let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
    Error::new(Kind::Probe, format!("{} ended unexpectedly", server.name))
        .because(how)
        .hint("read its output above; usual causes are a failed import, a port in use, or an ASGI app without unitd")
}

/// The first executable with this name on PATH.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| {
        let found = files::metadata_if_allowed(file).unwrap_or_default();
        found.is_some_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    })
}

/// Writes the built-in example.
fn example(dir: &Path) -> Result<()> {
    for (name, text) in EXAMPLE {
        let path = dir.join(name);
        fs::write(&path, text).on_volume(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(fuzzing)]
pub mod fuzzing {
    use serde_json::Value;

    /// A configuration is made local, and read for the server in Unit's place.
    pub fn local_config(data: &[u8]) {
        let Ok(mut config) = serde_json::from_slice::<Value>(data) else { return };
        crate::config::localize::fuzz(&mut config);
        let _ = super::missing_home(&config);
        super::wsgi::fuzz(&config);
    }
}
