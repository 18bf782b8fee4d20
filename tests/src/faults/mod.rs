//! Common parts of the fault tests: traffic that continues while something breaks, counters of the packets
//! that get through, and a check of the objects that are left behind.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a fixture panics where a test would: the place is what one wants to know"
)]

use std::{env, io::Write as _};

pub mod clocks;
mod flows;
mod footprint;
mod leftovers;
mod load;
mod packet_counter;
pub mod policies;
mod sender;
pub mod trace;
mod traffic_generator;

pub use self::{
    flows::{Fared, Flows},
    footprint::Footprint,
    leftovers::Leftovers,
    load::{Load, LoadResult, Pair, THE_PEER, THE_SERVER, THE_STRANGER, frames},
    packet_counter::PacketCounter,
    sender::Sender,
    traffic_generator::TrafficGenerator,
};

/// Returns the number in an environment variable, or `or` if the variable is not set.
pub fn times(variable: &str, or: usize) -> usize {
    env::var(variable).map_or(or, |text| text.parse().expect("a number"))
}

/// Prints the result of a test past the test runner's capture, because the counts are the purpose of the
/// test.
pub fn report(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
