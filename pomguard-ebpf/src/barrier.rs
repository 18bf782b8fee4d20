//! Where compiler and verifier have to be kept from talking past each other.

/// The same value, of which the compiler knows nothing.
///
/// The compiler proves a bound and drops the check, or moves an addition across a comparison; the
/// verifier sees only what is left ("arithmetic on pkt_end prohibited", "max value is outside of
/// the allowed memory range"). What has gone through here is checked where it is written, and what
/// lies behind a pointer that has is read again.
#[inline(always)]
pub(crate) fn hide(mut value: usize) -> usize {
    // SAFETY: one move of the register onto itself (an empty one upsets the kernel's check of the
    // line info: two lines at one instruction).
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) value, options(nostack, preserves_flags)) };
    value
}

/// The same value, of which the verifier knows nothing either: bits that it does not know, all 64, are turned over
/// and turned back. It walks what follows once, and not once for each value.
#[inline(always)]
pub(crate) fn hide_by(value: u64, unknown: u64) -> u64 {
    let unknown = hide(unknown as usize);
    (hide(value as usize ^ unknown) ^ unknown) as u64
}
