//! Repositories, servers and directories that mean harm. Each is tried with the binary in a sandbox
//! full of tripwires, and ends as git itself would end it, or with a documented exit code and words
//! that say why: soon, in little memory, with nothing outside the volume touched, no program
//! started, and nothing on stderr that a terminal or a log's reader could take for something else.
//!
//! The repositories are made of raw objects, because git refuses to make most of them.

mod bombs;
mod directories;
mod servers;
mod trees;
mod trial;
mod wire;
