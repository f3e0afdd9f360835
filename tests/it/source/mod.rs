//! From where an app comes to the files of its tree.

mod checkout;
mod clone;
mod compare;
mod download;
mod hostile;
mod network;
mod private;
mod proxy;
mod ssh;
mod submodules;
