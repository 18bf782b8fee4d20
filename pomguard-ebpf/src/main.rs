//! The two programs: XDP on ingress, TC on egress.
//!
//! Context in, action out. Each takes the packet through the same four steps: count it as seen,
//! judge it ([`pomguard_common::decide`]), account for the decision, return the action.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod account;
mod clock;
mod maps;
mod opaque;
mod packet;
mod tables;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        __sk_buff,
        xdp_action::{XDP_DROP, XDP_PASS},
    },
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use pomguard_common::{Direction, decide::Decision, packet::Packet as _};

/// Let the next program, or the stack, have the packet (TC_ACT_UNSPEC, and TCX_NEXT).
const TC_NEXT: i32 = -1;
/// End the packet here (TC_ACT_SHOT, and TCX_DROP).
const TC_DROP: i32 = 2;

/// Judges what comes in.
#[xdp]
#[inline(always)]
#[expect(clippy::needless_pass_by_value, reason = "the attribute's wrapper hands the context over by value")]
fn pomguard_xdp(ctx: XdpContext) -> u32 {
    let frame = packet::Frame::of(ctx.ctx);
    let Some(counters) = account::seen(Direction::Inbound, frame.self_test(), frame.length()) else {
        return XDP_DROP;
    };
    let decision = tables::judge(Direction::Inbound, &frame);
    account::judged(counters, Direction::Inbound, decision, frame.length());
    log(&ctx, Direction::Inbound, decision);
    if decision.passes() { XDP_PASS } else { XDP_DROP }
}

/// Judges what leaves.
#[classifier]
#[inline(always)]
#[expect(clippy::needless_pass_by_value, reason = "the attribute's wrapper hands the context over by value")]
fn pomguard_tc(ctx: TcContext) -> i32 {
    let bytes = ctx.len();
    let self_test = packet::Frame::<__sk_buff>::of(ctx.as_ptr().cast()).self_test();
    let Some(counters) = account::seen(Direction::Outbound, self_test, bytes) else { return TC_DROP };
    packet::pull_headers(&ctx);
    let decision = tables::judge(Direction::Outbound, &packet::Frame::<__sk_buff>::of(ctx.as_ptr().cast()));
    account::judged(counters, Direction::Outbound, decision, bytes);
    log(&ctx, Direction::Outbound, decision);
    if decision.passes() { TC_NEXT } else { TC_DROP }
}

/// For developers: off unless the daemon is started with a log level for the programs, and then
/// removed by the verifier as unreachable.
#[inline(always)]
fn log<C: aya_ebpf::EbpfContext>(ctx: &C, direction: Direction, decision: Decision) {
    aya_log_ebpf::debug!(
        ctx,
        "{} reason {} row {}",
        direction.name(),
        decision.reason_number(),
        decision.row()
    );
}

/// The verifier refuses an object in which this can be reached.
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Helpers for GPL-compatible programs are used.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
