//! The number of packets that an interface's card received, next to the number that the XDP program received.

use aya::maps::{MapData, PerCpuArray};
use pomguard_common::{counter::interface_slot, names};

use super::{KernelError, interface, pins::Pins};

/// Two counters of one card that only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Index of the card.
    pub card: u32,
    /// Number of packets that the driver counted as received.
    pub took: u64,
    /// Number of packets that the XDP program received from the card.
    pub saw: u64,
}

/// The map of received packets, held open.
pub struct Seen(PerCpuArray<MapData, u64>);

impl Seen {
    /// Opens the pinned map.
    ///
    /// # Errors
    /// If the map is not pinned.
    pub fn open(pins: &Pins) -> Result<Self, KernelError> {
        pins.typed(names::MAP_INTERFACES).map(Self)
    }

    fn of(&self, ifindex: u32) -> Result<u64, KernelError> {
        let counts =
            self.0.get(&interface_slot(ifindex), 0).map_err(KernelError::map(names::MAP_INTERFACES))?;
        Ok(counts.iter().sum())
    }

    /// Returns both counters of an interface: for a bond in native mode those of each member, because the
    /// members' drivers run the program; otherwise those of the interface.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn check(&self, ifindex: u32, native: bool) -> Result<Vec<Sight>, KernelError> {
        let mut cards = if native { interface::bond_members(ifindex)? } else { Vec::new() };
        if cards.is_empty() {
            cards.extend(interface::received(ifindex)?.map(|took| (ifindex, took)));
        }
        cards.into_iter().map(|(card, took)| Ok(Sight { card, took, saw: self.of(card)? })).collect()
    }

    /// Returns the number of packets that the program received from an interface.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn packets(&self, ifindex: u32, native: bool) -> Result<u64, KernelError> {
        Ok(self.check(ifindex, native)?.iter().map(|sight| sight.saw).sum())
    }
}
