//! The counters, and the records that make them readable without the daemon.

use crate::{limits, reason::REASONS, text::FixedText};

/// Packets and bytes. The bytes are those of the frame as the hook sees it, including the link header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Tally {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// One direction's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct DirectionCounters {
    /// Every packet that reached the hook, counted before the decision.
    pub seen: Tally,
    /// By reason: packets that passed under a pass reason or were dropped under a drop reason.
    pub judged: [Tally; REASONS],
    /// By drop reason: packets that audit mode passed although they would have been dropped.
    pub audited: [Tally; REASONS],
}

/// Elements of the counter map.
pub mod set {
    /// Counts packets of the network.
    pub const TRAFFIC: u32 = 0;
    /// Counts self-tests: no sum, no row and no metric contains them.
    pub const SELF_TESTS: u32 = 1;
    /// Number of elements.
    pub const COUNT: usize = 2;
}

/// A value of the per-CPU counter map, for both directions ([`crate::Direction::index`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// Inbound, then outbound.
    pub direction: [DirectionCounters; 2],
    /// Unused: kept so that the layout of the counters stays the same.
    pub events_lost: u64,
    /// Flows entered into the flow table.
    pub flows_opened: u64,
    /// Flows that replaced an older one before the end of the older one's age. Should stay at zero.
    pub flows_evicted: u64,
}

impl Counters {
    /// All counters at zero.
    pub const ZERO: Self = Self {
        direction: [DirectionCounters {
            seen: Tally { packets: 0, bytes: 0 },
            judged: [Tally { packets: 0, bytes: 0 }; REASONS],
            audited: [Tally { packets: 0, bytes: 0 }; REASONS],
        }; 2],
        events_lost: 0,
        flows_opened: 0,
        flows_evicted: 0,
    };
}

/// Returns the slot in which the packets of the interface with this index are counted. Two interfaces share a
/// slot if their indexes differ by a multiple of [`limits::INTERFACES`].
#[must_use]
#[inline(always)]
pub const fn interface_slot(ifindex: u32) -> u32 {
    ifindex & (limits::INTERFACES as u32 - 1)
}

/// One row's counters, per CPU, keyed by row slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RowTally {
    /// Packets that the row allowed, as the hook sees them: TCP segments that the kernel has merged count as
    /// one packet.
    pub packets: u64,
    /// Bytes of these packets.
    pub bytes: u64,
    /// Flows opened: TCP packets with SYN and without ACK, first packets of other protocols
    /// that this host sends.
    pub connections: u64,
    /// First hit on this CPU, in ticks ([`HostRecord::tick_shift`]); 0 = never.
    pub first: u64,
    /// Last hit on this CPU, in ticks; 0 = never.
    pub last: u64,
}

/// Longest row id, in bytes.
pub const LABEL_ID: usize = 64;
/// Longest system list of a label, in bytes; longer ones are cut at a character boundary.
pub const LABEL_SYSTEM: usize = 72;
/// Longest port list of a label, in bytes.
pub const LABEL_PORTS: usize = 44;

/// The meaning of a row slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct RowLabel {
    /// The row's id: `pom-4.0/15`, `site/ssh-ops`. All zero: the slot is free.
    pub id: FixedText<LABEL_ID>,
    /// The side that opens the connection.
    pub source: FixedText<LABEL_SYSTEM>,
    /// The side that accepts the connection.
    pub destination: FixedText<LABEL_SYSTEM>,
    /// Ports as enforced, with the protocol.
    pub ports: FixedText<LABEL_PORTS>,
    /// [`crate::Direction`] as a number.
    pub direction: u8,
    /// 1: in the policy in force; 0: was in an earlier policy, and the counters are kept.
    pub live: u8,
    /// 1: a failsafe row.
    pub failsafe: u8,
    /// Always 0.
    pub reserved: u8,
}

/// One record about the host, for readers that have only the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct HostRecord {
    /// [`crate::ABI_VERSION`] of the maps.
    pub abi: u32,
    /// Bits dropped from the kernel's tick counter to make our ticks.
    pub tick_shift: u32,
    /// Keys the hash of the flow table, for the life of the table.
    pub flow_secret: u64,
    /// Seconds since 1970 when the counters were first set up.
    pub counting_since: u64,
    /// Seconds since 1970 when the generation in force was installed.
    pub installed_at: u64,
    /// The host's name in the site file.
    pub host: FixedText<64>,
    /// The matrix' id.
    pub matrix: FixedText<64>,
    /// Daemon version that wrote the record.
    pub version: FixedText<32>,
}

const _: () = {
    assert!(size_of::<Tally>() == 16);
    assert!(size_of::<DirectionCounters>() == 16 + 2 * 16 * REASONS);
    assert!(size_of::<Counters>() == 2 * size_of::<DirectionCounters>() + 24);
    // Per-CPU values must fit the kernel's per-CPU allocation unit (32 KiB).
    assert!(size_of::<Counters>() <= 32 * 1024);
    assert!(size_of::<RowTally>() == 40);
    assert!(size_of::<RowLabel>() == LABEL_ID + 2 * LABEL_SYSTEM + LABEL_PORTS + 4);
    assert!(size_of::<HostRecord>() == 4 + 4 + 8 + 8 + 8 + 64 + 64 + 32);
    assert!(limits::ROW_SLOTS == 8_192);
};

#[cfg(feature = "user")]
mod pod {
    // SAFETY: repr(C), only integers and arrays of them, no padding (asserted above).
    unsafe impl aya::Pod for super::Counters {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::RowTally {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::RowLabel {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::HostRecord {}
}
