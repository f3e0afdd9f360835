//! The plan of `podstrap init`.

use std::path::{Path, PathBuf};

use super::environment::{Environment, Wanted};
use super::paths::{TreePath, absolute, one_name};
use super::source::Source;
use super::target::Target;
use crate::cli;
use crate::error::{Error, Result};
use crate::retry::Deadline;
use crate::size::Size;

/// The plan of `podstrap init`.
#[derive(Debug)]
pub struct Init {
    pub source: Source,
    pub target: Target,
    pub environment: Environment,
    pub copy_self: Option<CopySelf>,
    pub entrypoint: Option<Entrypoint>,
    /// Most that podstrap may use on the volume, including staging.
    pub size_limit: Size,
    /// Keep the published release while a remote is unreachable.
    pub stale_ok: bool,
    pub deadline: Deadline,
}

/// Destination of `--copy-self`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySelf {
    /// Below the root: the copy becomes part of the release.
    InTree(TreePath),
    Outside(PathBuf),
}

/// The configuration for the image's own entrypoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entrypoint {
    /// The directory that becomes /docker-entrypoint.d, absolute.
    pub dir: PathBuf,
    /// The configuration file, absolute.
    pub config: PathBuf,
    /// The directory that the file must stay in; `None` if the user gave an absolute path.
    pub below: Option<PathBuf>,
}

/// The root of a dry run without --root: that of the examples.
const USUAL_ROOT: &str = "/app";

impl Init {
    pub fn new(args: cli::InitArgs) -> Result<Self> {
        let root = absolute("--root", args.root.as_deref().unwrap_or(Path::new(USUAL_ROOT)))?;
        let release = args.release;
        let target = Target { root, link: release.link.map(link_name).transpose()?, durable: release.durable };
        let mut environment = Environment::new(&release.environment, &target)?;
        if let Some(store) = &mut environment.store {
            store.size_limit = release.size_limit;
            store.only = args.store_only;
            if store.only && store.verify.is_some() && store.sign.is_none() {
                return Err(Error::usage("--store-only with --store-verify needs --store-sign")
                    .hint("give the private key for the new entry, or remove --store-verify"));
            }
        } else if args.store_only {
            return Err(Error::usage("--store-only needs --store")
                .hint("give the store with --store: a directory, or oci://HOST/REPOSITORY"));
        }
        if args.store_only && environment.wanted == Wanted::Never {
            return Err(Error::usage("--store-only conflicts with --venv none")
                .hint("remove --venv none: the store has environments only"));
        }
        if args.store_only && !environment.commands.is_empty() {
            return Err(Error::usage("--store-only conflicts with --run")
                .hint("remove --run: it works in the tree, and the store has environments only"));
        }
        let copy_self = args.copy_self.map(|path| CopySelf::new(&path, &target)).transpose()?;
        let entrypoint = Entrypoint::new(args.entrypoint_dir.as_deref(), args.config.as_deref(), &target)?;
        Ok(Self {
            source: Source::new(&args.repo, release.checkout)?,
            target,
            environment,
            copy_self,
            entrypoint,
            size_limit: release.size_limit,
            stale_ok: args.stale_ok,
            deadline: Deadline::after(args.timeout),
        })
    }
}

impl CopySelf {
    fn new(path: &Path, target: &Target) -> Result<Self> {
        let directory = path.as_os_str().as_encoded_bytes().ends_with(b"/");
        let mut path = absolute("--copy-self", path)?;
        if directory {
            path.push("podstrap");
        }
        let Ok(below) = path.strip_prefix(&target.root) else { return Ok(Self::Outside(path)) };
        let in_tree = match &target.link {
            Some(link) => below.strip_prefix(link).ok(),
            None => Some(below),
        };
        in_tree.and_then(TreePath::new).map(Self::InTree).ok_or_else(|| {
            Error::usage(format!("--copy-self {} is below the root but not inside the published tree", path.display()))
                .hint(format!(
                    "give a file below {}, or mount another volume for the binary",
                    target.public().display()
                ))
        })
    }
}

impl Entrypoint {
    fn new(dir: Option<&Path>, config: Option<&Path>, target: &Target) -> Result<Option<Self>> {
        match (dir, config) {
            (None, None) => Ok(None),
            (Some(_), None) => Err(Error::usage("--entrypoint-dir needs --config")
                .hint("give Unit's configuration: a path in the tree, or the absolute path of a mounted file")),
            (None, Some(_)) => Err(Error::usage("--config needs --entrypoint-dir")
                .hint("add --entrypoint-dir for the image's entrypoint, or run `podstrap apply --config` instead")),
            (Some(dir), Some(config)) => {
                let dir = absolute("--entrypoint-dir", dir)?;
                if config.is_absolute() {
                    return Ok(Some(Self { dir, config: config.to_owned(), below: None }));
                }
                let path = TreePath::new(config).ok_or_else(|| {
                    Error::usage(format!("--config {} is not inside the tree", config.display()))
                        .hint("give a path relative to the repository's top, without .., or an absolute one")
                })?;
                let config = target.public().join(path.as_path());
                Ok(Some(Self { dir, config, below: Some(target.root.clone()) }))
            }
        }
    }
}

fn link_name(name: String) -> Result<String> {
    one_name("--link", name, "give one name without a slash, such as current")
}

/// A link is a single name.
#[cfg(fuzzing)]
pub fn fuzz(text: &str) {
    if let Ok(name) = link_name(text.to_owned()) {
        assert!(!name.contains('/') && name != ".." && name != "." && name != ".podstrap" && !name.is_empty());
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::store::SIZE_LIMIT;
    use super::*;
    use crate::cli::{Cli, Command, InitArgs};

    fn args(flags: &[&str]) -> InitArgs {
        let line = ["podstrap", "init", "--repo", "https://host/app.git", "--root", "/vol"];
        let cli = Cli::try_parse(line.iter().chain(flags).map(Into::into)).unwrap();
        let Command::Init(args) = cli.command else { panic!("{cli:?}") };
        args
    }

    pub fn plan(flags: &[&str]) -> Init {
        Init::new(args(flags)).unwrap()
    }

    pub fn refusal(flags: &[&str]) -> String {
        Init::new(args(flags)).unwrap_err().to_string()
    }

    #[test]
    fn the_size_limit_has_one_default() {
        assert_eq!(plan(&[]).size_limit, SIZE_LIMIT);
        assert_eq!(plan(&["--size-limit", "500Mi"]).size_limit, Size(500 << 20));
    }

    #[test]
    fn a_copy_below_the_root_is_part_of_the_release() {
        let in_tree = |path: &str| Some(CopySelf::InTree(TreePath::new(Path::new(path)).unwrap()));
        assert_eq!(plan(&["--copy-self", "/vol/bin/podstrap"]).copy_self, in_tree("bin/podstrap"));
        assert_eq!(plan(&["--copy-self", "/vol/bin/"]).copy_self, in_tree("bin/podstrap"));
        assert_eq!(plan(&["--link", "a", "--copy-self", "/vol/a/podstrap"]).copy_self, in_tree("podstrap"));
        assert_eq!(plan(&["--copy-self", "/x/podstrap"]).copy_self, Some(CopySelf::Outside("/x/podstrap".into())));
        for flags in [&["--link", "a", "--copy-self", "/vol/podstrap"][..], &["--copy-self", "/vol/.podstrap/x"]] {
            assert!(refusal(flags).contains("inside the published tree"), "{flags:?}");
        }
    }

    #[test]
    fn links_are_checked() {
        for link in ["a/b", "a/", "a/.", "..", ".", "", ".podstrap", "/a"] {
            assert!(refusal(&["--link", link]).contains("is not a valid name"), "{link}");
        }
    }
}
