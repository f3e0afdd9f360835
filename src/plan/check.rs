//! The plan of `podstrap check`.

use std::path::PathBuf;

use super::paths::{TreePath, absolute, normal};
use crate::cli;
use crate::error::{Error, Result};

/// The plan of `podstrap check`.
#[derive(Debug)]
pub struct Check {
    /// As typed, since every finding starts with it.
    pub config: PathBuf,
    pub tree: Option<Tree>,
    pub json: bool,
}

/// The app's files on this machine.
#[derive(Debug, Clone)]
pub struct Tree {
    /// Top of the tree.
    pub dir: PathBuf,
    /// Directory of the environment in the tree.
    pub venv: PathBuf,
    /// Path of the tree in the app's container; `None` derives it from the first `home`.
    pub final_path: Option<PathBuf>,
}

impl Check {
    pub fn new(args: cli::CheckArgs) -> Result<Self> {
        let tree = args.tree.map(|dir| {
            let venv = TreePath::new(&args.venv).ok_or_else(|| {
                Error::usage(format!("--venv {} is not inside the tree", args.venv.display())).hint(
                    "give a path relative to --tree, without ..; set the path in the app's container with \
                     --tree-final-path",
                )
            })?;
            if let Some(path) = args.tree_final_path.as_ref().filter(|path| !path.is_absolute()) {
                return Err(Error::usage(format!("--tree-final-path {} is not absolute", path.display()))
                    .hint("give the path in the app's container, such as /app"));
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
