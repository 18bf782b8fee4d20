//! The clock of the programs.

use aya_ebpf::{Global, helpers::generated::bpf_jiffies64};

/// Number of bits to drop from the kernel's tick counter, so that a second has about four ticks. Set at load
/// time from the kernel's tick rate.
#[unsafe(no_mangle)]
pub(crate) static TICK_SHIFT: Global<u8> = Global::new(6);

/// Returns the time in ticks of about a quarter of a second. The time wraps; differences are taken modulo
/// 2^32.
///
/// The clock counts jiffies instead of nanoseconds: the verifier replaces the helper by one load (kernel
/// commit 5576b991e9c1, Linux 5.6), while `bpf_ktime_get_ns` reads the clock hardware.
#[inline(always)]
pub(crate) fn now() -> u32 {
    (jiffies() >> (TICK_SHIFT.load() & 31)) as u32
}

/// Returns the kernel's tick counter. The verifier knows no bit of the value.
#[inline(always)]
pub(crate) fn jiffies() -> u64 {
    // SAFETY: the helper takes no arguments and only returns a number.
    unsafe { bpf_jiffies64() }
}
