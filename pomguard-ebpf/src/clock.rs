//! The time, cheaply.

use aya_ebpf::{Global, helpers::generated::bpf_jiffies64};

/// How many bits to drop from the kernel's tick counter, so that about four ticks make a second.
/// Set at load time from the kernel's tick rate.
#[unsafe(no_mangle)]
pub(crate) static TICK_SHIFT: Global<u8> = Global::new(6);

/// The time in ticks of about a quarter of a second. It wraps; differences are taken modulo 2^32.
///
/// Jiffies rather than nanoseconds: the verifier inlines the helper to one load (kernel commit
/// 5576b991e9c1, Linux 5.6), where `bpf_ktime_get_ns` reads the clock hardware.
#[inline(always)]
pub(crate) fn now() -> u32 {
    (jiffies() >> (TICK_SHIFT.load() & 31)) as u32
}

/// The kernel's tick counter, of which the verifier knows no bit.
#[inline(always)]
pub(crate) fn jiffies() -> u64 {
    // SAFETY: the helper takes no arguments and only returns a number.
    unsafe { bpf_jiffies64() }
}
