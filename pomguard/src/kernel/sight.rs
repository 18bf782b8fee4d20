//! What the card of an interface took, alongside what the guard saw of it.

use aya::maps::{MapData, PerCpuArray};
use pomguard_common::{counter::interface_slot, names};

use super::{KernelError, interface, pins::Pins};

/// Two counters of one card that only ever grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// The card's index.
    pub card: u32,
    /// Packets that its driver counted as received.
    pub took: u64,
    /// Packets that the XDP program saw of it.
    pub saw: u64,
}

/// The map of packets that came in, held open.
pub struct Seen(PerCpuArray<MapData, u64>);

impl Seen {
    /// Opens the pinned map.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(pins: &Pins) -> Result<Self, KernelError> {
        pins.typed(names::MAP_INTERFACES).map(Self)
    }

    fn of(&self, ifindex: u32) -> Result<u64, KernelError> {
        let counts =
            self.0.get(&interface_slot(ifindex), 0).map_err(KernelError::map(names::MAP_INTERFACES))?;
        Ok(counts.iter().sum())
    }

    /// Both counters of an interface: in native mode on a bond, those of each member, whose driver runs the
    /// program; else its own.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn check(&self, ifindex: u32, native: bool) -> Result<Vec<Sight>, KernelError> {
        let mut cards = if native { interface::bond_members(ifindex)? } else { Vec::new() };
        if cards.is_empty() {
            cards.extend(interface::received(ifindex)?.map(|took| (ifindex, took)));
        }
        cards.into_iter().map(|(card, took)| Ok(Sight { card, took, saw: self.of(card)? })).collect()
    }

    /// Packets that the program saw of an interface.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn packets(&self, ifindex: u32, native: bool) -> Result<u64, KernelError> {
        Ok(self.check(ifindex, native)?.iter().map(|sight| sight.saw).sum())
    }
}
