//! A real daemon, real traffic, and something that breaks: killed at any moment, refused a system call,
//! started twice, out of room, told another time, flooded. Each test says what came of it in numbers.
//!
//! What the counts of a longer run are to be is in the environment: `cargo xtask faults` sets it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic keeps the place where it happened")]

mod changes;
mod clocks;
mod crash_points;
mod disks;
mod floods;
mod healing;
mod kills;
mod lifetimes;
mod mixture;
mod packet_counters;
mod scarcity;
mod scrapes;
mod tables;
mod two_daemons;
