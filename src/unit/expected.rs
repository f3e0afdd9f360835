//! Compares the wanted configuration with Unit's.

use serde_json::Value;

use super::setup::Setup;
use crate::config::dialect;

/// The wanted configuration, parsed; None without one, or if podstrap cannot parse it.
pub(super) struct Expected(Option<Value>);

impl Expected {
    pub(super) fn new(setup: &Setup) -> Self {
        let Some(config) = &setup.config else { return Self(None) };
        let value = dialect::to_value(&config.bytes);
        if let Err(error) = &value {
            tracing::debug!("{}: podstrap cannot parse it, but Unit may: {error}", config.path.display());
        }
        Self(value.ok())
    }
    pub(super) fn value(&self) -> Option<&Value> {
        self.0.as_ref()
    }
    /// Whether `shown` is provably the same.
    pub(super) fn is_surely(&self, shown: &[u8]) -> bool {
        let same = |wanted| dialect::to_value(shown).is_ok_and(|shown| dialect::same(wanted, &shown));
        self.0.as_ref().is_some_and(same)
    }
    /// Whether `shown` may be the same: also true if podstrap cannot parse either.
    pub(super) fn is(&self, shown: &[u8]) -> bool {
        let Some(wanted) = &self.0 else { return true };
        match dialect::to_value(shown) {
            Ok(shown) => dialect::same(wanted, &shown),
            Err(error) => {
                tracing::debug!("podstrap cannot parse Unit's configuration: {error}");
                true
            }
        }
    }
}
