//! `podstrap check`: which configuration, held against which tree.

use std::path::PathBuf;

use super::paths::{TreePath, absolute, normal};
use crate::cli;
use crate::error::{Error, Result};

/// `podstrap check`, understood.
#[derive(Debug)]
pub struct Check {
    /// As it was typed: findings begin with it.
    pub config: PathBuf,
    pub tree: Option<Tree>,
    pub json: bool,
}

/// Where the app's files are on this machine.
#[derive(Debug, Clone)]
pub struct Tree {
    /// Its top.
    pub dir: PathBuf,
    /// The environment's directory in it.
    pub venv: PathBuf,
    /// Where the app's container has the tree; by default it follows from the first `home`.
    pub final_path: Option<PathBuf>,
}

impl Check {
    pub fn new(args: cli::CheckArgs) -> Result<Self> {
        let tree = args.tree.map(|dir| {
            let venv = TreePath::new(&args.venv).ok_or_else(|| {
                Error::usage(format!("--venv {} is not inside the tree", args.venv.display())).hint(
                    "give a path relative to --tree, without ..; where the app sees the tree is --tree-final-path",
                )
            })?;
            if let Some(path) = args.tree_final_path.as_ref().filter(|path| !path.is_absolute()) {
                return Err(Error::usage(format!("--tree-final-path {} is not absolute", path.display()))
                    .hint("give the path that the app's container will see, e.g. /app"));
            }
            Ok(Tree {
                dir: absolute("--tree", &dir)?,
                venv: venv.as_path().to_owned(),
                final_path: args.tree_final_path.as_deref().map(normal),
            })
        });
        Ok(Self { config: args.config, tree: tree.transpose()?, json: args.format == cli::OutputFormat::Json })
    }
}
