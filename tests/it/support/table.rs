//! Tables: many rows of one shape, and one snapshot of what comes of them.

/// A row of the snapshot. The test's output names it as well, in case it panics.
pub(crate) fn row(name: &str, said: impl FnOnce() -> String) -> String {
    println!("row: {name}");
    format!("-- {name}\n{}\n", said().trim_end())
}
