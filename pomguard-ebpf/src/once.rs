//! Functions that the verifier checks once, with arguments of which it knows nothing, instead of once for each
//! state in which a caller may be.
//!
//! The linkage makes the difference: a function with an external symbol is *global* in the object's type
//! information. Arguments and results are numbers, because Linux 5.10 accepts no pointers there. So a caller
//! leaves everything else in the scratch map. The loader makes the functions static for a kernel that has no
//! global functions.

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use pomguard_common::{
    Direction, control,
    flow::{self, NOWHERE},
    image::Class,
};

use crate::{
    drops,
    flows::{Flows, Fragments, Table},
    maps,
    scratch::{Memory, View},
    tables,
};

/// Looks up the flow with the key that is kept in the scratch value `index`. See [`flow::locate`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn pom_locate_flow(index: u32) -> u32 {
    let Some(memory) = Memory::with_index(index) else { return NOWHERE };
    flow::locate(&Table::<Flows>::new(memory), memory.key())
}

/// Looks up the fragmented datagram with the key that is kept in the scratch value `index`. See
/// [`flow::locate`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn pom_locate_fragment(index: u32) -> u32 {
    let Some(memory) = Memory::with_index(index) else { return NOWHERE };
    flow::locate(&Table::<Fragments>::new(memory), memory.key())
}

/// Enters the flow with the key that is kept in the scratch value `index`. See [`flow::place`]. Returns the
/// number of a [`flow::Entered`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn pom_place_flow(index: u32, what: u32, row: u64) -> u32 {
    let Some(memory) = Memory::with_index(index) else { return flow::Entered::Full as u32 };
    flow::place(&Table::<Flows>::new(memory), memory.key(), what, row) as u32
}

/// Enters the fragmented datagram with the key that is kept in the scratch value `index`. See
/// [`flow::place`]. Returns the number of a [`flow::Entered`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn pom_place_fragment(index: u32, what: u32, row: u64) -> u32 {
    let Some(memory) = Memory::with_index(index) else { return flow::Entered::Full as u32 };
    flow::place(&Table::<Fragments>::new(memory), memory.key(), what, row) as u32
}

/// Looks up the override that matches a query about the address that is kept in the scratch value `index`.
/// See [`control::search_lines`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn pom_override(index: u32, query: u64, now: u32) -> u32 {
    let Some(memory) = Memory::with_index(index) else { return 0 };
    let Some(control) = maps::CONTROL.get(0) else { return 0 };
    control::search_lines(&View { control, memory }, memory.address(), query, now)
}

/// Returns the class of the address that is kept in the scratch value `index`. `family` is 4 or 6.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn pom_class(index: u32, family: u32) -> u32 {
    match Memory::with_index(index) {
        Some(memory) => tables::class(memory, family).0,
        None => Class::NONE.0,
    }
}

/// Records an inbound packet that the general program denies.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn pom_record_inbound(context: *mut xdp_md, decision: u64, bytes: u32) -> u32 {
    drops::any(context, Direction::Inbound, decision, bytes)
}

/// Records an outbound packet that the general program denies.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn pom_record_outbound(context: *mut __sk_buff, decision: u64, bytes: u32) -> u32 {
    drops::any(context, Direction::Outbound, decision, bytes)
}
