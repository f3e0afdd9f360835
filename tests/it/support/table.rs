//! Tables: many cases of one shape in a single snapshot.

/// Returns one row of the snapshot. It also prints the row's name, in case the test panics.
pub(crate) fn row(name: &str, said: impl FnOnce() -> String) -> String {
    println!("row: {name}");
    format!("-- {name}\n{}\n", said().trim_end())
}
