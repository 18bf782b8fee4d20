//! How a TCP flow goes on and ends.
//!
//! RFC 9293 has eleven states. A firewall alongside the stack needs three, and two marks: this host's FIN has
//! left, the peer's FIN was seen. A flow with both is closed, as is one whose RST this host has sent.
//!
//! What the peer seems to say may be forged by a stranger who sees nothing. So it never ends a flow, never
//! shortens its age and never keeps one that this host has ended: a forged segment that means anything draws
//! an answer from this host's stack (RFC 5961), and only that answer counts.

use super::{Found, STALE, State, Store, Tag, at, mark, touch};
use crate::{Direction, parse::tcp_flag};

/// Follows a TCP segment of a flow that [`super::find`] found.
#[inline(always)]
pub fn segment<S: Store>(store: &S, found: &Found, hook: Direction, flags: u8) {
    if !plain_segment(store, found, flags) {
        follow(store, found.slot, found.tag.0, (hook as u32) << 8 | u32::from(flags));
    }
}

/// Follows a segment that changes nothing but the time: one without SYN, FIN and RST, of an established flow
/// that is not suspect. Returns false for any other, and then does nothing. Calls no function.
#[inline(always)]
pub fn plain_segment<S: Store>(store: &S, found: &Found, flags: u8) -> bool {
    let plain = flags & (tcp_flag::SYN | tcp_flag::FIN | tcp_flag::RST) == 0;
    let steady = matches!(found.tag.state(), State::Established) && !found.tag.suspect();
    if plain && steady {
        touch(store, found, State::Established);
    }
    plain && steady
}

/// Stores what a segment changes. `segment` holds the hook's number above the flags. A function of its own in
/// the programs.
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
        // Nothing that a stranger can send, or draw from a host that has no such socket, keeps it.
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

/// What is known of a TCP flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flow {
    state: State,
    ours: u8,
    theirs: u8,
}

impl Flow {
    /// After a segment of this host's with these flags.
    #[inline(always)]
    const fn sent(self, flags: u8) -> Self {
        if flags & tcp_flag::RST != 0 {
            return Self { state: State::Closed, ours: self.ours | mark::RST, ..self };
        }
        if flags & tcp_flag::SYN != 0 {
            // The stack sends one where no older connection is left (RFC 6191): a new flow on the old tuple.
            return Self { state: State::Opening, ours: self.ours & !(mark::FIN | mark::RST), theirs: 0 };
        }
        // A host that goes on after its own RST has meant another connection with it: in SYN-SENT an answer
        // to somebody else's segment is reset, and the connection opens nevertheless.
        let fin = if flags & tcp_flag::FIN != 0 { mark::FIN } else { 0 };
        let ours = self.ours & !mark::RST | fin;
        let state = match self.state {
            _ if ours & mark::FIN != 0 && self.theirs & mark::PEER_FIN != 0 => State::Closed,
            // Our own packets do not prove that anybody answers.
            State::Opening => State::Opening,
            _ => State::Established,
        };
        Self { state, ours, theirs: self.theirs }
    }

    /// After a segment of the peer's with these flags, or of somebody who pretends to be the peer.
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
