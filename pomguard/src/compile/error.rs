//! Why a policy does not become an image.

use pomguard_common::{Direction, limits};

use super::prefix::Family;

/// A limit that the policy exceeds, with the numbers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Prefixes times port ranges, over all rows.
    #[error(
        "the policy has {found} tuples (peer prefixes times port ranges); the limit is {}",
        limits::TUPLES
    )]
    Tuples {
        /// How many there are.
        found: usize,
    },
    /// Rows of one direction.
    #[error("the policy has {found} {} rows; the limit is {}", direction.name(), limits::ROWS)]
    Rows {
        /// Which one.
        direction: Direction,
        /// How many there are.
        found: usize,
    },
    /// Addresses of this host.
    #[error(
        "this host has {found} {family} addresses and prefixes of its own; the limit is {}",
        limits::OWN_ADDRESSES
    )]
    LocalAddresses {
        /// Which sort.
        family: Family,
        /// How many there are.
        found: usize,
    },
    /// Nothing would be addressed to this host, so nothing could be let in.
    #[error("the site file gives this host no address: every packet to it would be dropped")]
    NoLocalAddress,
    /// VLAN ids.
    #[error("{found} VLAN ids are to be served; the limit is {}", pomguard_common::image::VLAN_IDS)]
    Vlans {
        /// How many there are.
        found: usize,
    },
    /// Client-port ranges of one peer at one port.
    #[error(
        "{found} rows allow one peer the same port from different client ports; the limit is {}: {rows}",
        limits::CELL_CHAIN
    )]
    ClientRanges {
        /// How many there are.
        found: usize,
        /// Their ids.
        rows: String,
    },
    /// Prefix lengths that cannot be folded in reasonable space.
    #[error(
        "the site has {lengths} different {family} prefix lengths; bringing them down to {} would take \
         {entries} entries, and the limit is {limit}",
        limits::PREFIX_LEVELS
    )]
    PrefixLengths {
        /// Which sort.
        family: Family,
        /// How many lengths there are.
        lengths: usize,
        /// Entries after folding.
        entries: u128,
        /// The most that are tried.
        limit: usize,
    },
    /// Rows overlap so much that the work to cut them apart is out of hand.
    #[error("rows overlap in more than {limit} places ({what}): give them fewer prefixes or ports in common")]
    Overlap {
        /// What overlaps.
        what: &'static str,
        /// The most that are tried.
        limit: usize,
    },
    /// Ports of different meaning.
    #[error("the rows cut the ports into {found} parts of different meaning; the limit is {limit}")]
    Services {
        /// How many there are.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// (class, service) pairs that do not fit, whatever their order.
    #[error("at least {found} pairs of peers and ports are allowed; the image has room for {limit}")]
    Cells {
        /// How many there are at least.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// Failsafe tuples.
    #[error(
        "the failsafe rows have {found} tuples (peer prefixes times port ranges), and every would-be drop may look \
         at each; the limit is {}: name fewer, wider prefixes",
        limits::OVERRIDES
    )]
    Overrides {
        /// How many there are.
        found: usize,
    },
    /// The whole image.
    #[error("the compiled policy needs {needed} lines of 64 bytes; the limit is {}", limits::IMAGE_LINES)]
    Lines {
        /// How many it needs.
        needed: usize,
    },
    /// Generation 0 marks flows that are never judged again.
    #[error("generations are counted from 1")]
    Generation,
    /// The slots were assigned for another policy.
    #[error("row {row} has no counter slot")]
    Slot {
        /// Its id.
        row: String,
    },
}
