//! Unit's control API, with a fake and with a real Unit.

mod apply;
mod contract;
mod directory;
mod errors;
mod follow;
mod hook;
mod kinds;
mod mutations;
mod numbers;
mod real;
mod sidecar;
mod stored;
