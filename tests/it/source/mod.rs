//! From the source of an app to the files of its tree.

mod app;
mod checkout;
mod clone;
mod compare;
mod directory;
mod download;
mod errors;
mod hostile;
mod lfs;
mod network;
mod private;
mod proxy;
mod signed;
mod ssh;
mod submodules;
