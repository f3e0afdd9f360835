//! Errors of the environment for failed child processes.

use super::explain;
use crate::command::Failure;
use crate::error::Error;

/// The error for a child that gave no output: it did not start, or podstrap killed it at the deadline.
pub(super) fn child_error(what: &str, failure: Failure) -> Error {
    let excerpt = match &failure {
        Failure::Deadline { stderr, .. } => explain::excerpt(stderr),
        _ => String::new(),
    };
    let hint = match &failure {
        Failure::Deadline { deadline, .. } => Some(deadline.slow()),
        Failure::Start { source, .. } | Failure::Read { source, .. } => {
            explain::limit("", &source.to_string()).map(Into::into)
        }
    };
    let mut error = Error::environment(what).because(failure);
    if let Some(hint) = hint {
        error = error.hint(hint);
    }
    if excerpt.is_empty() { error } else { error.excerpt(excerpt) }
}
