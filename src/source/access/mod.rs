//! Servers, whoever asks them for whatever: as whom to ask, how long to wait, and what a failure means.
//!
//! | file | |
//! |---|---|
//! | auth | credentials from the files that `--auth` names, and who gets which |
//! | pace | when an answer stalls |
//! | web | requests over HTTP |

pub(crate) mod auth;
pub(crate) mod pace;
pub(crate) mod web;
