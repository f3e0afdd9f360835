//! Parses an application's `type`: a language and a version.

/// Splits `type` into language and version at the first space or digit, as `nxt_app_lang_module`
/// (`nxt_application.c`) does.
pub fn language(kind: &str) -> (&str, &str) {
    match kind.find(|c: char| c == ' ' || c.is_ascii_digit()) {
        Some(at) if kind[at..].starts_with(' ') => (&kind[..at], &kind[at + 1..]),
        Some(at) => (&kind[..at], &kind[at..]),
        None => (kind, ""),
    }
}

/// Whether the version of a module matches the wanted one: `nxt_strvers_match` (`nxt_string.c`).
///
/// The wanted version is a prefix that ends at a boundary: 3.1 does not match 3.11.
pub fn version_matches(version: &str, wanted: &str) -> bool {
    let Some(rest) = version.strip_prefix(wanted) else { return false };
    match (wanted.chars().last(), rest.chars().next()) {
        (None, _) | (_, None) => true,
        (Some(last), Some(next)) => last.is_ascii_digit() != next.is_ascii_digit(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_matches_at_a_boundary() {
        for wanted in ["", "3", "3.", "3.11", "3.11.2"] {
            assert!(version_matches("3.11.2", wanted), "{wanted}");
        }
        for wanted in ["3.1", "3.12", " 3", "3.11.20", "x"] {
            assert!(!version_matches("3.11.2", wanted), "{wanted}");
        }
        assert_eq!(
            (language("python 3.1"), language("python3"), language("go")),
            (("python", "3.1"), ("python", "3"), ("go", ""))
        );
    }
}
