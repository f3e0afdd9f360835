//! The plan of `podstrap up`.

use std::path::PathBuf;

use super::environment::Environment;
use super::source::Source;
use super::target::Target;
use crate::cli;
use crate::error::Result;
use crate::retry::Deadline;

/// The plan of `podstrap up`.
#[derive(Debug)]
pub struct Up {
    /// `None` runs the built-in example.
    pub source: Option<Source>,
    /// Without its final place: see [`Environment::published_at`].
    pub environment: Environment,
    pub config: PathBuf,
    pub once: bool,
    pub deadline: Deadline,
}

impl Up {
    pub fn new(args: cli::UpArgs) -> Result<Self> {
        let source = args.source.as_deref().map(|text| Source::new(text, args.checkout)).transpose()?;
        Ok(Self {
            source,
            environment: Environment::new(
                &args.environment,
                &Target { root: PathBuf::from("/"), link: None, durable: false },
            )?,
            config: args.config.unwrap_or_else(|| PathBuf::from("unit.conf.json")),
            once: args.once,
            deadline: Deadline::after(args.timeout),
        })
    }
}
