//! A real daemon, real traffic, and a fault: the daemon is killed at any moment, fails at a system call,
//! starts twice, runs out of space, gets another time, is flooded. Each test reports its result in numbers.
//!
//! The environment sets the numbers of a longer run: see `cargo xtask faults`.

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
