//! The states of a TCP flow.
//!
//! RFC 9293 has eleven states. A firewall next to the stack needs three, and two marks: this host has sent a
//! FIN, and the peer has sent a FIN. A flow with both marks is closed, and so is a flow on which this host
//! has sent a RST.
//!
//! A packet that seems to come from the peer may be forged by a stranger who cannot see the flow. So such a
//! packet never ends a flow, never shortens the age of a flow, and never keeps a flow that this host has
//! ended. A forged segment that the stack acts upon draws an answer from the stack (RFC 5961), and only that
//! answer counts.

use super::{Found, STALE, State, Store, Tag, at, mark, touch};
use crate::{Direction, parse::tcp_flag};

/// Updates a flow that [`super::find`] found with a TCP segment of that flow.
#[inline(always)]
pub fn segment<S: Store>(store: &S, found: &Found, hook: Direction, flags: u8) {
    if !plain_segment(store, found, flags) {
        follow(store, found.slot, found.tag.0, (hook as u32) << 8 | u32::from(flags));
    }
}

/// Handles a segment that changes nothing but the time: one without SYN, FIN and RST, of an established flow
/// that is not suspect. Returns false for any other segment, and then does nothing. Calls no function.
#[inline(always)]
pub fn plain_segment<S: Store>(store: &S, found: &Found, flags: u8) -> bool {
    let plain = flags & (tcp_flag::SYN | tcp_flag::FIN | tcp_flag::RST) == 0;
    let steady = matches!(found.tag.state(), State::Established) && !found.tag.suspect();
    if plain && steady {
        touch(store, found, State::Established);
    }
    plain && steady
}

/// Stores the changes that a segment makes. `segment` holds the hook's number above the flags. A separate
/// function in the programs.
#[inline(never)]
fn follow<S: Store>(store: &S, slot: u32, tag: u64, segment: u32) -> u64 {
    let Some((word, slot)) = at(store, slot) else { return 0 };
    let tag = Tag(tag);
    let now = store.now();
    let before = Flow { state: tag.state(), ours: slot.ours.load(), theirs: slot.theirs.load() };
    let flags = segment as u8;
    let outbound = segment >> 8 != Direction::Inbound as u32;
    let after = if outbound { before.sent(flags) } else { before.heard(flags) };
    if after.ours != before.ours {
        slot.ours.store(after.ours);
    }
    if after.theirs != before.theirs {
        slot.theirs.store(after.theirs);
    }
    let reset = flags & tcp_flag::RST != 0;
    let closed = matches!(after.state, State::Closed);
    let next = if !outbound && reset {
        if closed { tag } else { Tag(tag.0 | Tag::SUSPECT) }
    } else if closed && matches!(before.state, State::Closed) && (reset || !outbound) {
        // A segment that a stranger can send, or can provoke from a host without such a socket, does not keep
        // the flow.
        tag
    } else if tag.moved(after.state).0 == tag.0 && tag.idle(now) < STALE {
        tag
    } else {
        Tag::new(tag.0, after.state, now)
    };
    if next.0 != tag.0 {
        word.store(next.0);
    }
    0
}

/// The state of a TCP flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flow {
    state: State,
    ours: u8,
    theirs: u8,
}

impl Flow {
    /// Returns the state after this host sends a segment with these flags.
    #[inline(always)]
    const fn sent(self, flags: u8) -> Self {
        if flags & tcp_flag::RST != 0 {
            return Self { state: State::Closed, ours: self.ours | mark::RST, ..self };
        }
        if flags & tcp_flag::SYN != 0 {
            // The stack sends a SYN only if no older connection is left (RFC 6191): this is a new flow with
            // the old tuple.
            return Self { state: State::Opening, ours: self.ours & !(mark::FIN | mark::RST), theirs: 0 };
        }
        // A host that continues after a RST meant another connection with that RST: in SYN-SENT, the stack
        // resets an answer to another segment, and the connection opens nevertheless.
        let fin = if flags & tcp_flag::FIN != 0 { mark::FIN } else { 0 };
        let ours = self.ours & !mark::RST | fin;
        let state = match self.state {
            _ if ours & mark::FIN != 0 && self.theirs & mark::PEER_FIN != 0 => State::Closed,
            // This host's own packets do not prove that a peer answers.
            State::Opening => State::Opening,
            _ => State::Established,
        };
        Self { state, ours, theirs: self.theirs }
    }

    /// Returns the state after a segment with these flags from the peer, or from someone who pretends to be
    /// the peer.
    #[inline(always)]
    const fn heard(self, flags: u8) -> Self {
        if flags & tcp_flag::RST != 0 {
            return self;
        }
        let fin = flags & tcp_flag::FIN != 0;
        let theirs = if fin { self.theirs | mark::PEER_FIN } else { self.theirs };
        let state = match self.state {
            _ if self.ours & mark::RST != 0 => State::Closed,
            _ if self.ours & mark::FIN != 0 && theirs & mark::PEER_FIN != 0 => State::Closed,
            // A FIN alone changes no age.
            State::Opening if !fin => State::Established,
            state => state,
        };
        Self { state, ours: self.ours, theirs }
    }
}
