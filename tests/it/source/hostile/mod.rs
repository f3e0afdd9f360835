//! Hostile repositories, servers and directories. The binary tries each of them in a sandbox full of tripwires. It
//! must end like git itself, or with a documented exit code and the reason. It must end soon and use little memory.
//! It must not touch files outside the volume, start a program, or write to stderr what a terminal or a log's reader
//! could misread.
//!
//! The repositories consist of raw objects, because git refuses to create most of them.

mod bombs;
mod directories;
mod servers;
mod trees;
mod trial;
mod wire;
