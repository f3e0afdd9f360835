//! The shared volume: releases, and runs that are killed, hindered, repeated, or not alone.

mod concurrent;
mod crash;
mod faults;
mod releases;
mod rerun;
mod restricted;
mod roots;
