//! The programs: XDP on ingress, TC on egress, two of each.
//!
//! The *fast program* is attached. It counts each packet as seen, and decides a plain one
//! ([`pomguard_common::decide::fast_path`]). For any other packet it jumps to the *general program*
//! ([`pomguard_common::decide::judge`]) with a tail call, which does not come back and leaves the stack of
//! the fast program behind. Both end in `commit`, the only place where a decision is counted, reported and
//! turned into an action.
//!
//! A fast program calls no function of its own: kernels before Linux 5.10, and those of RHEL 8.4, refuse a
//! program that has both such calls and tail calls. `cargo xtask ebpf` checks that.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod account;
mod barrier;
mod clock;
mod drops;
mod maps;
mod packet;
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

/// Let the next program, or the stack, have the packet (TC_ACT_UNSPEC, and TCX_NEXT).
const TC_NEXT: i32 = -1;
/// End the packet here (TC_ACT_SHOT, and TCX_DROP).
const TC_DROP: i32 = 2;

/// Judges what comes in: the fast program, which is attached.
#[xdp]
#[inline(always)]
#[expect(clippy::needless_pass_by_value, reason = "the attribute's wrapper hands the context over by value")]
fn pomguard_xdp(ctx: XdpContext) -> u32 {
    let frame = packet::Frame::new(ctx.ctx);
    let Some(counters) = account::seen(Direction::Inbound, frame.self_test(), frame.length()) else {
        return XDP_DROP;
    };
    account::came_in(frame.interface());
    let decision = tables::fast_path(Direction::Inbound, &frame).unwrap_or_else(|| {
        // SAFETY: the array holds the general program alone; nothing of this one is needed after it.
        unsafe { maps::GENERAL_XDP.tail_call(&ctx, 0) };
        tables::unjudged(Direction::Inbound, &frame)
    });
    let passes = commit::<FAST_XDP, _>(counters, Direction::Inbound, &frame, decision, frame.length());
    if passes { XDP_PASS } else { XDP_DROP }
}

/// Judges what comes in and is out of the ordinary: the general program.
#[xdp]
#[inline(always)]
#[expect(clippy::needless_pass_by_value, reason = "the attribute's wrapper hands the context over by value")]
fn pom_general_xdp(ctx: XdpContext) -> u32 {
    let frame = packet::Frame::new(ctx.ctx);
    let decision = tables::judge(Direction::Inbound, &frame);
    // Looked up only now: what is kept over a call takes stack.
    let Some(counters) = account::counters(frame.self_test()) else { return XDP_DROP };
    let passes = commit::<GENERAL, _>(counters, Direction::Inbound, &frame, decision, frame.length());
    if passes { XDP_PASS } else { XDP_DROP }
}

/// Judges what leaves: the fast program, which is attached.
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

/// Judges what leaves and is out of the ordinary: the general program. The fast one has pulled the headers in.
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

/// Programs, for [`commit`]. A fast one calls no function, so each has a copy of [`log`]: the compiler inlines
/// what only one place calls.
const FAST_XDP: u8 = 0;
const FAST_TC: u8 = 1;
const GENERAL: u8 = 2;

/// The one exit: counts, records and reports a decision. Returns true if the packet goes on.
#[inline(always)]
fn commit<const PROGRAM: u8, C: packet::Context>(
    counters: &mut Counters,
    direction: Direction,
    frame: &packet::Frame<C>,
    decision: Decision,
    bytes: u32,
) -> bool {
    // Walked once, and not once for each reason and each check of the length before.
    let unknown = clock::jiffies();
    let decision =
        Decision::of_word(hide_by(decision.word(), unknown)).unwrap_or(Decision::because(Reason::Internal));
    let bytes = hide_by(bytes.into(), unknown) as u32;
    account::judged(counters, direction, decision, bytes);
    if is_recorded(decision) && frame.self_test() == 0 {
        if PROGRAM == GENERAL {
            drops::any(frame.context(), direction as u32, decision.word(), bytes);
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

/// For developers: off unless the daemon is started with a log level for the programs, and then
/// removed by the verifier as unreachable.
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

/// The same in a function of its own: its stack is free while the rest of a general program runs.
#[inline(never)]
fn log_apart(direction: u32, decision: u64) {
    let direction =
        if direction == Direction::Inbound as u32 { Direction::Inbound } else { Direction::Outbound };
    if let Some(decision) = Decision::of_word(decision) {
        log::<GENERAL>(direction, decision);
    }
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
