//! The programs: XDP on ingress, TC on egress, two of each.
//!
//! The *fast program* is attached. It counts each packet as seen, and decides a plain packet
//! ([`pomguard_common::decide::fast_path`]). For any other packet it makes a tail call to the *general
//! program* ([`pomguard_common::decide::judge`]). A tail call does not return, and frees the stack of the
//! fast program. Both programs end in `commit`, the only place where a decision is counted, reported and
//! turned into an action.
//!
//! A fast program makes no bpf-to-bpf call: kernels before Linux 5.10, and those of RHEL 8.4, refuse a
//! program that has both such calls and tail calls. `cargo xtask ebpf` checks this.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod account;
mod barrier;
mod calls;
mod clock;
mod drops;
mod flows;
mod layout;
mod maps;
mod once;
mod packet;
mod scratch;
mod tables;

use crate::barrier::hide_by;
use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        __sk_buff,
        xdp_action::{XDP_DROP, XDP_PASS},
    },
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use pomguard_common::{
    Direction, counter::Counters, decide::Decision, drops::is_recorded, packet::Packet as _, reason::Reason,
};

/// Gives the packet to the next program, or to the stack (TC_ACT_UNSPEC, and TCX_NEXT).
const TC_NEXT: i32 = -1;
/// Drops the packet (TC_ACT_SHOT, and TCX_DROP).
const TC_DROP: i32 = 2;

/// Judges inbound packets: the fast program, which is attached.
#[xdp]
#[inline(always)]
#[expect(clippy::needless_pass_by_value, reason = "the attribute's wrapper hands the context over by value")]
fn pomguard_xdp(ctx: XdpContext) -> u32 {
    let frame = packet::Frame::new(ctx.ctx);
    let Some(counters) = account::seen(Direction::Inbound, frame.self_test(), frame.length()) else {
        return XDP_DROP;
    };
    account::came_in(frame.interface(), frame.self_test());
    let decision = tables::fast_path(Direction::Inbound, &frame).unwrap_or_else(|| {
        // SAFETY: the array holds only the general program; this program uses nothing after the call.
        unsafe { maps::GENERAL_XDP.tail_call(&ctx, 0) };
        tables::unjudged(Direction::Inbound, &frame)
    });
    let passes = commit::<FAST_XDP, _>(counters, Direction::Inbound, &frame, decision, frame.length());
    if passes { XDP_PASS } else { XDP_DROP }
}

/// Judges inbound packets that are not plain: the general program.
#[xdp]
#[inline(always)]
#[expect(clippy::needless_pass_by_value, reason = "the attribute's wrapper hands the context over by value")]
fn pom_general_xdp(ctx: XdpContext) -> u32 {
    let frame = packet::Frame::new(ctx.ctx);
    let decision = tables::judge(Direction::Inbound, &frame);
    // Looked up only here: a value that is kept across a call takes stack space.
    let Some(counters) = account::counters(frame.self_test()) else { return XDP_DROP };
    let passes = commit::<GENERAL, _>(counters, Direction::Inbound, &frame, decision, frame.length());
    if passes { XDP_PASS } else { XDP_DROP }
}

/// Judges outbound packets: the fast program, which is attached.
#[classifier]
#[inline(always)]
#[expect(clippy::needless_pass_by_value, reason = "the attribute's wrapper hands the context over by value")]
fn pomguard_tc(ctx: TcContext) -> i32 {
    let self_test = packet::Frame::<__sk_buff>::new(ctx.as_ptr().cast()).self_test();
    let Some(counters) = account::seen(Direction::Outbound, self_test, ctx.len()) else { return TC_DROP };
    packet::pull_headers(&ctx);
    let frame = packet::Frame::<__sk_buff>::new(ctx.as_ptr().cast());
    let decision = tables::fast_path(Direction::Outbound, &frame).unwrap_or_else(|| {
        // SAFETY: as in `pomguard_xdp`.
        unsafe { maps::GENERAL_TC.tail_call(&ctx, 0) };
        tables::unjudged(Direction::Outbound, &frame)
    });
    let passes = commit::<FAST_TC, _>(counters, Direction::Outbound, &frame, decision, ctx.len());
    if passes { TC_NEXT } else { TC_DROP }
}

/// Judges outbound packets that are not plain: the general program. The fast program has already pulled the
/// headers.
#[classifier]
#[inline(always)]
#[expect(clippy::needless_pass_by_value, reason = "the attribute's wrapper hands the context over by value")]
fn pom_general_tc(ctx: TcContext) -> i32 {
    let frame = packet::Frame::<__sk_buff>::new(ctx.as_ptr().cast());
    let decision = tables::judge(Direction::Outbound, &frame);
    let Some(counters) = account::counters(frame.self_test()) else { return TC_DROP };
    let passes = commit::<GENERAL, _>(counters, Direction::Outbound, &frame, decision, ctx.len());
    if passes { TC_NEXT } else { TC_DROP }
}

/// Programs, as the parameter of [`commit`]. Each fast program must have a separate copy of [`log`], because
/// the compiler inlines a function with a single caller, and a fast program makes no bpf-to-bpf call.
const FAST_XDP: u8 = 0;
const FAST_TC: u8 = 1;
const GENERAL: u8 = 2;

/// Counts, records and reports a decision: the single exit. Returns true if the packet passes.
#[inline(always)]
fn commit<const PROGRAM: u8, C: packet::Context>(
    counters: &mut Counters,
    direction: Direction,
    frame: &packet::Frame<C>,
    decision: Decision,
    bytes: u32,
) -> bool {
    // Hidden, so that the verifier explores this once, instead of once per reason and per check of the length
    // before.
    let unknown = clock::jiffies();
    let decision =
        Decision::of_word(hide_by(decision.word(), unknown)).unwrap_or(Decision::because(Reason::Internal));
    let bytes = hide_by(bytes.into(), unknown) as u32;
    account::judged(counters, direction, decision, bytes);
    if is_recorded(decision) && frame.self_test() == 0 {
        if PROGRAM == GENERAL {
            C::record(frame.context(), decision.word(), bytes);
        } else {
            drops::plain(direction, frame, decision, bytes);
        }
    }
    if PROGRAM == GENERAL {
        log_apart(direction as u32, decision.word());
    } else {
        log::<PROGRAM>(direction, decision);
    }
    decision.passes()
}

/// Logs a decision for developers. Off unless the daemon is started with a log level for the programs; then
/// the verifier removes the code as unreachable.
#[inline(always)]
fn log<const PROGRAM: u8>(direction: Direction, decision: Decision) {
    aya_log_ebpf::debug!(
        &(),
        "{} reason {} row {}",
        direction.name(),
        decision.reason_number(),
        decision.row()
    );
}

/// Calls [`log`] in a separate function: its stack space is free while the rest of a general program runs.
#[inline(never)]
fn log_apart(direction: u32, decision: u64) {
    let direction =
        if direction == Direction::Inbound as u32 { Direction::Inbound } else { Direction::Outbound };
    if let Some(decision) = Decision::of_word(decision) {
        log::<GENERAL>(direction, decision);
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
