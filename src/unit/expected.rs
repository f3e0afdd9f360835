//! Recognising a configuration in what Unit shows.

use serde_json::Value;

use super::setup::Setup;
use crate::config::dialect;

/// The configuration as it will be recognised.
pub(super) struct Expected(Option<Value>);

impl Expected {
    pub(super) fn new(setup: &Setup) -> Self {
        let Some(config) = &setup.config else { return Self(None) };
        let value = dialect::to_value(&config.bytes);
        if let Err(error) = &value {
            tracing::debug!("{}: podstrap cannot read it, Unit may: {error}", config.path.display());
        }
        Self(value.ok())
    }
    /// None: there is none, or podstrap cannot read it.
    pub(super) fn value(&self) -> Option<&Value> {
        self.0.as_ref()
    }
    /// Whether `shown` is it, beyond doubt.
    pub(super) fn is_surely(&self, shown: &[u8]) -> bool {
        let same = |wanted| dialect::to_value(shown).is_ok_and(|shown| dialect::same(wanted, &shown));
        self.0.as_ref().is_some_and(same)
    }
    /// Whether `shown` is it; what podstrap cannot read counts as such.
    pub(super) fn is(&self, shown: &[u8]) -> bool {
        let Some(wanted) = &self.0 else { return true };
        match dialect::to_value(shown) {
            Ok(shown) => dialect::same(wanted, &shown),
            Err(error) => {
                tracing::debug!("podstrap cannot read the configuration that Unit shows: {error}");
                true
            }
        }
    }
}
