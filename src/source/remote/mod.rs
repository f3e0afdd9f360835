//! A Git server: what it has, and packs of it.
//!
//! | file | |
//! |---|---|
//! | pktline | Git's framing |
//! | refs | which commit a reference means |
//! | answer | the answer to a request for a pack, whatever brings it |
//! | http, ssh | the two ways to a server |
//! | submodules | the addresses that `.gitmodules` names |

mod answer;
pub(crate) mod http;
pub(crate) mod pktline;
pub(crate) mod refs;
pub(crate) mod ssh;
pub(crate) mod submodules;
