//! `podstrap sidecar`: keeps a configuration in Unit; with `--repo`, follows a branch.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::init::Init;
use super::paths::{TreePath, absolute};
use super::source::Origin;
use super::unit::Sidecar;
use crate::cli;
use crate::error::{Error, Kind, Result, check_url, refuse_bare_login};
use crate::retry::Deadline;

/// What `podstrap sidecar` does.
#[derive(Debug)]
pub enum Keep {
    /// Keep a configuration in Unit.
    Configuration(Box<Sidecar>),
    /// Follow a repository.
    Repository(Box<Follow>),
}

/// The plan of `podstrap sidecar --repo`.
#[derive(Debug)]
pub struct Follow {
    args: cli::InitArgs,
    /// The Unit that serves; `None` if only the files follow. With `config`, its path has no meaning.
    pub unit: Option<Sidecar>,
    /// The configuration, if it is in the tree.
    pub config: Option<TreePath>,
    /// Between two looks at the reference.
    pub period: Duration,
    /// Try a release beside the one that serves.
    pub canary: bool,
    /// How long a new release is watched.
    pub watch: Duration,
    /// The number of releases on the volume, at least 1.
    pub keep: usize,
    /// The address of the HTTP server.
    pub http: Option<SocketAddr>,
    /// The file with the secret of the webhook.
    pub secret: Option<PathBuf>,
    /// Gets each release after it serves.
    pub hook: Option<reqwest::Url>,
}

/// The plan of `podstrap rollback` and `podstrap resume`.
#[derive(Debug)]
pub struct Order {
    /// The shared volume, absolute.
    pub root: PathBuf,
    pub deadline: Deadline,
}

impl Keep {
    /// # Errors
    /// Usage: a flag is missing or invalid.
    pub fn new(args: cli::SidecarArgs) -> Result<Self> {
        let follow = &args.follow;
        let Some(repo) = follow.repo.clone() else {
            if let Some(flag) = &follow.alone {
                return Err(Error::usage(format!("sidecar {flag} needs --repo"))
                    .hint("give the repository to follow with --repo, or leave the flag out"));
            }
            let config = args.config.as_deref().unwrap_or(Path::new(""));
            return Ok(Self::Configuration(Box::new(Sidecar::new(&args, config)?)));
        };
        Ok(Self::Repository(Box::new(Follow::new(args, repo)?)))
    }
}

impl Follow {
    fn new(args: cli::SidecarArgs, repo: String) -> Result<Self> {
        let unit = args.config.as_deref().map(|config| Sidecar::new(&args, config)).transpose()?;
        let follow = args.follow;
        let Some(root) = follow.root else {
            return Err(Error::usage("sidecar --repo needs --root").hint("give the directory of the shared volume"));
        };
        if unit.is_none()
            && let Some((flag, _)) =
                [("--probe", args.probe.is_some()), ("--control-socket", args.control_socket.is_some())]
                    .into_iter()
                    .find(|(_, given)| *given)
        {
            return Err(Error::usage(format!("{flag} needs --config"))
                .hint("give Unit's configuration: a path in the tree, or the absolute path of a mounted file"));
        }
        if follow.webhook_secret.is_some() && follow.http_bind.is_none() {
            return Err(Error::usage("--webhook-secret needs --http-bind")
                .hint("give the address for the webhook, such as --http-bind :8080"));
        }
        let config = args.config.as_deref().filter(|config| config.is_relative()).map(in_tree).transpose()?;
        let plan = Self {
            args: cli::InitArgs {
                repo,
                root: Some(root),
                dry_run: false,
                format: cli::OutputFormat::Text,
                release: follow.release,
                copy_self: None,
                entrypoint_dir: None,
                config: None,
                stale_ok: false,
                store_only: false,
                timeout: follow.build_timeout,
            },
            unit,
            config,
            period: follow.period,
            canary: follow.canary == cli::Canary::On,
            watch: follow.watch,
            keep: follow.keep_releases.max(1),
            http: follow.http_bind.as_deref().map(bind).transpose()?,
            secret: follow.webhook_secret.as_deref().map(|path| absolute("--webhook-secret", path)).transpose()?,
            hook: follow.hook_url.as_deref().map(hook).transpose()?,
        };
        if !matches!(plan.init()?.source.origin, Origin::Git(_)) {
            return Err(Error::usage("sidecar --repo needs a Git repository")
                .hint("give the URL of a Git repository: podstrap follows no other source"));
        }
        Ok(plan)
    }

    /// The plan of one build, whose time starts now.
    ///
    /// # Errors
    /// Usage: a flag is invalid.
    pub fn init(&self) -> Result<Init> {
        let plan = Init::new(self.args.clone())?;
        Ok(Init { deadline: Deadline::of("--build-timeout", self.args.timeout), ..plan })
    }
}

impl Order {
    /// # Errors
    /// Usage: the root is invalid.
    pub fn new(args: &cli::OrderArgs) -> Result<Self> {
        Ok(Self { root: absolute("--root", &args.root)?, deadline: Deadline::after(args.timeout) })
    }
}

fn in_tree(path: &Path) -> Result<TreePath> {
    TreePath::new(path).ok_or_else(|| {
        Error::usage(format!("--config {} is not a path in the tree", path.display()))
            .hint("give a path in the repository without .., or the absolute path of a mounted file")
    })
}

/// An address as git-sync's `--http-bind` has it: without a host, all of them.
fn bind(text: &str) -> Result<SocketAddr> {
    let full = if text.starts_with(':') { format!("[::]{text}") } else { text.to_owned() };
    full.parse().map_err(|error| {
        Error::usage(format!("--http-bind {text} is not an address"))
            .because(error)
            .hint("give :PORT, or an address with a port, such as 127.0.0.1:8080")
    })
}

fn hook(text: &str) -> Result<reqwest::Url> {
    refuse_bare_login(Kind::Usage, "--hook-url", text)?;
    check_url(Kind::Usage, "--hook-url", text)?;
    let url = reqwest::Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    url.ok_or_else(|| Error::usage("--hook-url is not an HTTP URL").hint("give the full URL: https://HOST/PATH"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};

    fn keep(flags: &[&str]) -> Result<Keep> {
        let cli = Cli::try_parse(["podstrap", "sidecar"].iter().chain(flags).map(Into::into)).unwrap();
        let Command::Sidecar(args) = cli.command else { panic!("{cli:?}") };
        Keep::new(args)
    }

    fn follow(flags: &[&str]) -> Result<Follow> {
        let line = [&["--repo", "https://host/app.git", "--root", "/vol"], flags].concat();
        match keep(&line)? {
            Keep::Repository(follow) => Ok(*follow),
            Keep::Configuration(_) => panic!("{flags:?}"),
        }
    }

    #[test]
    fn a_relative_configuration_is_one_in_the_tree() {
        let plan = follow(&["--config", "deploy/unit.json"]).unwrap();
        assert_eq!(plan.config.as_ref().unwrap().as_path(), Path::new("deploy/unit.json"));
        let plan = follow(&["--config", "/config/unit.json"]).unwrap();
        assert!(plan.config.is_none() && plan.unit.unwrap().config == Path::new("/config/unit.json"));
        assert!(follow(&[]).unwrap().unit.is_none());
    }

    #[test]
    fn addresses_take_the_form_of_git_sync() {
        for (text, address) in [(":8080", "[::]:8080"), ("127.0.0.1:1", "127.0.0.1:1"), ("[::]:2", "[::]:2")] {
            assert_eq!(bind(text).unwrap(), address.parse().unwrap());
        }
        assert!(bind("8080").is_err() && bind("host:1").is_err() && bind(":x").is_err());
    }

    #[test]
    fn what_does_nothing_is_refused() {
        let refused = |result: Result<Keep>| result.unwrap_err().to_string();
        assert!(refused(keep(&["--config", "/c", "--ref", "main"])).contains("sidecar --ref needs --repo"));
        for (flags, why) in [
            (&["--probe", "http://127.0.0.1/"][..], "--probe needs --config"),
            (&["--config", "../x"], "is not a path in the tree"),
            (&["--webhook-secret", "/s"], "needs --http-bind"),
            (&["--hook-url", "ftp://x/"], "not an HTTP URL"),
        ] {
            assert!(follow(flags).unwrap_err().to_string().contains(why), "{flags:?}");
        }
        assert!(refused(keep(&["--repo", "https://host/a.git"])).contains("needs --root"));
        assert!(refused(keep(&["--repo", "https://host/a.tar.gz", "--root", "/v"])).contains("needs a Git repository"));
    }
}
