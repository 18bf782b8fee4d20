//! Names and constants that the bench shares with its own programs (`cargo xtask bench`).

/// Bytes of a prepared header: the bytes after the Ethernet header of a packet under test, up to the end.
pub const HEADER: usize = 64;
/// Maximum number of prepared headers.
pub const HEADERS: usize = 131_072;

/// The XDP program that writes the next header into the packet and calls the program under test.
pub const SHUFFLE_XDP: &str = "shuffle_xdp";
/// An XDP program that does nothing.
pub const FLOOR_XDP: &str = "floor_xdp";
/// The TC program that writes the next header into the packet and calls the program under test.
pub const SHUFFLE_TC: &str = "shuffle_tc";
/// A TC program that does nothing.
pub const FLOOR_TC: &str = "floor_tc";

/// An XDP program that the shuffler calls: it sends the packet out of the interface in [`MAP_LINK`].
pub const FORWARD_XDP: &str = "forward_xdp";
/// An XDP program that knows the right verdict in advance: it drops packets that end in [`DENIED`], and
/// passes the rest.
pub const ORACLE_XDP: &str = "oracle_xdp";
/// The mark that the sender writes after the end of the datagram if the packet is to be dropped.
pub const DENIED: u32 = 0x6465_6e79;

/// An XDP program with one table of exact keys and counters: about the least that any filter of the same policy
/// costs.
pub const REFERENCE_XDP: &str = "reference_xdp";
/// One [`Reference`].
pub const MAP_REFERENCE: &str = "REFERENCE";
/// The table of [`REFERENCE_XDP`]: lines of eight words.
pub const MAP_REFERENCE_LINES: &str = "REFERENCE_LINES";
/// Per CPU: packets and bytes that [`REFERENCE_XDP`] dropped, then those that it passed.
pub const MAP_REFERENCE_COUNTS: &str = "REFERENCE_COUNTS";
/// Maximum number of lines in the table.
pub const REFERENCE_LINES: usize = 131_072;
/// Maximum number of prefix lengths.
pub const REFERENCE_LENGTHS: usize = 4;
/// Maximum number of lines that one look-up reads.
pub const REFERENCE_PROBES: u32 = 16;

/// Array of headers, [`HEADER`] bytes each.
pub const MAP_HEADERS: &str = "HEADERS";
/// One [`Place`].
pub const MAP_PLACE: &str = "PLACE";
/// Array of one number: the interface that [`FORWARD_XDP`] sends to.
pub const MAP_LINK: &str = "LINK";
/// Array of one program: the XDP program under test.
pub const MAP_TARGET_XDP: &str = "TARGET_XDP";
/// Array of one program: the TC program under test.
pub const MAP_TARGET_TC: &str = "TARGET_TC";

/// The return value of a shuffler that could not do its work; no action of XDP or TC.
pub const FAILED: u32 = 77;

/// The position of the shufflers in the array of headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Place {
    /// The next header.
    pub next: u64,
    /// Number of headers; after the last one the shufflers start again.
    pub count: u64,
}

/// The size of the reference's table, and the prefix lengths of the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Reference {
    /// Number of lines, a power of two, minus one.
    pub mask: u32,
    /// Number of prefix lengths.
    pub count: u32,
    /// The prefix lengths.
    pub lengths: [u32; REFERENCE_LENGTHS],
}

/// Returns the part of a key that is not the address: prefix length, protocol and port. Never 0.
#[must_use]
#[inline(always)]
pub const fn reference_service(length: u32, protocol: u8, port: u16) -> u64 {
    (length as u64) << 24 | (protocol as u64) << 16 | port as u64
}

/// Returns the hash of a key.
#[must_use]
#[inline(always)]
pub const fn reference_hash(high: u64, low: u64, service: u64) -> u64 {
    const A: u64 = 0x9e37_79b9_7f4a_7c15;
    let x = (high ^ service).wrapping_mul(A);
    let x = (x ^ x >> 32 ^ low).wrapping_mul(A);
    x ^ x >> 32
}

#[cfg(feature = "user")]
// SAFETY: two integers without padding.
unsafe impl aya::Pod for Place {}
#[cfg(feature = "user")]
// SAFETY: integers of four bytes.
unsafe impl aya::Pod for Reference {}
