//! The commands as they are typed, and whole runs: their words, their processes, their secrets.

mod binary;
mod check;
mod containers;
mod copy_self;
mod errors;
mod init;
mod processes;
mod secrets;
mod up;
