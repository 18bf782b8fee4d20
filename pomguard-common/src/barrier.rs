//! The trait by which the decision hides values from the kernel's verifier.

/// Hides a value from the kernel's verifier.
///
/// The verifier knows that a value comes from one of sixteen places, or is one of two constants, and explores
/// all code after that once for each. Where paths join that differ in nothing else, the value goes through
/// memory that the verifier knows nothing about. On the host, the value is returned unchanged.
pub trait Barrier {
    /// Returns the same value.
    #[inline(always)]
    fn barrier(&self, value: u64) -> u64 {
        value
    }
}

impl<F: Barrier + ?Sized> Barrier for &F {
    #[inline(always)]
    fn barrier(&self, value: u64) -> u64 {
        (**self).barrier(value)
    }
}
