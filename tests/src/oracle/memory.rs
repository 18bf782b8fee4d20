//! Conversations and fragment trains in plain hash maps that never run full.

use std::{collections::HashMap, net::IpAddr};

use pomguard::policy::RowId;

/// A conversation of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Talk {
    pub(super) protocol: u8,
    pub(super) host: (IpAddr, u16),
    pub(super) peer: (IpAddr, u16),
}

/// How far a conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Opening,
    Open,
    Closing,
    Udp,
    Echo,
}

impl Phase {
    /// Seconds for which it is remembered (docs/policy.md).
    const fn age(self) -> u64 {
        match self {
            Self::Opening => 2 * 60,
            Self::Open => 124 * 60,
            Self::Closing => 4 * 60,
            Self::Udp => 5 * 60,
            Self::Echo => 60,
        }
    }
}

/// What is known of a conversation.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    pub(super) phase: Phase,
    pub(super) row: Option<RowId>,
    /// Under which policy it was judged.
    pub(super) generation: u32,
    seen: u64,
}

/// A datagram in pieces: whose, which.
pub(super) type Train = (IpAddr, IpAddr, u32, u8, bool);

/// Seconds for which a first fragment is remembered.
const TRAIN: u64 = 60;

/// Everything that a host remembers.
#[derive(Clone, Debug, Default)]
pub(super) struct Notebook {
    talks: HashMap<Talk, Memory>,
    /// When each first fragment came, and whether it passed while the host was isolated.
    trains: HashMap<Train, (u64, bool)>,
    now: u64,
}

impl Notebook {
    pub(super) const fn wait(&mut self, seconds: u64) {
        self.now += seconds;
    }

    pub(super) const fn now(&self) -> u64 {
        self.now
    }

    /// A conversation that is not past its age.
    pub(super) fn talk(&mut self, talk: &Talk) -> Option<&mut Memory> {
        let now = self.now;
        self.talks.get_mut(talk).filter(|memory| now - memory.seen <= memory.phase.age())
    }

    pub(super) fn enter(&mut self, talk: Talk, phase: Phase, row: Option<RowId>, generation: u32) {
        self.talks.insert(talk, Memory { phase, row, generation, seen: self.now });
    }

    /// Something was heard of a conversation.
    pub(super) fn touch(&mut self, talk: &Talk, phase: Phase) {
        if let Some(memory) = self.talks.get_mut(talk) {
            (memory.phase, memory.seen) = (phase, self.now);
        }
    }

    /// Whether a first fragment passed; isolated, whether it did so isolated.
    pub(super) fn has_train(&self, train: &Train, isolated: bool) -> bool {
        self.trains.get(train).is_some_and(|(seen, so)| self.now - seen <= TRAIN && (*so || !isolated))
    }

    pub(super) fn note_train(&mut self, train: Train, isolated: bool) {
        self.trains.insert(train, (self.now, isolated));
    }
}
