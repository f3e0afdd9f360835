//! The commands on the command line, and complete runs: their messages, processes and secrets.

mod binary;
mod check;
mod containers;
mod copy_self;
mod dry_run;
mod errors;
mod init;
mod processes;
mod secrets;
mod special;
mod stuck;
mod up;
