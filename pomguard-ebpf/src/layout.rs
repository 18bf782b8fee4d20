//! Positions in a value of the scratch map, in words.

use pomguard_common::{
    decide::ParsedSlot,
    flow::{Candidates, Key},
    image::Line,
    parse::Datagram,
    rate::Rated,
};

/// Words of a datagram.
pub(crate) const DATAGRAM: usize = size_of::<Datagram>().div_ceil(8);
/// Words of a line of the image.
pub(crate) const LINE: usize = size_of::<Line>() / 8;

/// The word for the barrier.
pub(crate) const BARRIER: usize = 0;
/// The number of the value.
pub(crate) const INDEX: usize = BARRIER + 1;
/// 1 for a self-test.
pub(crate) const SELF_TEST: usize = INDEX + 1;
/// The slot of the generation that judges the packet.
pub(crate) const SLOT: usize = SELF_TEST + 1;
/// The note about the packet.
pub(crate) const NOTE: usize = SLOT + 1;
/// A key, or the address of a peer.
pub(crate) const KEY: usize = NOTE + 1;
/// The packets that passed of each class with a rate.
pub(crate) const SPENT: usize = KEY + size_of::<Key>() / 8;
/// A copy of the image's line of ages.
pub(crate) const AGES: usize = SPENT + Rated::COUNT;
/// The entries that may make room for a flow.
pub(crate) const CANDIDATES: usize = AGES + LINE;
/// The datagram under judgement, and the one that it quotes.
pub(crate) const DATAGRAMS: usize = CANDIDATES + size_of::<Candidates>() / 8;
/// Words of a value.
pub(crate) const WORDS: usize = DATAGRAMS + ParsedSlot::ALL * DATAGRAM;
/// Values of the scratch map: one for each hook, and two more for self-tests, which a packet of the network
/// may interrupt. A power of two.
pub(crate) const VALUES: usize = 4;
