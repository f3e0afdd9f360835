//! The references and packs of a Git server.
//!
//! | file | purpose |
//! |---|---|
//! | pktline | Git's framing |
//! | refs | resolves a reference to a commit |
//! | answer | the answer to a request for a pack, over any transport |
//! | http, ssh | the two transports |
//! | config | files in the syntax of Git's configuration |
//! | submodules | the addresses in `.gitmodules` |

mod answer;
pub(crate) mod config;
pub(crate) mod http;
pub(crate) mod pktline;
pub(crate) mod refs;
pub(crate) mod ssh;
pub(crate) mod submodules;
