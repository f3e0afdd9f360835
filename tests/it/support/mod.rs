//! Helpers of the tests: real servers, a sandbox to run the binary in, and tools that are downloaded once
//! into the target directory.

pub mod article;
pub mod chaos;
pub mod environment;
pub mod fake_unit;
pub mod git;
pub mod http;
pub mod index;
pub mod inputs;
pub mod kill;
pub mod lfs;
pub mod namespaces;
pub mod packages;
pub mod proxy;
pub mod registry;
pub mod sandbox;
pub mod source;
pub mod sshd;
pub mod strace;
pub mod table;
pub mod unit;
pub mod volume;
