//! The two engines, uv and the base interpreter's pip. Both give the same installation.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::app::App;
use super::child::child_error;
use super::explain::{self, Failed};
use super::forecast::{self, Planned};
use super::form::Form;
use super::inputs::Inputs;
use super::installed::Installed;
use super::origin::{self, Archive};
use super::pyproject::Pyproject;
use super::python::Python;
use super::requirements::Flat;
use super::settings::{Settings, UvCommand};
use super::{Toolchain, lock, reach};
use crate::command::{Command, Failure};
use crate::error::{Error, IoContext, Kind, Result};
use crate::files::{self, GENERATED, WRITTEN};
use crate::http;
use crate::retry::Deadline;

/// uv's cache, in the scratch directory.
pub(super) const CACHE: &str = "uv-cache";
const RUN_PIP: &str = include_str!("pip.py");
/// The variable with the values of markers for pip.py. pip's own options for another target do not change markers.
const MARKERS: &str = "PODSTRAP_MARKERS";

/// Retries of one request inside an engine. A short failure then does not discard earlier downloads. podstrap also
/// retries the whole installation, and reports the cause.
const TRIES_INSIDE: &str = "1";
/// Longest time without data from an index. pip's default, also for uv.
const SILENCE: Duration = Duration::from_secs(15);

/// An engine that can run here.
#[derive(Debug)]
pub(super) struct Engine {
    /// `uv 0.13.9`, `pip 24.2`
    pub(super) name: String,
    installer: Installer,
}

#[derive(Debug)]
enum Installer {
    Uv(PathBuf),
    Pip {
        /// The directory or wheel that contains pip.
        import_path: PathBuf,
        /// 0 for an unknown number.
        version: (u32, u32),
    },
}

/// The inputs of an installation.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) inputs: Inputs,
    /// The tree, the base of relative paths in requirements files.
    pub(super) cwd: Option<PathBuf>,
    /// The requirements files among the inputs.
    pub(super) flat: Flat,
    /// The start of the installation.
    pub(super) since: SystemTime,
}

impl Asked {
    /// The archives in the lock files.
    fn locks(&self) -> Vec<Archive> {
        let locks = self.inputs.of(Form::UvLock).chain(self.inputs.of(Form::Pylock));
        locks.flat_map(|lock| origin::lock(&files::read_text(lock, GENERATED).unwrap_or_default())).collect()
    }
}

/// The context of an engine: directories, settings and target.
pub(super) struct Workspace<'a> {
    pub(super) settings: &'a Settings,
    /// The environment.
    pub(super) dir: &'a Path,
    pub(super) scratch: &'a Path,
    /// The interpreter in this container.
    pub(super) base: &'a Path,
    /// The Python and platform of the app.
    pub(super) app: &'a App,
}

/// What an engine does with the inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Install,
    /// Install everything again, and ignore every cache.
    Reinstall,
    /// Resolve only.
    DryRun,
}

/// Checks that the uv of the toolchain runs here. `None`: use pip.
pub(super) async fn start_uv(
    toolchain: &Toolchain,
    settings: &Settings,
    scratch: &Path,
    deadline: Deadline,
) -> Result<Option<Engine>> {
    let Some(uv) = &toolchain.uv else { return Ok(None) };
    let what = format!("cannot run the uv at {}", uv.path.display());
    let error = match settings.command(&uv.path, scratch).arg("--version").run(deadline).await {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            let name = text.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
            return Ok(Some(Engine { name, installer: Installer::Uv(uv.path.clone()) }));
        }
        Ok(output) => {
            Error::environment(what).because(output.status.to_string()).excerpt(explain::excerpt(&output.stderr))
        }
        Err(failure) if failure.is_of_system() => return Err(child_error(&what, failure)),
        Err(failure) => child_error(&what, failure),
    };
    if toolchain.uv_required || deadline.passed() {
        return Err(error.hint("use the static (musl) build of uv for this processor, or --engine pip"));
    }
    tracing::warn!("{}: using pip", error.summary());
    Ok(None)
}

const ALLOW_BUILDS: &str = "remove these requests, or remove --only-binary, --target-python and --target-platform: \
                            each of them forbids builds";

impl Engine {
    pub(super) fn is_uv(&self) -> bool {
        matches!(self.installer, Installer::Uv(_))
    }

    /// The base interpreter's pip.
    pub(super) fn pip(interpreter: &Path, python: &Python) -> Result<Self> {
        let Some((import_path, version)) = &python.pip else {
            return Err(Error::environment(format!("{} has no pip, and there is no uv", interpreter.display())).hint(
                "put a static uv binary next to podstrap, or install pip in the image (Debian: python3-pip, Alpine: \
                 py3-pip)",
            ));
        };
        let mut numbers = version.split('.').map(|number| number.parse().unwrap_or_default());
        let number = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        Ok(Self {
            name: format!("pip {version}"),
            installer: Installer::Pip { import_path: import_path.clone(), version: number },
        })
    }

    /// Parses all requirements files.
    ///
    /// # Errors
    /// A file cannot be read, or this engine cannot apply a line.
    pub(super) async fn read(
        &self,
        settings: &Settings,
        inputs: &Inputs,
        cwd: Option<&Path>,
        deadline: Deadline,
    ) -> Result<Flat> {
        let mut flat = Flat::read(&inputs.requirements, &inputs.constraints, settings, cwd, deadline).await?;
        if self.is_uv() {
            flat.check_for_uv()?;
            return Ok(flat);
        }
        for file in inputs.of(Form::Pyproject) {
            let project = Pyproject::read(file)?;
            let lines = project.requirements(&inputs.extras, &inputs.groups);
            let lines = lines.map_err(|problem| Pyproject::error(file, problem))?;
            let name = cwd.and_then(|cwd| file.strip_prefix(cwd).ok()).unwrap_or(file);
            flat.add(name, &lines, settings)?;
        }
        Ok(flat)
    }

    /// Installs all inputs into an empty environment. `anew`: ignore every cache.
    pub(super) async fn install(
        &self,
        workspace: &Workspace<'_>,
        asked: &Asked,
        anew: bool,
        deadline: Deadline,
    ) -> Result<()> {
        self.work(workspace, asked, if anew { Mode::Reinstall } else { Mode::Install }, deadline).await.map(drop)
    }

    /// Resolves all inputs as for an installation. Installs nothing.
    ///
    /// # Errors
    /// Those of the installation, as far as it needs no archive; or the engine cannot resolve alone.
    pub(super) async fn plan(
        &self,
        workspace: &Workspace<'_>,
        asked: &Asked,
        deadline: Deadline,
    ) -> Result<Vec<Planned>> {
        if matches!(self.installer, Installer::Pip { version, .. } if version < REPORTS) {
            return Err(Error::environment(format!("{} cannot resolve without installing", self.name))
                .hint("use an image with pip 22.2 or newer, or give a uv binary with --engine"));
        }
        let outputs = self.work(workspace, asked, Mode::DryRun, deadline).await?;
        if outputs.is_empty() {
            return Ok(Vec::new());
        }
        let Installer::Uv(uv) = &self.installer else {
            let report = files::read(&workspace.scratch.join(REPORT), GENERATED);
            let report = report.on_volume(|| format!("cannot read the report of {}", self.name))?;
            return Ok(forecast::pip_plan(origin::pip_report(&report)));
        };
        let mut planned: Vec<Planned> = Vec::new();
        for output in outputs {
            // The first command installs a package, so the others find it.
            let of_output = forecast::uv_plan(&output, &self.name)?;
            let new = |found: &Planned| planned.iter().all(|earlier| earlier.name != found.name);
            let new: Vec<_> = of_output.into_iter().filter(new).collect();
            planned.extend(new);
        }
        let binaries = asked.flat.formats().chain(workspace.settings.uv_formats());
        let wanted = planned.iter().filter(|planned| planned.url.is_none()).map(Planned::requirement);
        let wanted = wanted.chain(binaries).collect();
        let fitting = self.locked(uv, workspace, asked, wanted, false, deadline).await?;
        forecast::with_archives(&mut planned, &fitting, &asked.locks());
        if let Some(Planned { name, .. }) = planned.iter().find(|planned| planned.builds == Some(true))
            && workspace.settings.only_binary()
        {
            return Err(Error::environment(format!("{name} has no wheel for {}", workspace.app))
                .because("it needs a build, which --only-binary forbids")
                .hint(format!("name a version that has a wheel, or put one into --find-links; or {ALLOW_BUILDS}")));
        }
        Ok(planned)
    }

    /// Runs the engine's commands for all inputs. Returns what each printed to stderr.
    async fn work(
        &self,
        workspace: &Workspace<'_>,
        asked: &Asked,
        mode: Mode,
        deadline: Deadline,
    ) -> Result<Vec<String>> {
        let Asked { inputs, cwd, flat, .. } = asked;
        if inputs.is_empty() {
            return Ok(Vec::new());
        }
        let mut settings = workspace.settings.clone();
        settings.add_links(&inputs.find_links);
        settings.log_in()?;
        flat.apply(&mut settings);
        let files = flat.write(workspace.scratch, &mut settings, self.is_uv())?;
        let steps = self.steps(inputs, flat, &files, &mut settings)?;
        let netrc = settings.netrc(workspace.scratch)?;
        let git = settings.git_variables(&reach::repositories(inputs, flat), workspace.scratch)?;
        let mut said = Vec::new();
        for step in steps {
            let mut command = match &self.installer {
                Installer::Uv(uv) => uv_install(uv, workspace, &settings, &step, inputs.refresh, mode, deadline)
                    .args(uv_target(workspace.app, step.sync)?),
                Installer::Pip { import_path, version } => {
                    let command =
                        pip_install(import_path, *version, workspace, &settings, inputs.refresh, mode, deadline);
                    pip_target(command, workspace.app)?
                }
            };
            command = command
                .args(&step.args)
                .cwd(cwd.as_deref().unwrap_or(workspace.scratch))
                .envs(netrc.iter().map(|netrc| ("NETRC", &netrc.path)))
                .envs(git.iter().map(|(name, value)| (name, value)));
            said.push(self.run(workspace, flat, &settings, command, deadline).await?);
        }
        Ok(said)
    }

    /// Runs one command of the engine, and explains its failure.
    async fn run(
        &self,
        workspace: &Workspace<'_>,
        flat: &Flat,
        settings: &Settings,
        command: Command,
        deadline: Deadline,
    ) -> Result<String> {
        let output = with_certificates(command, workspace, settings)?.run(deadline).await.map_err(|failure| {
            let late = matches!(failure, Failure::Deadline { .. });
            let error = child_error(&format!("{} did not finish the installation", self.name), failure);
            // Most of an installation waits for an index.
            if late { error.unreachable() } else { error }
        })?;
        if output.status.success() {
            // uv's lock file is writable for every user.
            let lock = workspace.dir.join(".lock");
            let removed = files::unless_absent(std::fs::remove_file(&lock));
            removed.on_volume(|| format!("cannot remove {}", lock.display()))?;
            return Ok(output.stderr);
        }
        let stderr = flat.locate(&output.stderr, workspace.scratch);
        let failed = Failed {
            engine: &self.name,
            status: output.status.to_string(),
            stderr: &stderr,
            python: &workspace.app.version,
            platform: &workspace.app.to_string(),
            elsewhere: workspace.app.is_elsewhere(),
            settings,
            deadline,
        };
        Err(failed.explain().await)
    }

    /// The commands that install all inputs: one for each lock file, and one for the rest.
    ///
    /// # Errors
    /// The engine or the settings do not permit an input.
    fn steps(&self, inputs: &Inputs, flat: &Flat, files: &[PathBuf], settings: &mut Settings) -> Result<Vec<Step>> {
        let names = |flag: &str, names: &[String]| -> Vec<OsString> {
            names.iter().flat_map(|name| [flag.into(), name.into()]).collect()
        };
        let is_uv = self.is_uv();
        let builds = flat.builds.as_ref().map(ToString::to_string);
        if settings.only_binary()
            && let Some(place) = match builds {
                None => reach::configured(inputs, settings)?.map(|file| file.display().to_string()),
                found => found,
            }
        {
            return Err(Error::environment(format!("{place} requests builds, which --only-binary forbids"))
                .because("it contains no-binary or an editable project (-e)")
                .hint(ALLOW_BUILDS));
        }
        let mut steps = Vec::new();
        for file in inputs.requirements.iter().filter(|file| matches!(Form::of(file), Form::UvLock | Form::Pylock)) {
            if !is_uv {
                return Err(self.no_lock(file));
            }
            if settings.only_binary()
                && let Some(name) = lock::project(file)?
            {
                return Err(Error::environment(format!(
                    "{name} has no wheel: its source in {} is a directory",
                    file.display()
                ))
                .because("it needs a build, which --only-binary forbids")
                .hint(
                    "set `[tool.uv] package = false` and lock again if the app's files need no installation, or remove \
                     --only-binary",
                ));
            }
            if settings.no_index() && lock::names_urls(file)? {
                return Err(Error::environment(format!(
                    "{} contains URLs of package files, and uv downloads from these",
                    file.display()
                ))
                .because("--no-index forbids these downloads")
                .hint(
                    "commit the output of `uv export -o requirements.txt` and give that file: with \
                     --find-links it needs no network",
                ));
            }
            let names = [names("--extra", &inputs.extras), names("--group", &inputs.groups)].concat();
            steps.push(match Form::of(file) {
                Form::UvLock => {
                    let project = file.parent().unwrap_or(Path::new("/")).into();
                    // Keep the packages of other lock files.
                    let args = ["--project".into(), project, "--inexact".into()];
                    Step { sync: true, alone: true, args: [args.to_vec(), names].concat() }
                }
                _ => Step { sync: false, alone: true, args: [vec!["-r".into(), file.into()], names].concat() },
            });
        }
        let mut args: Vec<OsString> =
            inputs.packages.iter().map(|package| OsString::from(settings.without_password(package))).collect();
        let mut projects = Vec::new();
        for file in &inputs.requirements {
            match Form::of(file) {
                Form::Pyproject if is_uv => {
                    args.extend(["-r".into(), file.clone().into_os_string()]);
                    projects.push((file, Pyproject::read(file)?));
                }
                Form::Requirements | Form::Pyproject | Form::UvLock | Form::Pylock => {}
            }
        }
        if is_uv {
            for extra in inputs.extras.iter().filter(|extra| projects.iter().any(|(_, found)| found.has_extra(extra))) {
                args.extend(["--extra".into(), extra.into()]);
            }
            for (file, found) in &projects {
                for group in inputs.groups.iter().filter(|group| found.has_group(group)) {
                    let mut named = file.as_os_str().to_owned();
                    named.push(format!(":{group}"));
                    args.extend(["--group".into(), named]);
                }
            }
            // pip's rule: if one requirement has a hash, all need one.
            if flat.hashes {
                args.push("--require-hashes".into());
            }
        }
        if !args.is_empty() || !flat.is_empty() {
            args.extend(files.iter().map(|file| file.clone().into_os_string()));
            steps.push(Step { sync: false, alone: steps.is_empty(), args });
        }
        Ok(steps)
    }

    /// The error of a lock file with pip, which does not read them, or only as an experiment.
    fn no_lock(&self, lock: &Path) -> Error {
        let name = lock.file_name().unwrap_or_default().display();
        let other = lock.with_file_name("requirements.txt");
        let error = Error::environment(format!("{name} requires uv, but the engine is {}", self.name))
            .hint("use uv: put its static binary next to podstrap or on PATH, or give its path with --engine");
        if files::is_file(&other).unwrap_or_default() {
            error.hint("or give another file: -r requirements.txt")
        } else {
            error.hint(format!(
                "or commit the output of `uv export -o requirements.txt`, and give that file with -r instead of {name}"
            ))
        }
    }
}

/// One command of an engine.
struct Step {
    /// `uv sync` instead of `pip install`.
    sync: bool,
    /// --upgrade would change no version that a lock file pins.
    alone: bool,
    args: Vec<OsString>,
}

/// The file of pip's installation report.
const REPORT: &str = "report.json";
/// The first pip version that writes one.
const REPORTS: (u32, u32) = (22, 2);

impl Engine {
    /// The archives of the distributions, as far as the engine reports them.
    pub(super) async fn archives(
        &self,
        workspace: &Workspace<'_>,
        asked: &Asked,
        dists: &[Installed],
        deadline: Deadline,
    ) -> Vec<Archive> {
        let Installer::Uv(uv) = &self.installer else {
            let report = files::read(&workspace.scratch.join(REPORT), GENERATED).unwrap_or_default();
            return origin::pip_report(&report);
        };
        let mut archives = asked.locks();
        let named =
            dists.iter().filter(|dist| dist.direct_url.is_none() && origin::of_archive(dist, &archives).is_none());
        let wanted = named.map(|dist| format!("{}=={}", dist.name, dist.version)).collect();
        // uv has all data for it in its cache.
        match self.locked(uv, workspace, asked, wanted, true, deadline).await {
            Ok(locked) => archives.extend(locked),
            Err(error) => tracing::debug!("{}", error.told()),
        }
        archives
    }

    /// The archives of packages with these versions that fit the app: uv writes them to a lock file.
    async fn locked(
        &self,
        uv: &Path,
        workspace: &Workspace<'_>,
        asked: &Asked,
        wanted: Vec<String>,
        offline: bool,
        deadline: Deadline,
    ) -> Result<Vec<Archive>> {
        let Asked { inputs, cwd, flat, .. } = asked;
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let mut settings = workspace.settings.clone();
        settings.add_links(&inputs.find_links);
        if !offline {
            settings.log_in()?;
        }
        flat.apply(&mut settings);
        let lock = workspace.scratch.join("pylock.toml");
        let target = uv_target(workspace.app, false).unwrap_or_default();
        let mut command = uv_command(uv, workspace, &settings, UvCommand::Compile, deadline)
            .args(offline.then_some("--offline"))
            .args(["--no-deps", "--no-header", "--quiet", "--format", "pylock.toml", "--output-file"])
            .arg(&lock)
            .args(target)
            .arg("--python")
            // The environment's interpreter would run code of the packages (.pth files).
            .arg(workspace.base)
            .arg("-")
            .stdin(wanted.join("\n"))
            .cwd(cwd.as_deref().unwrap_or(workspace.scratch));
        let netrc = if offline { None } else { settings.netrc(workspace.scratch)? };
        if !offline {
            command = with_certificates(command, workspace, &settings)?;
        }
        command = command.envs(netrc.iter().map(|netrc| ("NETRC", &netrc.path)));
        match command.run(deadline).await {
            Ok(output) if output.status.success() => {}
            Ok(output) => tracing::debug!("uv does not report the origins of packages: {}", output.status),
            Err(failure) => tracing::debug!("uv does not report the origins of packages: {failure}"),
        }
        Ok(origin::lock(&files::read_text(&lock, GENERATED).unwrap_or_default()))
    }
}

/// Adds the certificates of --ca-file to those of the engine.
fn with_certificates(mut command: Command, workspace: &Workspace<'_>, settings: &Settings) -> Result<Command> {
    if let Some(mut text) = http::bundle()? {
        let path = workspace.scratch.join("ca.pem");
        // Add the user's certificates for pip. Keep the user's certificates for Git.
        if let Some(own) = settings.get("PIP_CERT") {
            match files::read_text(Path::new(own), WRITTEN) {
                Ok(own) => text.push_str(&own),
                // pip also takes a directory of certificates.
                Err(error) if error.kind() == ErrorKind::IsADirectory => {}
                Err(error) => {
                    let what = format!("cannot read the certificates in {own}");
                    return Err(files::unreadable(Kind::Usage, what, &error)
                        .hint("set PIP_CERT to an existing PEM file, or remove it"));
                }
            }
        }
        std::fs::write(&path, text).on_volume(|| format!("cannot write {}", path.display()))?;
        command = command.env("SSL_CERT_FILE", &path);
        if settings.get("PIP_CERT").is_none_or(|own| !files::is_dir(Path::new(own)).unwrap_or_default()) {
            command = command.env("PIP_CERT", &path);
        }
        if settings.get("GIT_SSL_CAINFO").is_none() {
            command = command.env("GIT_SSL_CAINFO", &path);
        }
    }
    Ok(command)
}

/// The arguments for uv with the Python and platform of the app.
fn uv_target(app: &App, sync: bool) -> Result<Vec<String>> {
    let mut args = Vec::new();
    if app.other_python && sync {
        return Err(Error::environment(format!("uv cannot install a uv.lock for another Python ({})", app.version))
            .because("`uv sync` installs only for the Python of the environment")
            .hint(
                "run podstrap in the app's own image, or commit the output of `uv export -o requirements.txt` \
                 and give that file",
            ));
    }
    if app.other_python {
        args.extend(["--python-version".into(), app.version.clone()]);
    }
    if let Some(platform) = &app.platform {
        let Some(name) = platform.for_uv() else {
            return Err(Error::environment(format!("uv cannot install for {platform}")).hint("use --engine pip"));
        };
        args.extend(["--python-platform".into(), name]);
    }
    Ok(args)
}

/// The same for pip, with every platform tag that fits.
fn pip_target(command: Command, app: &App) -> Result<Command> {
    if !app.is_elsewhere() {
        return Ok(command);
    }
    let markers = serde_json::to_string(&app.markers)
        .map_err(|error| Error::internal("cannot serialize the markers").because(error))?;
    let (major, minor) = app.python;
    // pip requires these options as arguments, even if variables set them.
    let mut args: Vec<String> = ["--only-binary=:all:", "--implementation", "cp", "--abi"].map(str::to_owned).into();
    args.extend([app.tag(), "--python-version".into(), format!("{major}.{minor}")]);
    for tag in app.platform.iter().flat_map(crate::plan::Platform::tags) {
        args.extend(["--platform".into(), tag]);
    }
    Ok(command.args(args).env(MARKERS, markers))
}

/// The longest time without data, in whole seconds, at least one.
fn silence(deadline: Deadline) -> String {
    deadline.silence().min(SILENCE).as_secs().max(1).to_string()
}

fn uv_install(
    uv: &Path,
    workspace: &Workspace<'_>,
    settings: &Settings,
    step: &Step,
    refresh: bool,
    mode: Mode,
    deadline: Deadline,
) -> Command {
    let of = if step.sync { UvCommand::Sync } else { UvCommand::Install };
    let mut command =
        uv_command(uv, workspace, settings, of, deadline).arg("--python").arg(workspace.dir.join("bin/python"));
    command = if step.sync {
        // For production: exactly the lock file, only the given groups, nothing editable.
        command.args(["--frozen", "--no-default-groups", "--no-editable"]).env("UV_PROJECT_ENVIRONMENT", workspace.dir)
    } else {
        command
    };
    // --upgrade would remove the pins of a lock file.
    if refresh && !step.sync && step.alone {
        command = command.arg("--upgrade");
    }
    match mode {
        Mode::Install => {}
        Mode::Reinstall => command = command.arg("--reinstall"),
        Mode::DryRun => command = command.arg("--dry-run"),
    }
    // uv rejects a repeated --refresh.
    if refresh || mode == Mode::Reinstall {
        command = command.arg("--refresh");
    }
    command
}

/// `uv pip install`, `uv pip compile` or `uv sync`, with the user's settings.
fn uv_command(uv: &Path, workspace: &Workspace<'_>, settings: &Settings, of: UvCommand, deadline: Deadline) -> Command {
    let command = settings.command(uv, workspace.scratch);
    // The configuration of the user and of the system applies, like pip.conf. A [tool.uv] in the tree does not, because
    // pip would not read it: with `--project /`, uv finds none.
    let command = match of {
        UvCommand::Sync => command.arg("sync"),
        UvCommand::Install => command.args(["pip", "install", "--project", "/"]),
        UvCommand::Compile => command.args(["pip", "compile", "--project", "/"]),
    };
    let mut command = command
        .args(["--no-progress", "--color", "never"])
        .args(settings.uv_arguments(of))
        // The interpreter is already chosen.
        .env("UV_PYTHON_DOWNLOADS", "never");
    for (name, value) in settings.uv_variables() {
        command = command.env(name, value);
    }
    if settings.get("UV_CACHE_DIR").is_none() {
        command = command.env("UV_CACHE_DIR", workspace.scratch.join(CACHE));
    }
    if ["UV_HTTP_TIMEOUT", "UV_REQUEST_TIMEOUT", "HTTP_TIMEOUT", "PIP_TIMEOUT", "PIP_DEFAULT_TIMEOUT"]
        .iter()
        .all(|name| settings.get(name).is_none())
    {
        command = command.env("UV_HTTP_TIMEOUT", silence(deadline));
    }
    if settings.get("UV_HTTP_RETRIES").is_none() && settings.get("PIP_RETRIES").is_none() {
        command = command.env("UV_HTTP_RETRIES", TRIES_INSIDE);
    }
    // If the image has no root certificates, uv uses its own.
    if settings.get("UV_SYSTEM_CERTS").is_none() && !rustls_native_certs::load_native_certs().certs.is_empty() {
        command = command.env("UV_SYSTEM_CERTS", "1");
    }
    command
}

fn pip_install(
    pip: &Path,
    version: (u32, u32),
    workspace: &Workspace<'_>,
    settings: &Settings,
    refresh: bool,
    mode: Mode,
    deadline: Deadline,
) -> Command {
    let mut command = settings
        .command(&workspace.dir.join("bin/python"), workspace.scratch)
        .args(["-I", "-B", "-c", RUN_PIP])
        .arg(pip)
        .arg(if settings.only_binary() { "only-binary" } else { "build" })
        .args(["install", "--no-input", "--disable-pip-version-check", "--no-warn-script-location", "--no-compile"])
        // The options of its configuration files are variables.
        .env("PIP_CONFIG_FILE", "/dev/null")
        // The bytecode of an editable repository would mention the build path. podstrap compiles later.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        // podstrap reads its messages.
        .env("PIP_QUIET", "0")
        .env("PIP_NO_COLOR", "1")
        .env("PIP_ROOT_USER_ACTION", "ignore");
    if settings.get("PIP_CACHE_DIR").is_none() || mode == Mode::Reinstall {
        command = command.arg("--no-cache-dir");
    }
    if mode == Mode::DryRun {
        command = command.arg("--dry-run");
    }
    if settings.get("PIP_TIMEOUT").is_none() && settings.get("PIP_DEFAULT_TIMEOUT").is_none() {
        command = command.env("PIP_TIMEOUT", silence(deadline));
    }
    if settings.get("PIP_RETRIES").is_none() {
        command = command.env("PIP_RETRIES", TRIES_INSIDE);
    }
    if refresh {
        command = command.arg("--upgrade");
    }
    if version >= REPORTS {
        command = command.arg("--report").arg(workspace.scratch.join(REPORT));
    }
    // Without this, a project without pyproject.toml needs setuptools in the environment before pip 23.1.
    if version < (23, 1) {
        command = command.arg("--use-pep517");
    }
    command
}
