//! Flows and fragmented datagrams in plain hash maps that never run full.

use std::{collections::HashMap, net::IpAddr};

use pomguard::policy::RowId;
use pomguard_common::protocol::{TCP, UDP};

use super::read::{Body, Segment};

/// The key of a flow of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Talk {
    pub(super) protocol: u8,
    pub(super) host: (IpAddr, u16),
    pub(super) peer: (IpAddr, u16),
}

/// The phase of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Opening,
    Open,
    Closed,
    Unanswered,
    Answered,
    Echo,
}

impl Phase {
    /// Seconds after which a flow in this phase expires (docs/policy.md).
    const fn age(self) -> u64 {
        match self {
            Self::Opening => 2 * 60,
            Self::Open => 5 * 24 * 60 * 60,
            Self::Closed => 4 * 60,
            Self::Unanswered => 30,
            Self::Answered => 5 * 60,
            Self::Echo => 60,
        }
    }
}

/// The state of a flow.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    phase: Phase,
    /// Flags of a TCP flow: this host has sent its FIN, this host has sent a RST, the peer has sent its FIN.
    fin: bool,
    rst: bool,
    peer_fin: bool,
    pub(super) row: Option<RowId>,
    /// The epoch: generation of the policy that judged the flow last.
    pub(super) generation: u32,
    seen: u64,
}

impl Memory {
    /// Updates the flow for a segment that this host sent.
    fn segment_sent(&mut self, segment: Segment, now: u64) {
        if segment.rst() {
            if self.phase != Phase::Closed {
                self.seen = now;
            }
            self.rst = true;
            self.phase = Phase::Closed;
            return;
        }
        self.seen = now;
        if segment.syn {
            (self.fin, self.rst, self.peer_fin) = (false, false, false);
            self.phase = Phase::Opening;
            return;
        }
        self.rst = false;
        self.fin |= segment.fin();
        if self.fin && self.peer_fin {
            self.phase = Phase::Closed;
        } else if self.phase == Phase::Closed {
            self.phase = Phase::Open;
        }
    }

    /// Updates the flow for a segment that the peer sent.
    fn segment_heard(&mut self, segment: Segment, now: u64) {
        // A RST makes the flow suspect, which has an effect only in a full table.
        if segment.rst() {
            return;
        }
        self.peer_fin |= segment.fin();
        if self.phase == Phase::Closed {
            return;
        }
        self.seen = now;
        if self.fin && self.peer_fin {
            self.phase = Phase::Closed;
        } else if self.phase == Phase::Opening && !segment.fin() {
            self.phase = Phase::Open;
        }
    }
}

/// The key of a fragmented datagram: source, destination, identification, protocol (IPv4 only), and true for
/// outbound.
pub(super) type FragmentKey = (IpAddr, IpAddr, u32, u8, bool);

/// The way in which a first fragment passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    Allowed,
    Isolated,
    /// Counted as a drop, under the policy of this generation.
    Audited(u32),
}

/// Returns the protocol and the port of this host, which is 0 for a protocol without ports.
const fn port(talk: &Talk) -> (u8, u16) {
    (talk.protocol, if matches!(talk.protocol, TCP | UDP) { talk.host.1 } else { 0 })
}

/// Seconds after which the record of a first fragment expires.
const FRAGMENT_AGE: u64 = 60;

/// All tables of a host.
#[derive(Clone, Debug, Default)]
pub(super) struct FlowTable {
    talks: HashMap<Talk, Memory>,
    /// The time at which each first fragment came, and the way in which it passed.
    fragmented: HashMap<FragmentKey, (u64, Passed)>,
    /// The time at which a packet that is not an answer last came in to a port, by protocol and port.
    served: HashMap<(u8, u16), u64>,
    now: u64,
}

impl FlowTable {
    pub(super) const fn wait(&mut self, seconds: u64) {
        self.now += seconds;
    }

    pub(super) const fn now(&self) -> u64 {
        self.now
    }

    /// Returns a flow that has not expired.
    pub(super) fn talk(&mut self, talk: &Talk) -> Option<&mut Memory> {
        let now = self.now;
        self.talks.get_mut(talk).filter(|memory| now - memory.seen <= memory.phase.age())
    }

    pub(super) fn enter(&mut self, talk: Talk, phase: Phase, fin: bool, row: Option<RowId>, generation: u32) {
        let seen = self.now;
        let memory = Memory { phase, fin, rst: false, peer_fin: false, row, generation, seen };
        self.talks.insert(talk, memory);
    }

    /// Updates a flow for a packet that this host sent.
    pub(super) fn sent(&mut self, talk: &Talk, body: &Body) {
        let now = self.now;
        let Some(memory) = self.talks.get_mut(talk) else { return };
        match body {
            Body::Tcp(segment) => memory.segment_sent(*segment, now),
            _ => memory.seen = now,
        }
    }

    /// Updates a flow for a packet that the peer sent.
    pub(super) fn heard(&mut self, talk: &Talk, body: &Body) {
        let now = self.now;
        let Some(memory) = self.talks.get_mut(talk) else { return };
        match body {
            Body::Tcp(segment) => memory.segment_heard(*segment, now),
            // The peer has answered. An answer does not extend the life of the flow.
            Body::Udp { .. } => memory.phase = Phase::Answered,
            _ => {}
        }
    }

    /// Returns the way in which a first fragment passed, or `None` if no first fragment is recorded.
    pub(super) fn fragment_key(&self, fragment_key: &FragmentKey) -> Option<Passed> {
        self.fragmented
            .get(fragment_key)
            .filter(|(seen, _)| self.now - seen <= FRAGMENT_AGE)
            .map(|(_, how)| *how)
    }

    pub(super) fn note_fragment(&mut self, fragment_key: FragmentKey, how: Passed) {
        self.fragmented.insert(fragment_key, (self.now, how));
    }

    /// Returns true if a port of this host serves; for a protocol without ports, true if the protocol serves.
    pub(super) fn serves(&self, talk: &Talk) -> bool {
        let age = if talk.protocol == TCP { 24 * 60 * 60 } else { 2 * 60 };
        self.served.get(&port(talk)).is_some_and(|seen| self.now - seen <= age)
    }

    /// Records that a packet that is not an answer came in to a port of this host. A packet that does not
    /// open only prolongs the record of a port that serves.
    pub(super) fn let_in(&mut self, talk: &Talk, opens: bool) {
        if opens || self.serves(talk) {
            self.served.insert(port(talk), self.now);
        }
    }
}
