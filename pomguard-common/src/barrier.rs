//! The trait by which the decision hides values from the kernel's verifier.

/// Makes the kernel's verifier forget what it knows of a value.
///
/// It knows from which of sixteen places a value came, or that it is one of two constants, and walks
/// everything behind once for each. Where ways join that differ in nothing else, the value goes
/// through memory that the verifier knows nothing about. On the host it is the value.
pub trait Barrier {
    /// The same value.
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
