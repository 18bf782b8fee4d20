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

#[cfg(feature = "user")]
// SAFETY: two integers without padding.
unsafe impl aya::Pod for Place {}
