//! The store of ready environments.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::paths::absolute;
use crate::cli::{self, StoreAction};
use crate::error::{Error, Result};
use crate::size::Size;

/// Default of `--size-limit`: enough for two large environments, the old and the new one, and a bound
/// for archives that unpack to more.
pub const SIZE_LIMIT: Size = Size(32 << 30);

/// Where ready environments are, and which of them to use.
#[derive(Debug, Clone)]
pub struct Store {
    pub dir: PathBuf,
    /// How long an entry is good whose requirements do not name every version.
    pub max_age: Duration,
    /// A private key for new entries.
    pub sign: Option<PathBuf>,
    /// The keys that must have signed an entry.
    pub verify: Option<PathBuf>,
    /// The most bytes of the store after a new entry.
    pub limit: Option<Size>,
    /// The most bytes of a restored environment.
    pub size_limit: Size,
    /// Fill the store, and publish nothing.
    pub only: bool,
}

/// The plan of `podstrap store`.
#[derive(Debug)]
pub struct Shelves {
    pub action: StoreAction,
    pub dir: PathBuf,
    pub verify: Option<PathBuf>,
    pub limit: Option<Size>,
    pub json: bool,
}

impl Store {
    /// `None` without `--store`.
    ///
    /// # Errors
    /// Another flag needs it.
    pub(super) fn new(args: &cli::StoreFlags) -> Result<Option<Self>> {
        let Some(dir) = &args.store else {
            let needs = [
                ("--store-sign", args.sign.is_some()),
                ("--store-verify", args.verify.is_some()),
                ("--store-limit", args.limit.is_some()),
            ];
            return match needs.into_iter().find(|(_, given)| *given) {
                None => Ok(None),
                Some((flag, _)) => {
                    Err(Error::usage(format!("{flag} needs --store"))
                        .hint("give the directory of the store with --store"))
                }
            };
        };
        let file = |flag: &str, file: &Option<PathBuf>| file.as_deref().map(|file| absolute(flag, file)).transpose();
        Ok(Some(Self {
            dir: directory(dir)?,
            max_age: args.max_age,
            sign: file("--store-sign", &args.sign)?,
            verify: file("--store-verify", &args.verify)?,
            limit: args.limit,
            size_limit: SIZE_LIMIT,
            only: false,
        }))
    }
}

impl Shelves {
    pub fn new(args: cli::StoreArgs) -> Result<Self> {
        if args.action == StoreAction::Prune && args.limit.is_none() {
            return Err(Error::usage("podstrap store prune needs --store-limit")
                .hint("give the size that the store may have, such as --store-limit 10Gi"));
        }
        Ok(Self {
            action: args.action,
            dir: directory(&args.store)?,
            verify: args.verify.as_deref().map(|file| absolute("--store-verify", file)).transpose()?,
            limit: args.limit,
            json: args.format == cli::OutputFormat::Json,
        })
    }
}

fn directory(dir: &Path) -> Result<PathBuf> {
    if let Some((scheme, _)) = dir.to_str().and_then(|text| text.split_once("://")) {
        return Err(Error::usage(format!("--store does not support {scheme}://"))
            .hint("give a directory, such as the mount path of a volume that all Pods share"));
    }
    absolute("--store", dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::init::tests::{plan, refusal};

    #[test]
    fn flags_of_the_store_need_it() {
        assert!(plan(&[]).environment.store.is_none());
        let store = plan(&["--store", "/envs", "--store-limit", "2Gi"]).environment.store.unwrap();
        assert_eq!((store.dir.as_path(), store.limit), (Path::new("/envs"), Some(Size(2 << 30))));
        assert_eq!(store.max_age, Duration::from_hours(24));
        assert_eq!(store.size_limit, SIZE_LIMIT);
        let limited = plan(&["--store", "/envs", "--size-limit", "1Gi"]).environment.store.unwrap();
        assert_eq!(limited.size_limit, Size(1 << 30));
        for flag in ["--store-sign", "--store-verify"] {
            assert!(refusal(&[flag, "/key"]).contains(&format!("{flag} needs --store")));
        }
        assert!(refusal(&["--store-only"]).contains("--store-only needs --store"));
        assert!(refusal(&["--store", "oci://host/envs"]).contains("does not support oci://"));
        assert!(refusal(&["--store", "/envs", "--store-only", "--venv", "none"]).contains("--venv none"));
    }
}
