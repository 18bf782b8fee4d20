//! Barriers between the compiler's optimizations and the checks of the verifier.

/// Hides `value` from the compiler.
///
/// The compiler proves a bound and drops the check, or moves an addition across a comparison. The verifier
/// sees only the remaining code ("arithmetic on pkt_end prohibited", "max value is outside of the allowed
/// memory range"). A value that passes through this function is checked where the source checks it. Data
/// behind a pointer that passes through this function is read again.
#[inline(always)]
pub(crate) fn hide(mut value: usize) -> usize {
    // SAFETY: one move of the register onto itself (an empty instruction upsets the kernel's check of the
    // line info: two lines at one instruction).
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) value, options(nostack, preserves_flags)) };
    value
}

/// Hides `value` from the verifier too: flips all bits that are set in `unknown`, and flips them back. All 64
/// bits of `unknown` are unknown to the verifier, so it explores the code after this once, instead of once
/// per value.
#[inline(always)]
pub(crate) fn hide_by(value: u64, unknown: u64) -> u64 {
    let unknown = hide(unknown as usize);
    (hide(value as usize ^ unknown) ^ unknown) as u64
}

/// Marks a place where paths join: a jump to the next instruction. The verifier compares a path with earlier
/// ones only at jumps, and explores the code between a barrier and the next jump once for each path.
#[inline(always)]
pub(crate) fn join(unknown: u64) {
    // SAFETY: the jump has no effect.
    unsafe { core::arch::asm!("if {0} == 0 goto +0", in(reg) unknown, options(nostack, preserves_flags)) };
}
