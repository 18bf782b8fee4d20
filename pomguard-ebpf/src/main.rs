//! The two programs: packets in, verdicts out.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::{TC_ACT_OK, xdp_action::XDP_PASS},
    btf_maps::PerCpuArray,
    macros::{btf_map, classifier, xdp},
    programs::{TcContext, XdpContext},
};

#[btf_map]
static COUNTERS: PerCpuArray<u64, 2> = PerCpuArray::new();

fn count(slot: u32) {
    if let Some(tally) = COUNTERS.get_ptr_mut(slot) {
        // SAFETY: the slot is this processor's own, and the program is not re-entered on it.
        unsafe { *tally += 1 }
    }
}

/// Ingress.
#[xdp]
fn pomguard_xdp(_ctx: XdpContext) -> u32 {
    count(0);
    XDP_PASS
}

/// Egress.
#[classifier]
fn pomguard_tc(_ctx: TcContext) -> i32 {
    count(1);
    TC_ACT_OK
}

/// The verifier refuses a program that can reach this.
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
