//! The bench's own programs: shufflers, which change every packet, floors, and a reference.
//!
//! A shuffler writes the next prepared header into the packet and calls the program under test. A floor does
//! nothing: the time of a program under test is measured as the difference to a floor.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod reference;

use core::arch::asm;

use aya_ebpf::{
    bindings::{
        BPF_F_MMAPABLE,
        xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS},
    },
    btf_maps::{Array, ProgramArray},
    helpers::bpf_redirect,
    macros::{btf_map, classifier, xdp},
    programs::{TcContext, XdpContext},
};
use pomguard_common::bench::{self, DENIED, FAILED, HEADER, Place};

/// TC_ACT_OK.
const TC_OK: i32 = 0;
/// Bytes of the Ethernet header, which stays unchanged.
const ETHERNET: usize = 14;
/// Words of eight bytes in a header; the shuffler writes one word at a time.
const WORDS: usize = HEADER / 8;

#[btf_map]
static HEADERS: Array<[u64; WORDS], { bench::HEADERS }, { BPF_F_MMAPABLE as usize }> = Array::new();

#[btf_map]
static PLACE: Array<Place, 1> = Array::new();

#[btf_map]
static LINK: Array<u32, 1> = Array::new();

#[btf_map]
static TARGET_XDP: ProgramArray<1> = ProgramArray::new();

#[btf_map]
static TARGET_TC: ProgramArray<1> = ProgramArray::new();

/// Writes the next header into the packet, and calls the program under test.
#[xdp]
#[expect(clippy::needless_pass_by_value, reason = "the attribute's wrapper hands the context over by value")]
fn shuffle_xdp(ctx: XdpContext) -> u32 {
    if shuffle(ctx.data(), ctx.data_end()).is_some() {
        // SAFETY: the array holds XDP programs; this program uses nothing after the call.
        unsafe { TARGET_XDP.tail_call(&ctx, 0) };
    }
    FAILED
}

/// Writes the next header into the packet, and calls the program under test; the TC version of
/// [`shuffle_xdp`].
#[classifier]
#[expect(clippy::needless_pass_by_value, reason = "the attribute's wrapper hands the context over by value")]
fn shuffle_tc(ctx: TcContext) -> i32 {
    if shuffle(ctx.data(), ctx.data_end()).is_some() {
        // SAFETY: the array holds TC programs; this program uses nothing after the call.
        unsafe { TARGET_TC.tail_call(&ctx, 0) };
    }
    FAILED.cast_signed()
}

/// Sends the packet out of an interface.
#[xdp]
fn forward_xdp(_ctx: XdpContext) -> u32 {
    match LINK.get(0) {
        // SAFETY: a helper that takes two numbers.
        Some(link) => unsafe { bpf_redirect(*link, 0).cast_unsigned() as u32 },
        None => XDP_ABORTED,
    }
}

/// Returns the verdict that the sender wrote into the packet.
#[xdp]
#[expect(clippy::needless_pass_by_value, reason = "the attribute's wrapper hands the context over by value")]
fn oracle_xdp(ctx: XdpContext) -> u32 {
    let end = ctx.data() + ETHERNET + HEADER;
    if end > ctx.data_end() {
        return XDP_PASS;
    }
    // SAFETY: inside the packet, as checked above.
    let mark = unsafe { ((end - size_of::<u32>()) as *const u32).read_unaligned() };
    if mark == DENIED { XDP_DROP } else { XDP_PASS }
}

/// Does nothing.
#[xdp]
fn floor_xdp(_ctx: XdpContext) -> u32 {
    XDP_DROP
}

/// Does nothing.
#[classifier]
fn floor_tc(_ctx: TcContext) -> i32 {
    TC_OK
}

/// Writes the next header into the packet between `data` and `end`.
#[inline(always)]
fn shuffle(data: usize, end: usize) -> Option<()> {
    if data + ETHERNET + HEADER > end {
        return None;
    }
    let place = PLACE.get_ptr_mut(0)?;
    // SAFETY: a valid value of the map; the bench runs on one processor.
    let place = unsafe { &mut *place };
    let header = HEADERS.get(place.next as u32)?;
    place.next += 1;
    if place.next >= place.count {
        place.next = 0;
    }
    write::<0>(data, header);
    write::<1>(data, header);
    write::<2>(data, header);
    write::<3>(data, header);
    write::<4>(data, header);
    write::<5>(data, header);
    write::<6>(data, header);
    write::<7>(data, header);
    Some(())
}

/// Writes one word of the header.
#[inline(always)]
fn write<const WORD: usize>(data: usize, header: &[u64; WORDS]) {
    let word = header[WORD];
    // SAFETY: `shuffle` has checked that the packet is long enough. In assembly, because the compiler would
    // write an unaligned word byte by byte.
    unsafe {
        asm!("*(u64 *)({data} + {at}) = {word}", data = in(reg) data, at = const ETHERNET + 8 * WORD,
            word = in(reg) word, options(nostack));
    }
}

/// Never runs: the verifier refuses an object in which this function is reachable.
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The license string: the programs use helpers for GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
