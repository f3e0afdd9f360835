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
    /// Whether `shown` may be the same: also true for any configuration if podstrap cannot parse the wanted one.
    ///
    /// # Errors
    /// `shown` is another configuration, or none at all.
    pub(super) fn is(&self, shown: &[u8]) -> Result<(), String> {
        let shown = dialect::to_value(shown).map_err(|error| format!("shows no configuration: {error}"))?;
        match &self.0 {
            Some(wanted) if !dialect::same(wanted, &shown) => Err("shows another one".to_owned()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn only_a_configuration_can_be_the_same() {
        let expected = |text: &str| Expected::new(&Config::new("c.json".into(), text.into()).into());
        let brackets = "[".repeat(1 << 20);
        // The last one is a configuration that podstrap cannot parse.
        for wanted in ["{\"listeners\": {}}", "{}", "{\"a\": 1", ""] {
            for shown in [brackets.as_str(), "", "<html>", "{\"listeners\""] {
                assert!(expected(wanted).is(shown.as_bytes()).unwrap_err().starts_with("shows no configuration"));
            }
        }
        assert_eq!(expected("{\"a\": 1}").is(b"{\"a\": 1.0}"), Ok(()));
        assert_eq!(expected("{\"a\": 1}").is(b"{\"a\": 2}").unwrap_err(), "shows another one");
        assert_eq!(expected("{\"a\": 1").is(b"{\"a\": 2}"), Ok(()), "Unit could parse it");
    }
}
