//! The packets that the sender sends.

use anyhow::Result;
use pomguard_common::bench::DENIED;

use super::{
    policy::{Family, Policy},
    random::Random,
    traffic::{self, Endpoints, Header, segment},
};

/// The number of connections that alternate.
const FLOWS: usize = 100_000;

/// A kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mix {
    /// Strangers to ports that no row lists.
    Port,
    /// Strangers to ports that are listed for other peers.
    Stranger,
    /// Peers that open connections.
    Opening,
    /// Segments of many open connections.
    Established,
    /// Segments of one open connection.
    Hot,
    /// Nine of ten packets are denied, and the host answers the rest.
    Scan,
}

/// The required fate of the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Passes,
    Drops,
    /// One of ten packets passes.
    Tenth,
}

impl Mix {
    /// All mixes, in the order of the tables.
    pub(super) const ALL: [Self; 6] =
        [Self::Port, Self::Stranger, Self::Established, Self::Hot, Self::Opening, Self::Scan];

    /// Returns the name of the mix in tables.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Port => "denied port",
            Self::Stranger => "denied source",
            Self::Opening => "allowed, opening",
            Self::Established => "allowed, 100,000 flows",
            Self::Hot => "allowed, one flow",
            Self::Scan => "90 % denied scan",
        }
    }

    /// Returns the required fate of the mix.
    pub(super) const fn due(self) -> Due {
        match self {
            Self::Port | Self::Stranger => Due::Drops,
            Self::Opening | Self::Established | Self::Hot => Due::Passes,
            Self::Scan => Due::Tenth,
        }
    }

    /// Returns true if a stateful filter must know the connections beforehand.
    pub(super) const fn is_established(self) -> bool {
        matches!(self, Self::Established | Self::Hot)
    }

    /// Returns the two ends of each connection, in the order of sending.
    pub(super) fn flows(self, policy: &Policy, random: &mut Random) -> Result<Vec<Endpoints>> {
        match self {
            Self::Port => Ok(traffic::port_scan(policy, random, FLOWS)),
            Self::Stranger => traffic::strangers(policy, random, FLOWS),
            Self::Opening | Self::Established => traffic::allowed(policy, random, FLOWS),
            Self::Hot => traffic::allowed(policy, random, 1),
            Self::Scan => {
                let mut all = Vec::with_capacity(FLOWS);
                for turn in 0..FLOWS {
                    all.extend(match turn % 10 {
                        0 => traffic::allowed(policy, random, 1)?,
                        at if at % 2 == 0 => traffic::strangers(policy, random, 1)?,
                        _ => traffic::port_scan(policy, random, 1),
                    });
                }
                Ok(all)
            }
        }
    }

    /// Makes the packets of these connections.
    ///
    /// Except in the scan their TCP checksum is wrong: TCP receives the packets and discards them. So the
    /// path is complete, and nobody answers. The right verdict is written behind each datagram for the floor.
    pub(super) fn headers(self, family: Family, flows: &[Endpoints]) -> Vec<Header> {
        let flags = if self.is_established() { segment::ACK } else { segment::SYN };
        let checksum = if family == Family::V4 { 20 } else { 40 } + 16;
        let make = |(turn, ends): (usize, &Endpoints)| {
            let mut header = ends.asks(flags);
            if self != Self::Scan {
                header[checksum] ^= 0x55;
            }
            let denied = match self.due() {
                Due::Passes => false,
                Due::Drops => true,
                Due::Tenth => turn % 10 != 0,
            };
            if denied {
                let end = header.len() - size_of_val(&DENIED);
                header[end..].copy_from_slice(&DENIED.to_ne_bytes());
            }
            header
        };
        flows.iter().enumerate().map(make).collect()
    }
}
