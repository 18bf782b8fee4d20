//! Safe access to the bytes of a frame: in the kernel directly in the packet, on the host in a slice.

use crate::{datagram::Datagram, limits};

/// A frame, from its Ethernet header on.
pub trait Packet {
    /// Returns the number of bytes of the frame that the hook can see or pull in.
    fn length(&self) -> u32;

    /// Returns `N` bytes from `offset` on, or `None` if the frame ends before that.
    ///
    /// This is the only access to the bytes: one bounds check, then reads that cannot fail.
    fn window<const N: usize>(&self, offset: u32) -> Option<&[u8; N]>;

    /// Returns the index of the interface by which the frame comes in or leaves. On the host, the interface
    /// of the kernel's test runs.
    #[inline(always)]
    fn interface(&self) -> u32 {
        limits::LOOPBACK
    }

    /// Returns true if the frame may hold many TCP segments that the kernel has merged. At TC, the kernel
    /// says so. In XDP, only the length of the frame is an indication.
    #[inline(always)]
    fn may_hold_segments(&self) -> bool {
        true
    }

    /// Returns true if a socket of this host with exactly these ends sends the frame. Returns false for a
    /// frame that is forwarded, translated or hand-crafted, and for every inbound frame.
    #[inline(always)]
    fn is_from_socket(&self, _ends: &Datagram) -> bool {
        false
    }

    /// The type of a fresh view of the same frame.
    type Again<'a>: Packet
    where
        Self: 'a;

    /// Returns a fresh view of the same frame. The verifier remembers how far a packet pointer was checked,
    /// and treats two pointers that differ in this as two cases.
    fn again(&self) -> Self::Again<'_>;
}

impl Packet for [u8] {
    fn length(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }

    fn window<const N: usize>(&self, offset: u32) -> Option<&[u8; N]> {
        self.get(offset as usize..)?.first_chunk()
    }

    type Again<'a> = &'a Self;

    fn again(&self) -> &Self {
        self
    }
}

impl<P: Packet + ?Sized> Packet for &P {
    #[inline(always)]
    fn length(&self) -> u32 {
        (**self).length()
    }

    #[inline(always)]
    fn window<const N: usize>(&self, offset: u32) -> Option<&[u8; N]> {
        (**self).window(offset)
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        (**self).interface()
    }

    #[inline(always)]
    fn may_hold_segments(&self) -> bool {
        (**self).may_hold_segments()
    }

    #[inline(always)]
    fn is_from_socket(&self, ends: &Datagram) -> bool {
        (**self).is_from_socket(ends)
    }

    type Again<'a>
        = P::Again<'a>
    where
        Self: 'a;

    #[inline(always)]
    fn again(&self) -> Self::Again<'_> {
        (**self).again()
    }
}

/// Returns the big-endian 16-bit field at `AT`. A field outside the window does not compile.
#[must_use]
#[inline(always)]
pub fn be16<const AT: usize, const N: usize>(window: &[u8; N]) -> u16 {
    const { assert!(AT + 2 <= N, "the field lies inside the window") };
    #[cfg(target_arch = "bpf")]
    {
        let value: u64;
        // SAFETY: the two bytes lie inside the window (asserted above). Packet fields are not aligned. The
        // machine allows this, but the compiler would read byte by byte.
        unsafe {
            core::arch::asm!("{value} = *(u16 *)({at} + {offset})", value = out(reg) value,
                at = in(reg) window.as_ptr(), offset = const AT, options(pure, readonly, nostack));
        }
        u16::from_be(value as u16)
    }
    #[cfg(not(target_arch = "bpf"))]
    u16::from_be_bytes([window[AT], window[AT + 1]])
}

/// Returns the big-endian 32-bit field at `AT`. A field outside the window does not compile.
#[must_use]
#[inline(always)]
pub fn be32<const AT: usize, const N: usize>(window: &[u8; N]) -> u32 {
    const { assert!(AT + 4 <= N, "the field lies inside the window") };
    #[cfg(target_arch = "bpf")]
    {
        let value: u64;
        // SAFETY: the four bytes lie inside the window (asserted above); see `be16`.
        unsafe {
            core::arch::asm!("{value} = *(u32 *)({at} + {offset})", value = out(reg) value,
                at = in(reg) window.as_ptr(), offset = const AT, options(pure, readonly, nostack));
        }
        u32::from_be(value as u32)
    }
    #[cfg(not(target_arch = "bpf"))]
    u32::from_be_bytes([window[AT], window[AT + 1], window[AT + 2], window[AT + 3]])
}

/// Returns the big-endian 64-bit field at `AT`. A field outside the window does not compile.
#[must_use]
#[inline(always)]
pub fn be64<const AT: usize, const N: usize>(window: &[u8; N]) -> u64 {
    const { assert!(AT + 8 <= N, "the field lies inside the window") };
    #[cfg(target_arch = "bpf")]
    {
        let value: u64;
        // SAFETY: the eight bytes lie inside the window (asserted above); see `be16`.
        unsafe {
            core::arch::asm!("{value} = *(u64 *)({at} + {offset})", value = out(reg) value,
                at = in(reg) window.as_ptr(), offset = const AT, options(pure, readonly, nostack));
        }
        u64::from_be(value)
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        let low = [window[AT + 4], window[AT + 5], window[AT + 6], window[AT + 7]];
        u64::from(be32::<AT, N>(window)) << 32 | u64::from(u32::from_be_bytes(low))
    }
}

/// Returns the four big-endian words at the given offsets: an IPv6 address.
#[must_use]
#[inline(always)]
pub fn words<const A: usize, const B: usize, const C: usize, const D: usize, const N: usize>(
    window: &[u8; N],
) -> crate::net::Address {
    [be32::<A, N>(window), be32::<B, N>(window), be32::<C, N>(window), be32::<D, N>(window)]
}
