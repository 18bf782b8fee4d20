//! Errors of the compiler: the reasons why a policy does not become an image.

use pomguard_common::{Direction, limits};

use super::prefix::Family;

/// A limit that the policy exceeds, with the numbers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Too many tuples: prefixes times port ranges, over all rows.
    #[error(
        "the policy has {found} tuples (peer prefixes times port ranges); the limit is {}",
        limits::TUPLES
    )]
    Tuples {
        /// Number of tuples.
        found: usize,
    },
    /// Too many rows in one direction.
    #[error("the policy has {found} {} rows; the limit is {}", direction.name(), limits::ROWS)]
    Rows {
        /// The direction.
        direction: Direction,
        /// Number of rows.
        found: usize,
    },
    /// Too many addresses of this host.
    #[error(
        "this host has {found} {family} addresses and prefixes of its own; the limit is {}",
        limits::OWN_ADDRESSES
    )]
    LocalAddresses {
        /// The address family.
        family: Family,
        /// Number of addresses and prefixes.
        found: usize,
    },
    /// This host has no address, so no inbound packet could be allowed.
    #[error("the site file gives this host no address: every packet to it would be dropped")]
    NoLocalAddress,
    /// Too many VLAN ids.
    #[error("{found} VLAN ids are to be served; the limit is {}", pomguard_common::image::VLAN_IDS)]
    Vlans {
        /// Number of ids.
        found: usize,
    },
    /// Too many client-port ranges of one peer at one port.
    #[error(
        "{found} rows allow one peer the same port from different client ports; the limit is {}: {rows}",
        limits::CELL_CHAIN
    )]
    ClientRanges {
        /// Number of ranges.
        found: usize,
        /// Ids of the rows.
        rows: String,
    },
    /// Too many prefix lengths to be folded in reasonable space.
    #[error(
        "the site has {lengths} different {family} prefix lengths; bringing them down to {} would take \
         {entries} entries, and the limit is {limit}",
        limits::PREFIX_LEVELS
    )]
    PrefixLengths {
        /// The address family.
        family: Family,
        /// Number of different lengths.
        lengths: usize,
        /// Entries after folding.
        entries: u128,
        /// The most entries that are tried.
        limit: usize,
    },
    /// Rows overlap in so many places that separating them would take too long.
    #[error("rows overlap in more than {limit} places ({what}): give them fewer prefixes or ports in common")]
    Overlap {
        /// The overlapping items.
        what: &'static str,
        /// The most overlaps that are tried.
        limit: usize,
    },
    /// Too many ports of different meaning.
    #[error("the rows cut the ports into {found} parts of different meaning; the limit is {limit}")]
    Services {
        /// Number of parts.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// Too many (class, service) pairs, in any order.
    #[error("at least {found} pairs of peers and ports are allowed; the image has room for {limit}")]
    Cells {
        /// Lower bound of the number of pairs.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// Too many failsafe tuples.
    #[error(
        "the failsafe rows have {found} tuples (peer prefixes times port ranges), and every would-be drop may look \
         at each; the limit is {}: name fewer, wider prefixes",
        limits::OVERRIDES
    )]
    Overrides {
        /// Number of failsafe tuples.
        found: usize,
    },
    /// The whole image is too large.
    #[error("the compiled policy needs {needed} lines of 64 bytes; the limit is {}", limits::IMAGE_LINES)]
    Lines {
        /// Number of lines that the image needs.
        needed: usize,
    },
    /// Generation 0 is reserved: it marks flows that are never judged again.
    #[error("generations are counted from 1")]
    Generation,
    /// The slots were assigned for another policy.
    #[error("row {row} has no counter slot")]
    Slot {
        /// Id of the row.
        row: String,
    },
}
