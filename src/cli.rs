//! Every flag and its `PODSTRAP_*` variable, as typed. `plan` decides what they mean.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, Resettable};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::size::Size;
use crate::telemetry::{LogFormat, LogLevel};

/// The default `terminationMessagePath` of a container.
pub const TERMINATION_LOG: &str = "/dev/termination-log";

/// Fetch interpreted apps in Pods, install their packages, publish them, and configure NGINX Unit or
/// FreeUnit to run them.
#[derive(Debug, Parser)]
#[command(name = "podstrap", version, max_term_width = 100)]
#[command(after_help = "Every flag has a variable PODSTRAP_<FLAG>: PODSTRAP_REPO, PODSTRAP_VENV_FINAL_PATH, … \
    Separate the values of a repeatable flag with white space.\nExit codes: 0 done, 2 usage, 3 source, \
    4 environment, 5 volume, 6 Unit unreachable, 7 Unit refused or check found errors, \
    8 probe failed or an application has no process, 130/143 interrupted, 1 any other failure.")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub global: Global,
}

/// The heading of global flags in `--help`.
const EVERYWHERE: &str = "Everywhere";

#[derive(Debug, Args)]
pub struct Global {
    /// Format of stderr
    #[arg(long, global = true, help_heading = EVERYWHERE, value_enum, default_value = "text", env = "PODSTRAP_LOG_FORMAT")]
    pub log_format: LogFormat,
    /// Least severe level to log; debug adds the output of Git, pip and uv
    #[arg(long, global = true, help_heading = EVERYWHERE, value_enum, default_value = "info", env = "PODSTRAP_LOG_LEVEL")]
    pub log_level: LogLevel,
    /// Termination message file, written on exit if it exists; `kubectl describe` shows it
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
    /// Wait for Unit's control socket, PUT the configuration, and verify it
    Apply(ApplyArgs),
    /// Keep Unit configured while the Pod runs: reapply after restarts, drift and file changes
    Sidecar(SidecarArgs),
    /// Show Unit's listeners and applications; fail if an application has no process
    #[command(
        after_help = "Exit codes: 0 all applications run, 2 usage, 6 Unit unreachable, 8 an application has no process."
    )]
    Status(StatusArgs),
    /// Let `sidecar --repo` go back to the release before, and stay there until a newer commit or `resume`
    Rollback(OrderArgs),
    /// Let `sidecar --repo` serve the newest commit again after a `rollback`, or try a refused one again
    Resume(OrderArgs),
    /// Check a Unit configuration, and with --tree the files it names, without running Unit
    #[command(after_help = "Exit codes: 0 no errors, 2 usage, 7 errors.")]
    Check(CheckArgs),
    /// Copy this binary, and the static uv in its directory if there is one, for another container to run
    CopySelf(CopySelfArgs),
    /// List, verify or prune the entries of a store of ready environments
    #[command(after_help = "Exit codes: 0 done, 2 usage, 5 the store is unusable, or verify found entries that are.")]
    Store(StoreArgs),
    /// Try an app on this machine: build it in a temporary directory, then serve it
    Up(UpArgs),
    /// Print a shell completion script
    Completions(CompletionsArgs),
}

#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// Git repository, archive, file or directory to publish
    #[arg(long, value_name = "URL", env = "PODSTRAP_REPO")]
    pub repo: String,
    /// Directory where the shared volume is mounted [default with --dry-run: /app]
    #[arg(long, value_name = "DIR", env = "PODSTRAP_ROOT", required_unless_present = "dry_run")]
    pub root: Option<PathBuf>,
    #[command(flatten)]
    pub release: ReleaseArgs,
    /// Also copy this binary to PATH, with the static uv in its directory if there is one
    #[arg(long, value_name = "PATH", env = "PODSTRAP_COPY_SELF")]
    pub copy_self: Option<PathBuf>,
    /// Also write the file of --config to DIR; mount DIR as /docker-entrypoint.d in Unit's container
    #[arg(long, value_name = "DIR", env = "PODSTRAP_ENTRYPOINT_DIR")]
    pub entrypoint_dir: Option<PathBuf>,
    /// Unit configuration for --entrypoint-dir: a path in the tree or an absolute path
    #[arg(long, value_name = "FILE", env = "PODSTRAP_CONFIG")]
    pub config: Option<PathBuf>,
    /// Keep the published release, with a warning, if the repository or the package index is unreachable
    #[arg(long, value_parser = BoolishValueParser::new(), env = "PODSTRAP_STALE_OK")]
    pub stale_ok: bool,
    /// Only save the environment in the store: publish nothing, and fail if it cannot be saved
    #[arg(long, value_parser = BoolishValueParser::new(), env = "PODSTRAP_STORE_ONLY")]
    pub store_only: bool,
    /// Say what a run on a new volume would fetch, download and build, and fail as it would; publish nothing
    #[arg(long, value_parser = BoolishValueParser::new(), env = "PODSTRAP_DRY_RUN")]
    pub dry_run: bool,
    /// Format of stdout with --dry-run
    #[arg(long, value_enum, default_value = "text", env = "PODSTRAP_FORMAT")]
    pub format: OutputFormat,
    /// Time limit for the whole run, retries included
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration, env = "PODSTRAP_TIMEOUT")]
    pub timeout: Duration,
}

/// What a release contains, and where it is published.
#[derive(Debug, Clone, Args)]
pub struct ReleaseArgs {
    #[command(flatten)]
    pub checkout: CheckoutArgs,
    /// Publish the tree at NAME in the root instead of in the root itself
    #[arg(long, value_name = "NAME", env = "PODSTRAP_LINK")]
    pub link: Option<String>,
    #[command(flatten)]
    pub environment: EnvironmentArgs,
    /// Write each release to disk before it is published: for a volume that outlives the node
    #[arg(long, value_parser = BoolishValueParser::new(), env = "PODSTRAP_DURABLE")]
    pub durable: bool,
    /// Maximum that podstrap may store on the volume at any time; set it to the emptyDir's sizeLimit, such
    /// as 500Mi or 2Gi
    #[arg(long, value_name = "SIZE", default_value = "32Gi", env = "PODSTRAP_SIZE_LIMIT")]
    pub size_limit: Size,
}

#[derive(Debug, Clone, Args)]
pub struct CheckoutArgs {
    /// Branch, tag, full commit SHA or refs/… name [default: the repository's HEAD]
    #[arg(long = "ref", value_name = "REF", env = "PODSTRAP_REF")]
    pub reference: Option<String>,
    /// Number of commits to fetch for --keep-git; 0 for the whole history
    #[arg(long, value_name = "N", default_value_t = 1, env = "PODSTRAP_DEPTH")]
    pub depth: u32,
    /// Submodules to fetch: none (off), direct ones (shallow), or nested ones too (recursive)
    #[arg(long, value_enum, default_value = "recursive", env = "PODSTRAP_SUBMODULES")]
    pub submodules: Submodules,
    /// Publish only this directory of the source
    #[arg(long, value_name = "PATH", env = "PODSTRAP_SUBDIR")]
    pub subdir: Option<PathBuf>,
    /// Keep a usable .git in the tree
    #[arg(long, value_parser = BoolishValueParser::new(), env = "PODSTRAP_KEEP_GIT")]
    pub keep_git: bool,
    /// Publish only a commit with an SSH signature of a key in this file (or with such a tag)
    #[arg(id = "verify_source", long = "verify", value_name = "ALLOWED_SIGNERS", env = "PODSTRAP_VERIFY")]
    pub verify: Option<PathBuf>,
    /// Contents of Git LFS: fetch them (on), or publish the pointer files with a warning (off)
    #[arg(long, value_enum, default_value = "on", env = "PODSTRAP_LFS")]
    pub lfs: Lfs,
    /// The old name of --lfs off
    #[arg(long, hide = true, value_parser = BoolishValueParser::new(), env = "PODSTRAP_ALLOW_LFS_POINTERS")]
    pub allow_lfs_pointers: bool,
    /// Strip N leading components from the paths in an archive
    #[arg(long, value_name = "N", default_value_t = 0, env = "PODSTRAP_STRIP_COMPONENTS")]
    pub strip_components: usize,
    /// Treat the URL as a single file and publish it as NAME
    #[arg(long, value_name = "NAME", env = "PODSTRAP_FILE")]
    pub file: Option<String>,
    /// Credentials: the directory of a mounted Secret (kubernetes.io/basic-auth, kubernetes.io/ssh-auth,
    /// kubernetes.io/dockerconfigjson, or with a key token or netrc), or a file (token, netrc, private key, known
    /// hosts, Docker's config.json); repeatable
    #[arg(long, value_name = "PATH", env = "PODSTRAP_AUTH")]
    pub auth: Vec<PathBuf>,
    /// Extra CA certificates to trust, in PEM
    #[arg(long, value_name = "FILE", env = "PODSTRAP_CA_FILE")]
    pub ca_file: Option<PathBuf>,
}

/// The values of git-sync's `--submodules`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Submodules {
    Off,
    Shallow,
    Recursive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Lfs {
    On,
    Off,
}

#[derive(Debug, Clone, Args)]
pub struct EnvironmentArgs {
    /// Directory of the virtual environment in the tree, or `none` [default: venv, if there is
    /// anything to install]
    #[arg(long, value_name = "PATH", env = "PODSTRAP_VENV")]
    pub venv: Option<String>,
    /// Path of the environment in the app's container [default: where it is published]
    #[arg(long, value_name = "PATH", env = "PODSTRAP_VENV_FINAL_PATH")]
    pub venv_final_path: Option<PathBuf>,
    /// Base interpreter: a path, or a version to find on PATH [default: python3 on PATH]
    #[arg(long, value_name = "PATH|X.Y", env = "PODSTRAP_PYTHON")]
    pub python: Option<String>,
    /// Install from this file: requirements, pyproject.toml (its dependencies), pylock.toml or uv.lock;
    /// repeatable [default: the first of them in the tree, if no package is named]
    #[arg(short, long = "requirement", value_name = "FILE", env = "PODSTRAP_REQUIREMENT")]
    pub requirements: Vec<PathBuf>,
    /// Constraints file, or its URL; repeatable
    #[arg(short, long = "constraint", value_name = "FILE", env = "PODSTRAP_CONSTRAINT")]
    pub constraints: Vec<PathBuf>,
    /// Also install this extra of the pyproject.toml or uv.lock; repeatable
    #[arg(long = "extra", value_name = "NAME", env = "PODSTRAP_EXTRA")]
    pub extras: Vec<String>,
    /// Also install this dependency group of the pyproject.toml or uv.lock; repeatable
    #[arg(long = "group", value_name = "NAME", env = "PODSTRAP_GROUP")]
    pub groups: Vec<String>,
    #[command(flatten)]
    pub supply: SupplyArgs,
    /// Installer: auto uses uv if podstrap finds one, else pip; a PATH names a uv binary
    #[arg(long, value_name = "auto|uv|pip|PATH", default_value = "auto", env = "PODSTRAP_ENGINE")]
    pub engine: String,
    /// Run this command with /bin/sh in the complete tree, before it is published; repeatable, in this order
    #[arg(long = "run", value_name = "COMMAND", env = "PODSTRAP_RUN")]
    pub commands: Vec<String>,
    /// Build a new environment with the newest allowed versions, even if nothing changed
    #[arg(long, value_parser = BoolishValueParser::new(), env = "PODSTRAP_REFRESH")]
    pub refresh: bool,
    /// Path of the interpreter in the app's image [default: the path of the base interpreter, or
    /// /usr/local/bin/pythonX.Y if --target-python differs]
    #[arg(long, value_name = "PATH", env = "PODSTRAP_PYTHON_FINAL_PATH")]
    pub python_final_path: Option<PathBuf>,
    /// Python version of the app's image, if it differs: install wheels for this version
    #[arg(long, value_name = "X.Y", env = "PODSTRAP_TARGET_PYTHON")]
    pub target_python: Option<String>,
    /// C library and processor of the app's image, if they differ: `manylinux_2_28_x86_64`,
    /// `musllinux_1_2_aarch64`
    #[arg(long, value_name = "TAG", env = "PODSTRAP_TARGET_PLATFORM")]
    pub target_platform: Option<String>,
    /// Fail instead of warning if an installed package lacks a file, its compiled module or a requirement
    #[arg(long, value_parser = BoolishValueParser::new(), env = "PODSTRAP_STRICT")]
    pub strict: bool,
    #[command(flatten)]
    pub store: StoreFlags,
    /// Packages to install: Flask, gunicorn==23.0.0, …
    #[arg(value_name = "PACKAGE", env = "PODSTRAP_PACKAGE")]
    pub packages: Vec<String>,
}

/// The store of ready environments.
#[derive(Debug, Clone, Args)]
pub struct StoreFlags {
    /// Directory or registry with ready environments that Pods share: restore the environment from it, or build and
    /// save it
    #[arg(long, value_name = "DIR|oci://HOST/NAME", env = "PODSTRAP_STORE")]
    pub store: Option<PathBuf>,
    /// Build again after this time if the requirements do not name every version
    #[arg(long = "store-max-age", value_name = "DURATION", default_value = "24h", value_parser = humantime::parse_duration, env = "PODSTRAP_STORE_MAX_AGE")]
    pub max_age: Duration,
    /// Sign new entries with this SSH private key
    #[arg(long = "store-sign", value_name = "FILE", env = "PODSTRAP_STORE_SIGN")]
    pub sign: Option<PathBuf>,
    /// Use only entries that a key in this file has signed; its format is that of ssh-keygen's allowed signers
    #[arg(long = "store-verify", value_name = "FILE", env = "PODSTRAP_STORE_VERIFY")]
    pub verify: Option<PathBuf>,
    /// After saving, delete the entries that nobody used for the longest time until the store has this size
    #[arg(long = "store-limit", value_name = "SIZE", env = "PODSTRAP_STORE_LIMIT")]
    pub limit: Option<Size>,
}

/// Where packages may come from, and which ones.
#[derive(Debug, Clone, Args)]
pub struct SupplyArgs {
    /// Ignore the package index; install only from --find-links and URLs
    #[arg(long, value_parser = BoolishValueParser::new(), env = "PODSTRAP_NO_INDEX")]
    pub no_index: bool,
    /// Extra place to find packages: a directory in the tree, an absolute path, or the URL of a page with
    /// links; repeatable
    #[arg(short = 'f', long, value_name = "PATH|URL", env = "PODSTRAP_FIND_LINKS")]
    pub find_links: Vec<String>,
    /// Install only wheels: never run package code during installation
    #[arg(long, value_parser = BoolishValueParser::new(), env = "PODSTRAP_ONLY_BINARY")]
    pub only_binary: bool,
    /// Require a hash for every requirement
    #[arg(long, value_parser = BoolishValueParser::new(), env = "PODSTRAP_REQUIRE_HASHES")]
    pub require_hashes: bool,
}

#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// Unit configuration, sent unchanged (comments and trailing commas are allowed); or a directory
    /// like /docker-entrypoint.d: *.pem, *.js, *.json
    #[arg(long, value_name = "FILE|DIR", env = "PODSTRAP_CONFIG")]
    pub config: PathBuf,
    /// Part of Unit's configuration that the file replaces
    #[arg(long, value_name = "PATH", default_value = "/config", env = "PODSTRAP_PATH")]
    pub path: String,
    /// Unit's control socket [default: the first usual path that answers]
    #[arg(long, value_name = "PATH|unix:PATH|http://HOST:PORT", env = "PODSTRAP_CONTROL_SOCKET")]
    pub control_socket: Option<String>,
    /// Time limit for the socket to answer and the applications to start
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration, env = "PODSTRAP_TIMEOUT")]
    pub timeout: Duration,
    /// After the apply, GET this URL from the listener; any status below 500 passes
    #[arg(long, value_name = "URL", env = "PODSTRAP_PROBE")]
    pub probe: Option<String>,
}

#[derive(Debug, Args)]
pub struct SidecarArgs {
    /// Unit configuration, or a directory like /docker-entrypoint.d: *.pem, *.js, *.json; with --repo, a relative path
    /// is one in the tree, and without a configuration only the files follow
    #[arg(long, value_name = "FILE|DIR", env = "PODSTRAP_CONFIG", required_unless_present = "repo")]
    pub config: Option<PathBuf>,
    /// Unit's control socket [default: the first usual path that answers]
    #[arg(long, value_name = "PATH|unix:PATH|http://HOST:PORT", env = "PODSTRAP_CONTROL_SOCKET")]
    pub control_socket: Option<String>,
    /// Time limit for one apply; the sidecar waits for Unit itself without a limit
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration, env = "PODSTRAP_TIMEOUT")]
    pub timeout: Duration,
    /// After each apply, GET this URL from the listener and warn on status 500 or above
    #[arg(long, value_name = "URL", env = "PODSTRAP_PROBE")]
    pub probe: Option<String>,
    #[command(flatten)]
    pub follow: FollowArgs,
}

/// The flags of `sidecar` to follow a branch.
#[derive(Debug, Args)]
pub struct FollowArgs {
    /// Follow this Git repository: build each new commit, try it, and let Unit serve it. No variable sets this flag, because
    /// containers often share the variables for `podstrap init`
    #[arg(long, value_name = "URL")]
    pub repo: Option<String>,
    /// A flag that was typed although it means nothing without --repo.
    #[arg(skip)]
    pub alone: Option<String>,
    /// Directory where the shared volume is mounted
    #[arg(long, value_name = "DIR", env = "PODSTRAP_ROOT")]
    pub root: Option<PathBuf>,
    #[command(flatten)]
    pub release: ReleaseArgs,
    /// Time limit for one build, retries included
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration, env = "PODSTRAP_BUILD_TIMEOUT")]
    pub build_timeout: Duration,
    /// Time between two looks at the reference, plus or minus 20 %
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration, env = "PODSTRAP_PERIOD")]
    pub period: Duration,
    /// Try each release in Unit beside the one that serves, before it serves
    #[arg(long, value_enum, default_value = "on", env = "PODSTRAP_CANARY")]
    pub canary: Canary,
    /// After a switch, GET --probe for this long; three failures in a row bring the release before back, which stays at least as
    /// long
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration, env = "PODSTRAP_WATCH")]
    pub watch: Duration,
    /// Number of releases to keep on the volume, with the one that serves
    #[arg(long, value_name = "N", default_value_t = 2, env = "PODSTRAP_KEEP_RELEASES")]
    pub keep_releases: usize,
    /// Serve /healthz, /readyz, /metrics and /webhook at this address
    #[arg(long, value_name = "[HOST]:PORT", env = "PODSTRAP_HTTP_BIND")]
    pub http_bind: Option<String>,
    /// Accept a webhook of the Git server at /webhook that is signed with the secret in this file
    #[arg(long, value_name = "FILE", env = "PODSTRAP_WEBHOOK_SECRET")]
    pub webhook_secret: Option<PathBuf>,
    /// POST each release to this URL after it serves
    #[arg(long, value_name = "URL", env = "PODSTRAP_HOOK_URL")]
    pub hook_url: Option<String>,
}

/// Whether a release is tried before it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Canary {
    On,
    Off,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Unit's control socket [default: the first usual path that answers]
    #[arg(long, value_name = "PATH|unix:PATH|http://HOST:PORT", env = "PODSTRAP_CONTROL_SOCKET")]
    pub control_socket: Option<String>,
    /// Format of stdout
    #[arg(long, value_enum, default_value = "text", env = "PODSTRAP_FORMAT")]
    pub format: OutputFormat,
    /// Also show the release that `sidecar --repo` serves from the volume in DIR
    #[arg(long, value_name = "DIR", env = "PODSTRAP_ROOT")]
    pub root: Option<PathBuf>,
    /// Time limit for the answer; the default fits the 1 s that Kubernetes gives a probe
    #[arg(long, value_name = "DURATION", default_value = "900ms", value_parser = humantime::parse_duration, env = "PODSTRAP_TIMEOUT")]
    pub timeout: Duration,
}

#[derive(Debug, Args)]
pub struct OrderArgs {
    /// Directory where the shared volume is mounted
    #[arg(long, value_name = "DIR", env = "PODSTRAP_ROOT")]
    pub root: PathBuf,
    /// Time limit for the sidecar to do it
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration, env = "PODSTRAP_TIMEOUT")]
    pub timeout: Duration,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Unit configuration, or a directory like /docker-entrypoint.d with *.json
    #[arg(value_name = "CONFIG", env = "PODSTRAP_CONFIG")]
    pub config: PathBuf,
    /// Also check the configuration against the files in DIR, a published tree or a checkout
    #[arg(long, value_name = "DIR", env = "PODSTRAP_TREE")]
    pub tree: Option<PathBuf>,
    /// Directory of the virtual environment in the tree
    #[arg(long, value_name = "PATH", default_value = "venv", env = "PODSTRAP_VENV")]
    pub venv: PathBuf,
    /// Path of the tree in the app's container [default: derived from the first "home" and --venv]
    #[arg(long, value_name = "PATH", env = "PODSTRAP_TREE_FINAL_PATH")]
    pub tree_final_path: Option<PathBuf>,
    /// Format of stdout
    #[arg(long, value_enum, default_value = "text", env = "PODSTRAP_FORMAT")]
    pub format: OutputFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub struct StoreArgs {
    /// What to do with the entries
    #[arg(value_enum)]
    pub action: StoreAction,
    /// Directory or registry of the store
    #[arg(value_name = "DIR|oci://HOST/NAME", env = "PODSTRAP_STORE")]
    pub store: PathBuf,
    /// Login for a registry: the directory of a mounted Secret (kubernetes.io/dockerconfigjson), or a file; repeatable
    #[arg(long, value_name = "PATH", env = "PODSTRAP_AUTH")]
    pub auth: Vec<PathBuf>,
    /// Extra CA certificates to trust, in PEM
    #[arg(long, value_name = "FILE", env = "PODSTRAP_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// For verify: also require a signature by a key in this file
    #[arg(long = "store-verify", value_name = "FILE", env = "PODSTRAP_STORE_VERIFY")]
    pub verify: Option<PathBuf>,
    /// For prune: the size that the store may have
    #[arg(long = "store-limit", value_name = "SIZE", env = "PODSTRAP_STORE_LIMIT")]
    pub limit: Option<Size>,
    /// Format of stdout
    #[arg(long, value_enum, default_value = "text", env = "PODSTRAP_FORMAT")]
    pub format: OutputFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StoreAction {
    /// List the entries, the most recently used first
    List,
    /// Read every archive, and check its hash and its signature
    Verify,
    /// Delete the entries that nobody used for the longest time, and leftovers
    Prune,
}

#[derive(Debug, Args)]
pub struct CopySelfArgs {
    /// Path of a file or a directory
    pub path: PathBuf,
}

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Shell that runs the script
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
    /// Unit configuration: a path in the tree or an absolute path [default: unit.conf.json]
    #[arg(long, value_name = "FILE", env = "PODSTRAP_CONFIG")]
    pub config: Option<PathBuf>,
    /// Send one request, print the response and exit
    #[arg(long, value_parser = BoolishValueParser::new(), env = "PODSTRAP_ONCE")]
    pub once: bool,
    /// Time limit until the app answers
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration, env = "PODSTRAP_TIMEOUT")]
    pub timeout: Duration,
}

impl Cli {
    /// Parses a command line. Splits lists from variables at white space and ignores empty variables,
    /// which templates often leave behind.
    ///
    /// # Errors
    /// clap's own: unknown flags, missing values, and also `--help` and `--version`.
    pub fn try_parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let matches = with_variables(Self::command()).try_get_matches_from(args)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        if let (Some((_, matches)), Command::Store(args)) = (matches.subcommand(), &mut cli.command) {
            split(matches, "auth", &mut args.auth);
        }
        if let (Some((_, matches)), Command::Sidecar(args)) = (matches.subcommand(), &mut cli.command)
            && args.follow.repo.is_none()
        {
            args.follow.alone = alone(matches);
        }
        let lists = match &mut cli.command {
            Command::Init(InitArgs { release: ReleaseArgs { checkout, environment, .. }, .. })
            | Command::Sidecar(SidecarArgs {
                follow: FollowArgs { release: ReleaseArgs { checkout, environment, .. }, .. },
                ..
            })
            | Command::Up(UpArgs { checkout, environment, .. }) => Some((checkout, environment)),
            Command::Apply(_)
            | Command::Status(_)
            | Command::Rollback(_)
            | Command::Resume(_)
            | Command::Check(_)
            | Command::CopySelf(_)
            | Command::Store(_)
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

/// The first typed flag of a sidecar that only has a meaning with --repo. Variables may be meant for other containers.
fn alone(matches: &ArgMatches) -> Option<String> {
    let command = Cli::command();
    let mut flags = command.find_subcommand("sidecar")?.get_arguments();
    let found = flags.find(|arg| {
        let id = arg.get_id().as_str();
        let is_typed = matches.value_source(id) == Some(ValueSource::CommandLine);
        is_typed && !["config", "control_socket", "timeout", "probe"].contains(&id) && !arg.is_global_set()
    })?;
    Some(found.get_long().map_or_else(|| "PACKAGE".to_owned(), |name| format!("--{name}")))
}

/// The completion script for a shell.
pub fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "podstrap", &mut script);
    script
}

/// Ignores empty variables and hides values in `--help`: `PODSTRAP_REPO` may hold a token.
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

/// Every variable that podstrap reads.
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

/// An unknown `PODSTRAP_*` variable, and the known one closest to it.
#[derive(Debug, PartialEq, Eq)]
pub struct Misspelt {
    pub name: String,
    pub meant: Option<String>,
}

/// Finds unknown `PODSTRAP_*` variables. Skips those that Kubernetes injects for a Service named
/// `podstrap` or `podstrap-…`.
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
                    let expected = Some(expected).filter(|_| (sub.get_name(), long) != ("sidecar", "repo"));
                    assert_eq!(arg.get_env().and_then(|e| e.to_str()), expected.as_deref(), "--{long}");
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
