//! Numbers in the maps that several processors read and write whole.

#[cfg(target_arch = "bpf")]
use core::cell::UnsafeCell;
#[cfg(not(target_arch = "bpf"))]
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Defines a number that several processors read and write as a whole, in no particular order.
macro_rules! shared {
    ($(#[$doc:meta])* $name:ident, $atomic:ident, $number:ident) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        #[repr(transparent)]
        pub struct $name(
            #[cfg(not(target_arch = "bpf"))] $atomic,
            #[cfg(target_arch = "bpf")] UnsafeCell<$number>,
        );

        impl $name {
            /// Reads the number.
            #[must_use]
            #[inline(always)]
            pub fn load(&self) -> $number {
                #[cfg(target_arch = "bpf")]
                {
                    // SAFETY: the pointer is that of a live, aligned number. BPF has no relaxed atomic load
                    // below cpu v4, and no atomics of less than 32 bits; an aligned load is one instruction
                    // and whole on every machine.
                    unsafe { self.0.get().read_volatile() }
                }
                #[cfg(not(target_arch = "bpf"))]
                {
                    self.0.load(Relaxed)
                }
            }

            /// Writes the number.
            #[inline(always)]
            pub fn store(&self, value: $number) {
                #[cfg(target_arch = "bpf")]
                {
                    // SAFETY: as for the load; the number is only ever reached through this type.
                    unsafe { self.0.get().write_volatile(value) };
                }
                #[cfg(not(target_arch = "bpf"))]
                {
                    self.0.store(value, Relaxed);
                }
            }
        }
    };
}

shared!(
    /// A 64-bit word.
    Word, AtomicU64, u64
);
shared!(
    /// A 32-bit word.
    Half, AtomicU32, u32
);
shared!(
    /// A 16-bit word.
    Quarter, AtomicU16, u16
);
shared!(
    /// An 8-bit word.
    Byte, AtomicU8, u8
);

#[cfg(not(target_arch = "bpf"))]
impl Byte {
    /// Replaces the byte if it is still `old`. Returns true if it was.
    pub fn replace(&self, old: u8, new: u8) -> bool {
        self.0.compare_exchange(old, new, Relaxed, Relaxed).is_ok()
    }
}

#[cfg(not(target_arch = "bpf"))]
impl Word {
    /// Replaces the word if it is still `old`. Returns true if it was. The programs write unconditionally: a
    /// value that they wrote before the call is kept, and so is a value that they write after it.
    pub fn replace(&self, old: u64, new: u64) -> bool {
        self.0.compare_exchange(old, new, Relaxed, Relaxed).is_ok()
    }
}
