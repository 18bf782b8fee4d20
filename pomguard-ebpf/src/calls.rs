//! Declarations of the functions of [`crate::once`], for modules that these functions use themselves.

use aya_ebpf::bindings::{__sk_buff, xdp_md};

// SAFETY: `once` defines the functions with these signatures.
unsafe extern "C" {
    /// See [`crate::once::pom_locate_flow`].
    pub(crate) safe fn pom_locate_flow(index: u32) -> u32;
    /// See [`crate::once::pom_locate_fragment`].
    pub(crate) safe fn pom_locate_fragment(index: u32) -> u32;
    /// See [`crate::once::pom_place_flow`].
    pub(crate) safe fn pom_place_flow(index: u32, what: u32, row: u64) -> u32;
    /// See [`crate::once::pom_place_fragment`].
    pub(crate) safe fn pom_place_fragment(index: u32, what: u32, row: u64) -> u32;
    /// See [`crate::once::pom_override`].
    pub(crate) safe fn pom_override(index: u32, query: u64, now: u32) -> u32;
    /// See [`crate::once::pom_class`].
    pub(crate) safe fn pom_class(index: u32, family: u32) -> u32;
    /// See [`crate::once::pom_record_inbound`].
    pub(crate) safe fn pom_record_inbound(context: *mut xdp_md, decision: u64, bytes: u32) -> u32;
    /// See [`crate::once::pom_record_outbound`].
    pub(crate) safe fn pom_record_outbound(context: *mut __sk_buff, decision: u64, bytes: u32) -> u32;
}
