//! Requests to servers: credentials, stalls, and the errors of HTTP.
//!
//! | file | purpose |
//! |---|---|
//! | auth | credentials from the files of `--auth`, and which request carries them |
//! | pace | detects an answer that stalls |
//! | web | requests over HTTP |

pub(crate) mod auth;
pub(crate) mod pace;
pub(crate) mod web;
