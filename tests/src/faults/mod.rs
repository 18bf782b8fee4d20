//! What the tests of faults have in common: traffic that goes on while something breaks, an ear for
//! what got through, and a look at what was left behind.

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
    load::{Load, Outcome, Pair, THE_PEER, THE_SERVER, THE_STRANGER, frames},
    packet_counter::PacketCounter,
    sender::Sender,
    traffic_generator::TrafficGenerator,
};

/// How often something is done: what the variable says, or so often.
pub fn times(variable: &str, or: usize) -> usize {
    env::var(variable).map_or(or, |text| text.parse().expect("a number"))
}

/// Says what a test came to, past the test runner's capture: the counts are the point of it.
pub fn report(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
