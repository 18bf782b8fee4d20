//! What the bench's own programs and the bench share (`cargo xtask bench`).

/// Bytes of a prepared header: what follows the Ethernet header of a packet under test, to its end.
pub const HEADER: usize = 64;
/// Prepared headers at most.
pub const HEADERS: usize = 131_072;

/// The XDP program that writes the next header into the packet and calls the program under test.
pub const SHUFFLE_XDP: &str = "shuffle_xdp";
/// An XDP program that does nothing.
pub const FLOOR_XDP: &str = "floor_xdp";
/// The TC program that writes the next header into the packet and calls the program under test.
pub const SHUFFLE_TC: &str = "shuffle_tc";
/// A TC program that does nothing.
pub const FLOOR_TC: &str = "floor_tc";

/// An XDP program for the shuffler to call: it sends the packet out of the interface in [`MAP_LINK`].
pub const FORWARD_XDP: &str = "forward_xdp";
/// An XDP program that knows the right answer beforehand: it drops what ends in [`DENIED`], and passes the
/// rest.
pub const ORACLE_XDP: &str = "oracle_xdp";
/// What the sender writes at the end of a header that is to be dropped: behind the end of the datagram.
pub const DENIED: u32 = 0x6465_6e79;

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

/// What a shuffler returns when it could not do its work; no action of XDP or TC.
pub const FAILED: u32 = 77;

/// Where the shufflers are in the array of headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Place {
    /// The next header.
    pub next: u64,
    /// How many there are; then it begins again.
    pub count: u64,
}

#[cfg(feature = "user")]
// SAFETY: two integers without padding.
unsafe impl aya::Pod for Place {}
