//! Names of programs, maps and globals: the object declares them, the daemon and the pins use them.

/// The XDP program.
pub const PROGRAM_INGRESS: &str = "pomguard_xdp";
/// The TC program.
pub const PROGRAM_EGRESS: &str = "pomguard_tc";

/// Array of maps: one compiled policy per generation slot.
pub const MAP_POLICY: &str = "POLICY";
/// One cache line: which slot is in force, panic, grace. See [`crate::control::Control`].
pub const MAP_CONTROL: &str = "CONTROL";
/// Failsafe tuples and timed exceptions. See [`crate::control::Pinhole`].
pub const MAP_PINHOLES: &str = "PINHOLES";
/// Per CPU: packets seen, and packets by reason.
pub const MAP_COUNTERS: &str = "COUNTERS";
/// Per CPU: one tally per row slot.
pub const MAP_ROWS: &str = "ROWS";
/// What each row slot means, so that a reader needs nothing but the maps.
pub const MAP_LABELS: &str = "LABELS";
/// Tags of the flow table, a cache line per bucket.
pub const MAP_FLOW_TAGS: &str = "FLOW_TAGS";
/// Keys of the flow table, one per slot.
pub const MAP_FLOW_KEYS: &str = "FLOW_KEYS";
/// Tags of the fragment table.
pub const MAP_FRAGMENT_TAGS: &str = "FRAGMENT_TAGS";
/// Keys of the fragment table.
pub const MAP_FRAGMENT_KEYS: &str = "FRAGMENT_KEYS";
/// One record about the host for readers of the maps. See [`crate::counter::HostRecord`].
pub const MAP_HOST: &str = "HOST";

/// Maps that are pinned, and outlive the daemon.
pub const PINNED_MAPS: &[&str] = &[
    MAP_POLICY,
    MAP_CONTROL,
    MAP_PINHOLES,
    MAP_COUNTERS,
    MAP_ROWS,
    MAP_LABELS,
    MAP_FLOW_TAGS,
    MAP_FLOW_KEYS,
    MAP_FRAGMENT_TAGS,
    MAP_FRAGMENT_KEYS,
    MAP_HOST,
];
