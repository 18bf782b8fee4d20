//! Names of programs, maps and globals: the object declares them, and the daemon and the pins use them.

/// The attached XDP program: the fast path.
pub const PROGRAM_INGRESS: &str = "pomguard_xdp";
/// The attached TC program: the fast path.
pub const PROGRAM_EGRESS: &str = "pomguard_tc";
/// The XDP program of the general path, to which the fast path jumps.
pub const GENERAL_INGRESS: &str = "pom_general_xdp";
/// The TC program of the general path, to which the fast path jumps.
pub const GENERAL_EGRESS: &str = "pom_general_tc";

/// Program array with the XDP program of the general path.
pub const ARRAY_INGRESS: &str = "GENERAL_XDP";
/// Program array with the TC program of the general path.
pub const ARRAY_EGRESS: &str = "GENERAL_TC";

/// All programs.
pub const PROGRAMS: [&str; 4] = [PROGRAM_INGRESS, PROGRAM_EGRESS, GENERAL_INGRESS, GENERAL_EGRESS];

/// Program arrays, each with the general program that it holds. They belong to the programs, not to the maps:
/// every start creates new arrays.
pub const ARRAYS: [(&str, &str); 2] = [(ARRAY_INGRESS, GENERAL_INGRESS), (ARRAY_EGRESS, GENERAL_EGRESS)];

/// Global: the index of the interface whose packets are self-tests; 0 = none.
pub const GLOBAL_SELF_TEST: &str = "SELF_TEST_INTERFACE";

/// Array of maps: one compiled policy per generation slot.
pub const MAP_POLICY: &str = "POLICY";
/// The control words: the slot in force, suspension, grace period. See [`crate::control::Control`].
pub const MAP_CONTROL: &str = "CONTROL";
/// Failsafe rows and timed exceptions. See [`crate::control::Override`].
pub const MAP_OVERRIDES: &str = "OVERRIDES";
/// Per CPU: packets seen, and packets by reason; for traffic and for self-tests ([`crate::counter::set`]).
pub const MAP_COUNTERS: &str = "COUNTERS";
/// Per CPU: inbound packets by interface. See [`crate::counter::interface_slot`].
pub const MAP_INTERFACES: &str = "INTERFACES";
/// Per CPU: one tally per row slot.
pub const MAP_ROWS: &str = "ROWS";
/// Per CPU: the denied peers. See [`crate::drops`].
pub const MAP_DROPS: &str = "DROPS";
/// The meaning of each row slot, so that a reader needs nothing but the maps.
pub const MAP_LABELS: &str = "LABELS";
/// Buckets of the flow table.
pub const MAP_FLOWS: &str = "FLOWS";
/// Local ports at which a flow can exist. They belong to the flow table. See [`crate::flow::ports`].
pub const MAP_FLOW_PORTS: &str = "FLOW_PORTS";
/// Prints of the flow table: a byte of the hash of each entry. See [`crate::flow::prints`].
pub const MAP_FLOW_PRINTS: &str = "FLOW_PRINTS";
/// Buckets of the fragment table.
pub const MAP_FRAGMENTS: &str = "FRAGMENTS";
/// The time at which each local port last served. See [`crate::serve::Served`].
pub const MAP_SERVED: &str = "SERVED";
/// One record about the host for readers of the maps. See [`crate::counter::HostRecord`].
pub const MAP_HOST: &str = "HOST";

/// Maps that are pinned and that outlive the daemon.
pub const PINNED_MAPS: &[&str] = &[
    MAP_POLICY,
    MAP_CONTROL,
    MAP_OVERRIDES,
    MAP_COUNTERS,
    MAP_INTERFACES,
    MAP_ROWS,
    MAP_DROPS,
    MAP_LABELS,
    MAP_FLOWS,
    MAP_FLOW_PORTS,
    MAP_FLOW_PRINTS,
    MAP_FRAGMENTS,
    MAP_SERVED,
    MAP_HOST,
];
