//! What can be typed: every flag and its PODSTRAP_* variable. What it means is `plan`'s matter.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, Resettable};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::size::Size;
use crate::telemetry::{LogFormat, LogLevel};

/// Where the kubelet reads a container's last words, unless the Pod says otherwise.
pub const TERMINATION_LOG: &str = "/dev/termination-log";

/// Boot interpreted apps in Pods: clone, venv, pip install, publish; then configure NGINX Unit or
/// FreeUnit.
#[derive(Debug, Parser)]
#[command(name = "podstrap", version, max_term_width = 100)]
#[command(after_help = "Every flag can be given as PODSTRAP_<FLAG>: PODSTRAP_REPO, PODSTRAP_VENV_FINAL_PATH, \
    … Lists are separated by white space.\nExit codes: 0 done, 2 usage, 3 source, 4 environment, 5 volume, \
    6 Unit unreachable, 7 Unit refused, 8 probe failed, 130/143 interrupted, 1 anything else.")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub global: Global,
}

/// Their heading in every `--help`.
const EVERYWHERE: &str = "Everywhere";

#[derive(Debug, Args)]
pub struct Global {
    /// How stderr is written
    #[arg(long, global = true, help_heading = EVERYWHERE, value_enum, default_value = "text", env = "PODSTRAP_LOG_FORMAT")]
    pub log_format: LogFormat,
    /// How much is written; debug shows what children print
    #[arg(long, global = true, help_heading = EVERYWHERE, value_enum, default_value = "info", env = "PODSTRAP_LOG_LEVEL")]
    pub log_level: LogLevel,
    /// Where the last words go for `kubectl describe`; used if it exists
    #[arg(
        long,
        global = true,
        help_heading = EVERYWHERE,
        value_name = "PATH",
        default_value = TERMINATION_LOG,
        env = "PODSTRAP_TERMINATION_LOG"
    )]
    pub termination_log: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Clone, create the virtual environment, install, and publish into the shared volume
    Init(InitArgs),
    /// Wait for Unit's control socket, PUT the configuration, and prove it
    Apply(ApplyArgs),
    /// Keep the configuration in Unit for the life of the Pod: after its restarts, when it drifts, when
    /// the file changes
    Sidecar(SidecarArgs),
    /// Show Unit's listeners and applications; fails if an application has no process
    Status(StatusArgs),
    /// Check a Unit configuration, and what it names in the tree, without a Unit
    Check(CheckArgs),
    /// Copy this binary (and a static uv beside it) to where another container can run it
    CopySelf(CopySelfArgs),
    /// Try an app on this machine: init into a scratch directory, then serve it
    Up(UpArgs),
    /// Print a shell's completion script
    Completions(CompletionsArgs),
}

#[derive(Debug, Args)]
pub struct InitArgs {
    /// Git repository, archive, file or directory
    #[arg(long, value_name = "URL", env = "PODSTRAP_REPO")]
    pub repo: String,
    #[command(flatten)]
    pub checkout: CheckoutArgs,
    /// The shared volume
    #[arg(long, value_name = "DIR", env = "PODSTRAP_ROOT")]
    pub root: PathBuf,
    /// Publish the tree at NAME in the root instead of in the root itself
    #[arg(long, value_name = "NAME", env = "PODSTRAP_LINK")]
    pub link: Option<String>,
    #[command(flatten)]
    pub environment: EnvironmentArgs,
    /// Also copy this binary (and a static uv beside it) to PATH
    #[arg(long, value_name = "PATH", env = "PODSTRAP_COPY_SELF")]
    pub copy_self: Option<PathBuf>,
    /// Also put the configuration into DIR, for an image whose entrypoint applies /docker-entrypoint.d
    #[arg(long, value_name = "DIR", env = "PODSTRAP_ENTRYPOINT_DIR")]
    pub entrypoint_dir: Option<PathBuf>,
    /// The configuration for --entrypoint-dir: a path in the tree or an absolute one
    #[arg(long, value_name = "FILE", env = "PODSTRAP_CONFIG")]
    pub config: Option<PathBuf>,
    /// Keep what is published, with a warning, if the repository or the package index cannot be reached
    #[arg(long, value_parser = BoolishValueParser::new(), env = "PODSTRAP_STALE_OK")]
    pub stale_ok: bool,
    /// What may be on the volume at any time, as an emptyDir's sizeLimit: 500Mi, 2Gi
    #[arg(long, value_name = "SIZE", default_value = "32Gi", env = "PODSTRAP_SIZE_LIMIT")]
    pub size_limit: Size,
    /// Time for everything, retries included
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration, env = "PODSTRAP_TIMEOUT")]
    pub timeout: Duration,
}

#[derive(Debug, Clone, Args)]
pub struct CheckoutArgs {
    /// Branch, tag, full commit SHA or refs/… name [default: the repository's HEAD]
    #[arg(long = "ref", value_name = "REF", env = "PODSTRAP_REF")]
    pub reference: Option<String>,
    /// Commits of history to fetch; 0 for all
    #[arg(long, value_name = "N", default_value_t = 1, env = "PODSTRAP_DEPTH")]
    pub depth: u32,
    /// Fetch no submodules, those of the repository itself, or theirs as well
    #[arg(long, value_enum, default_value = "recursive", env = "PODSTRAP_SUBMODULES")]
    pub submodules: Submodules,
    /// Publish only this directory of the source: it becomes the tree
    #[arg(long, value_name = "PATH", env = "PODSTRAP_SUBDIR")]
    pub subdir: Option<PathBuf>,
    /// Leave a usable .git in the tree
    #[arg(long, value_parser = BoolishValueParser::new(), env = "PODSTRAP_KEEP_GIT")]
    pub keep_git: bool,
    /// Publish Git LFS pointers as they are, with a warning, instead of failing
    #[arg(long, value_parser = BoolishValueParser::new(), env = "PODSTRAP_ALLOW_LFS_POINTERS")]
    pub allow_lfs_pointers: bool,
    /// Drop the first N components of an archive's paths
    #[arg(long, value_name = "N", default_value_t = 0, env = "PODSTRAP_STRIP_COMPONENTS")]
    pub strip_components: usize,
    /// The URL is a single file: publish it as NAME
    #[arg(long, value_name = "NAME", env = "PODSTRAP_FILE")]
    pub file: Option<String>,
    /// Credentials: a mounted Secret's directory (kubernetes.io/basic-auth, kubernetes.io/ssh-auth), or
    /// a file (token, netrc, private key, `known_hosts`); repeatable
    #[arg(long, value_name = "PATH", env = "PODSTRAP_AUTH")]
    pub auth: Vec<PathBuf>,
    /// CA certificates (PEM) to trust besides the usual ones
    #[arg(long, value_name = "FILE", env = "PODSTRAP_CA_FILE")]
    pub ca_file: Option<PathBuf>,
}

/// git-sync's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Submodules {
    Off,
    Shallow,
    Recursive,
}

#[derive(Debug, Args)]
pub struct EnvironmentArgs {
    /// The virtual environment's directory in the tree, or `none` [default: venv, if there is
    /// anything to install]
    #[arg(long, value_name = "PATH", env = "PODSTRAP_VENV")]
    pub venv: Option<String>,
    /// Where the app's container sees the environment [default: where it is published]
    #[arg(long, value_name = "PATH", env = "PODSTRAP_VENV_FINAL_PATH")]
    pub venv_final_path: Option<PathBuf>,
    /// Base interpreter: a path, or a version to look for [default: python3 on PATH]
    #[arg(long, value_name = "PATH|X.Y", env = "PODSTRAP_PYTHON")]
    pub python: Option<String>,
    /// What to install, a file in the tree known by its name: requirements, pyproject.toml (its
    /// dependencies), pylock.toml, uv.lock; repeatable [default: what the tree has, if no package is
    /// named]
    #[arg(short, long = "requirement", value_name = "FILE", env = "PODSTRAP_REQUIREMENT")]
    pub requirements: Vec<PathBuf>,
    /// Constraints file in the tree; repeatable
    #[arg(short, long = "constraint", value_name = "FILE", env = "PODSTRAP_CONSTRAINT")]
    pub constraints: Vec<PathBuf>,
    /// Extra of a pyproject.toml or uv.lock to install as well; repeatable
    #[arg(long = "extra", value_name = "NAME", env = "PODSTRAP_EXTRA")]
    pub extras: Vec<String>,
    /// Dependency group of a pyproject.toml or uv.lock to install as well; repeatable
    #[arg(long = "group", value_name = "NAME", env = "PODSTRAP_GROUP")]
    pub groups: Vec<String>,
    #[command(flatten)]
    pub supply: SupplyArgs,
    /// What installs: uv if there is one, else pip; or the path of a uv binary
    #[arg(long, value_name = "auto|uv|pip|PATH", default_value = "auto", env = "PODSTRAP_ENGINE")]
    pub engine: String,
    /// Build a new environment even if nothing changed, with the newest versions allowed
    #[arg(long, value_parser = BoolishValueParser::new(), env = "PODSTRAP_REFRESH")]
    pub refresh: bool,
    /// The interpreter's path in the app's image [default: the base interpreter's, or with another
    /// --target-python /usr/local/bin/pythonX.Y]
    #[arg(long, value_name = "PATH", env = "PODSTRAP_PYTHON_FINAL_PATH")]
    pub python_final_path: Option<PathBuf>,
    /// Install wheels for the app image's Python, where that is another than this one
    #[arg(long, value_name = "X.Y", env = "PODSTRAP_TARGET_PYTHON")]
    pub target_python: Option<String>,
    /// Install wheels for the app image's C library and processor: `manylinux_2_28_x86_64`,
    /// `musllinux_1_2_aarch64`
    #[arg(long, value_name = "TAG", env = "PODSTRAP_TARGET_PLATFORM")]
    pub target_platform: Option<String>,
    /// Fail where a warning says that an installed package is not what it should be
    #[arg(long, value_parser = BoolishValueParser::new(), env = "PODSTRAP_STRICT")]
    pub strict: bool,
    /// Packages to install: Flask, gunicorn==23.0.0, …
    #[arg(value_name = "PACKAGE", env = "PODSTRAP_PACKAGE")]
    pub packages: Vec<String>,
}

/// From where packages may come, and which.
#[derive(Debug, Args)]
pub struct SupplyArgs {
    /// Ask no package index: what is installed comes from --find-links and URLs
    #[arg(long, value_parser = BoolishValueParser::new(), env = "PODSTRAP_NO_INDEX")]
    pub no_index: bool,
    /// Where archives are besides the index: a directory in the tree, an absolute path, or the URL of a
    /// page with links; repeatable
    #[arg(short = 'f', long, value_name = "PATH|URL", env = "PODSTRAP_FIND_LINKS")]
    pub find_links: Vec<String>,
    /// Build nothing: no code of a package runs during the installation
    #[arg(long, value_parser = BoolishValueParser::new(), env = "PODSTRAP_ONLY_BINARY")]
    pub only_binary: bool,
    /// Take only what the requirements pin by a hash
    #[arg(long, value_parser = BoolishValueParser::new(), env = "PODSTRAP_REQUIRE_HASHES")]
    pub require_hashes: bool,
}

#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The configuration, sent as it is: Unit's comments and trailing commas are fine; or a directory
    /// as the image's entrypoint takes it: *.pem, *.js, *.json
    #[arg(long, value_name = "FILE|DIR", env = "PODSTRAP_CONFIG")]
    pub config: PathBuf,
    /// The part of Unit's configuration that the file is
    #[arg(long, value_name = "PATH", default_value = "/config", env = "PODSTRAP_PATH")]
    pub path: String,
    /// Unit's control socket [default: the first usual path that answers]
    #[arg(long, value_name = "PATH|unix:PATH|http://HOST:PORT", env = "PODSTRAP_CONTROL_SOCKET")]
    pub control_socket: Option<String>,
    /// Time to wait for the socket and for the applications to start
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration, env = "PODSTRAP_TIMEOUT")]
    pub timeout: Duration,
    /// Afterwards GET this from the listener; any answer below 500 passes
    #[arg(long, value_name = "URL", env = "PODSTRAP_PROBE")]
    pub probe: Option<String>,
}

#[derive(Debug, Args)]
pub struct SidecarArgs {
    /// The configuration, or a directory as the image's entrypoint takes it: *.pem, *.js, *.json
    #[arg(long, value_name = "FILE|DIR", env = "PODSTRAP_CONFIG")]
    pub config: PathBuf,
    /// Unit's control socket [default: the first usual path that answers]
    #[arg(long, value_name = "PATH|unix:PATH|http://HOST:PORT", env = "PODSTRAP_CONTROL_SOCKET")]
    pub control_socket: Option<String>,
    /// Time for one apply, until the applications have started; Unit itself is waited for without end
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration, env = "PODSTRAP_TIMEOUT")]
    pub timeout: Duration,
    /// After each apply GET this from the listener, and warn unless it answers below 500
    #[arg(long, value_name = "URL", env = "PODSTRAP_PROBE")]
    pub probe: Option<String>,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Unit's control socket [default: the first usual path that answers]
    #[arg(long, value_name = "PATH|unix:PATH|http://HOST:PORT", env = "PODSTRAP_CONTROL_SOCKET")]
    pub control_socket: Option<String>,
    /// How it is shown, on stdout
    #[arg(long, value_enum, default_value = "text", env = "PODSTRAP_FORMAT")]
    pub format: OutputFormat,
    /// Time to wait for the answer: below the second that Kubernetes gives a probe
    #[arg(long, value_name = "DURATION", default_value = "900ms", value_parser = humantime::parse_duration, env = "PODSTRAP_TIMEOUT")]
    pub timeout: Duration,
}
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The configuration, or a directory with *.json as the image's entrypoint takes it
    #[arg(value_name = "CONFIG", env = "PODSTRAP_CONFIG")]
    pub config: PathBuf,
    /// Also look for what it names in DIR: the tree as it is published, or a checkout
    #[arg(long, value_name = "DIR", env = "PODSTRAP_TREE")]
    pub tree: Option<PathBuf>,
    /// The virtual environment's directory in the tree
    #[arg(long, value_name = "PATH", default_value = "venv", env = "PODSTRAP_VENV")]
    pub venv: PathBuf,
    /// Where the app's container sees the tree [default: follows from the first "home" and --venv]
    #[arg(long, value_name = "PATH", env = "PODSTRAP_TREE_FINAL_PATH")]
    pub tree_final_path: Option<PathBuf>,
    /// How stdout is written
    #[arg(long, value_enum, default_value = "text", env = "PODSTRAP_FORMAT")]
    pub format: OutputFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub struct CopySelfArgs {
    /// A file's path, or a directory's
    pub path: PathBuf,
}

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub struct UpArgs {
    /// Local directory, Git repository or archive [default: a small Flask example]
    #[arg(value_name = "DIR|URL", env = "PODSTRAP_REPO")]
    pub source: Option<String>,
    #[command(flatten)]
    pub checkout: CheckoutArgs,
    #[command(flatten)]
    pub environment: EnvironmentArgs,
    /// Unit's configuration, in the tree or an absolute path [default: unit.conf.json]
    #[arg(long, value_name = "FILE", env = "PODSTRAP_CONFIG")]
    pub config: Option<PathBuf>,
    /// Ask the app once, print its answer and exit
    #[arg(long, value_parser = BoolishValueParser::new(), env = "PODSTRAP_ONCE")]
    pub once: bool,
    /// Time until the app answers
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration, env = "PODSTRAP_TIMEOUT")]
    pub timeout: Duration,
}

impl Cli {
    /// Parses a command line; lists that came from a variable are split at white space, and an empty
    /// variable, as templates leave them, is none.
    ///
    /// # Errors
    /// clap's: unknown flags, missing values, and `--help` and `--version` as well.
    pub fn try_parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let matches = with_variables(Self::command()).try_get_matches_from(args)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        let lists = match &mut cli.command {
            Command::Init(InitArgs { checkout, environment, .. })
            | Command::Up(UpArgs { checkout, environment, .. }) => Some((checkout, environment)),
            Command::Apply(_)
            | Command::Sidecar(_)
            | Command::Status(_)
            | Command::Check(_)
            | Command::CopySelf(_)
            | Command::Completions(_) => None,
        };
        if let (Some((_, matches)), Some((checkout, environment))) = (matches.subcommand(), lists) {
            split(matches, "auth", &mut checkout.auth);
            split(matches, "packages", &mut environment.packages);
            split(matches, "requirements", &mut environment.requirements);
            split(matches, "constraints", &mut environment.constraints);
            split(matches, "extras", &mut environment.extras);
            split(matches, "groups", &mut environment.groups);
            split(matches, "find_links", &mut environment.supply.find_links);
        }
        Ok(cli)
    }
}

/// The completion script of a shell.
pub fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "podstrap", &mut script);
    script
}

/// What clap makes of variables, but for empty ones, and without their values in `--help`:
/// `PODSTRAP_REPO` may hold a token.
fn with_variables(command: clap::Command) -> clap::Command {
    let changed = command.mut_args(|arg| {
        let empty = arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
        let arg = arg.hide_env_values(true);
        if empty { arg.env(Resettable::Reset) } else { arg }
    });
    changed.mut_subcommands(with_variables)
}

fn split<T: AsRef<std::ffi::OsStr> + for<'a> From<&'a str>>(matches: &ArgMatches, id: &str, values: &mut Vec<T>) {
    if matches.value_source(id) != Some(ValueSource::EnvVariable) {
        return;
    }
    let joined: Vec<_> = values.iter().map(|value| value.as_ref().to_string_lossy().into_owned()).collect();
    *values = joined.iter().flat_map(|value| value.split_whitespace()).map(T::from).collect();
}

/// The variables that podstrap reads, for the warning about others of its prefix.
pub fn variables() -> Vec<String> {
    let command = Cli::command();
    let mut names: Vec<String> = command
        .get_subcommands()
        .chain([&command])
        .flat_map(|command| command.get_arguments().filter_map(clap::Arg::get_env))
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// A variable of our prefix that we do not know, with the known one it resembles.
#[derive(Debug, PartialEq, Eq)]
pub struct Misspelt {
    pub name: String,
    pub meant: Option<String>,
}

/// Finds variables that look like ours and are not. Those that Kubernetes injects for a Service
/// called `podstrap` or `podstrap-…` are left alone.
pub fn misspelt(names: impl IntoIterator<Item = String>) -> Vec<Misspelt> {
    let known = variables();
    names
        .into_iter()
        .filter(|name| name.starts_with("PODSTRAP_") && !known.contains(name) && !injected_for_service(name))
        .filter(|name| !name.starts_with("PODSTRAP_TEST_"))
        .map(|name| {
            let meant = known
                .iter()
                .map(|known| (strsim::damerau_levenshtein(&name, known), known))
                .min()
                .filter(|(distance, _)| *distance <= 3)
                .map(|(_, known)| known.clone());
            Misspelt { name, meant }
        })
        .collect()
}

/// `X_SERVICE_HOST`, `X_SERVICE_PORT[_NAME]`, `X_PORT`, `X_PORT_80_TCP[_PROTO|_PORT|_ADDR]`:
/// <https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables>
fn injected_for_service(name: &str) -> bool {
    if name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || name.ends_with("_PORT") {
        return true;
    }
    let Some((_, rest)) = name.split_once("_PORT_") else { return false };
    let mut parts = rest.split('_');
    parts.next().is_some_and(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
        && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
        && matches!(parts.next(), None | Some("PROTO" | "PORT" | "ADDR"))
        && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_its_variable() {
        let command = Cli::command();
        for sub in command.get_subcommands().chain([&command]) {
            for arg in sub.get_arguments().filter(|arg| !["help", "version"].contains(&arg.get_id().as_str())) {
                if let Some(long) = arg.get_long() {
                    let expected = format!("PODSTRAP_{}", long.to_uppercase().replace('-', "_"));
                    assert_eq!(arg.get_env().and_then(|e| e.to_str()), Some(expected.as_str()), "--{long}");
                }
            }
        }
    }

    #[test]
    fn a_misspelt_variable_is_found_and_a_service_is_not() {
        let names = [
            "PODSTRAP_REPO",
            "PODSTRAP_REPOO",
            "PODSTRAP_PORT",
            "PODSTRAP_SERVICE_HOST",
            "PODSTRAP_PORT_80_TCP_ADDR",
            "PODSTRAP_X_SERVICE_PORT_HTTP",
            "PODSTRAP_QQQQQQQQ",
            "HOME",
        ];
        let found = misspelt(names.map(String::from));
        assert_eq!(
            found,
            [
                Misspelt { name: "PODSTRAP_REPOO".into(), meant: Some("PODSTRAP_REPO".into()) },
                Misspelt { name: "PODSTRAP_QQQQQQQQ".into(), meant: None },
            ]
        );
    }
}
