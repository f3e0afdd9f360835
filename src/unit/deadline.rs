//! The text for an attempt that the deadline ended.

use crate::retry::Deadline;

pub(super) fn gave_up(tries: u32, deadline: Deadline) -> String {
    let plural = if tries == 1 { "try" } else { "tries" };
    format!("gave up after {tries} {plural} in {:.1} s ({})", deadline.elapsed().as_secs_f64(), deadline.shown())
}
