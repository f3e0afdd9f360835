//! Requests to servers: credentials, stalls, and the errors of HTTP.
//!
//! | file | purpose |
//! |---|---|
//! | app, grant | logins of GitHub Apps; their tokens |
//! | auth | credentials from the files of `--auth`, and which request carries them |
//! | pace | detects an answer that stalls |
//! | web | requests over HTTP |

pub(crate) mod app;
pub(crate) mod auth;
pub(crate) mod grant;
pub(crate) mod pace;
pub(crate) mod web;
