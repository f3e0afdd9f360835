//! The shared volume: releases, and runs that are killed, disturbed, repeated or concurrent.

mod concurrent;
mod crash;
mod errnos;
mod faults;
mod neighbours;
mod power;
mod releases;
mod rerun;
mod restricted;
mod roots;
