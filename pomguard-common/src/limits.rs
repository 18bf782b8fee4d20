//! Sizes and bounds. If a policy exceeds one, the compiler refuses it and reports the numbers; if a packet
//! does, it is dropped under a separate reason.

/// Tuples in one policy: (direction, peer prefix, client-port range, service-port range, protocol, row).
pub const TUPLES: usize = 100_000;
/// Rows of one host's policy, each direction counted on its own.
pub const ROWS: usize = 4_096;
/// Counter slots: every (row id, direction) that is or was in force keeps a slot.
pub const ROW_SLOTS: usize = 2 * ROWS;
/// Flows that this host opened, remembered at once.
pub const FLOWS: usize = 262_144;
/// Slots of one flow bucket: one cache line of tags.
pub const FLOW_WAYS: usize = 8;
/// Buckets of the flow table.
pub const FLOW_BUCKETS: usize = FLOWS / FLOW_WAYS;
/// Fragmented datagrams remembered at once.
pub const FRAGMENTS: usize = 8_192;
/// Buckets of the fragment table.
pub const FRAGMENT_BUCKETS: usize = FRAGMENTS / FLOW_WAYS;
/// Slots of the counters of inbound packets by interface.
pub const INTERFACES: usize = 256;
/// Addresses of this host that the fast path knows, per family. Packets to the others take the general path.
pub const LOCAL_ADDRESSES: usize = 16;
/// Addresses and prefixes of this host, per family.
pub const OWN_ADDRESSES: usize = 256;
/// Cache lines of one compiled policy (8 MiB).
pub const IMAGE_LINES: usize = 131_072;
/// Generations kept in the kernel: the active one, the previous one, and room for the next.
pub const GENERATIONS: usize = 4;
/// Failsafe rows and timed exceptions in force at once, in tuples: every would-be drop may check each of
/// them.
pub const OVERRIDES: usize = 64;
/// Distinct prefix lengths of one address family in one image; more are folded by the compiler.
pub const PREFIX_LEVELS: usize = 8;
/// Neighbouring buckets that one address look-up may visit.
pub const BUCKET_PROBES: usize = 3;
/// Client-port ranges for one (class, service) pair.
pub const CELL_CHAIN: usize = 4;
/// VLAN tags that a frame may carry (802.1Q and 802.1ad in any order).
pub const VLAN_TAGS: usize = 4;
/// IPv6 extension headers that are walked before the upper layer.
pub const EXTENSION_HEADERS: usize = 16;
/// Bytes into a frame that any header may reach. Offsets stay below the bound that the verifier accepts for a
/// variable packet offset, and a chain of long extension headers ends here.
pub const HEADER_REACH: usize = 2_048;

/// Index of the loopback interface in every network namespace (`LOOPBACK_IFINDEX`). The kernel runs a test
/// packet (`BPF_PROG_TEST_RUN`) as if the packet came in or left there, unless the caller names another
/// interface. pomguard does not guard this interface, so no packet of the network has this index.
pub const LOOPBACK: u32 = 1;

const _: () = assert!(FLOW_BUCKETS.is_power_of_two() && FRAGMENT_BUCKETS.is_power_of_two());
const _: () = assert!(INTERFACES.is_power_of_two());
const _: () = assert!(ROW_SLOTS < u16::MAX as usize, "a row slot fits the cell's 16 bits");
