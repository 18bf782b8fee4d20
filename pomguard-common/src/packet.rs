//! Bytes of a frame, read safely: in the kernel straight from the packet, on the host from a slice.

use crate::{datagram::Datagram, limits};

/// A frame, from its Ethernet header on.
pub trait Packet {
    /// Bytes of the frame that the hook can see or pull in.
    fn length(&self) -> u32;

    /// `N` bytes from `offset` on; none when the frame ends before.
    ///
    /// The only way to the bytes: one bounds check, then reads that cannot miss.
    fn window<const N: usize>(&self, offset: u32) -> Option<&[u8; N]>;

    /// Index of the interface that the frame came in by, or leaves by. On the host that of the kernel's test runs.
    #[inline(always)]
    fn interface(&self) -> u32 {
        limits::LOOPBACK
    }

    /// True if the frame may be many TCP segments that the kernel holds in one. At TC the kernel says so. XDP is
    /// not told: there only the length of the frame tells.
    #[inline(always)]
    fn may_hold_segments(&self) -> bool {
        true
    }

    /// True if a socket of this host with just these ends sends the frame. False for what is forwarded,
    /// translated or written by hand, and for all that comes in.
    #[inline(always)]
    fn is_from_socket(&self, _ends: &Datagram) -> bool {
        false
    }

    /// A look at the same frame that starts over.
    type Again<'a>: Packet
    where
        Self: 'a;

    /// The same frame, looked at anew: the verifier remembers how far a packet pointer was checked,
    /// and takes two that differ in that for two cases.
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

/// A big-endian 16-bit field at `AT`; a field outside the window does not compile.
#[must_use]
#[inline(always)]
pub fn be16<const AT: usize, const N: usize>(window: &[u8; N]) -> u16 {
    const { assert!(AT + 2 <= N, "the field lies inside the window") };
    #[cfg(target_arch = "bpf")]
    {
        let value: u64;
        // SAFETY: the two bytes lie inside the window (asserted above). Fields of a packet are not
        // aligned; the machine does not mind, but the compiler, left to itself, reads byte by byte.
        unsafe {
            core::arch::asm!("{value} = *(u16 *)({at} + {offset})", value = out(reg) value,
                at = in(reg) window.as_ptr(), offset = const AT, options(pure, readonly, nostack));
        }
        u16::from_be(value as u16)
    }
    #[cfg(not(target_arch = "bpf"))]
    u16::from_be_bytes([window[AT], window[AT + 1]])
}

/// A big-endian 32-bit field at `AT`; a field outside the window does not compile.
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

/// A big-endian 64-bit field at `AT`; a field outside the window does not compile.
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

/// Four big-endian words, at the offsets given: an IPv6 address.
#[must_use]
#[inline(always)]
pub fn words<const A: usize, const B: usize, const C: usize, const D: usize, const N: usize>(
    window: &[u8; N],
) -> crate::net::Address {
    [be32::<A, N>(window), be32::<B, N>(window), be32::<C, N>(window), be32::<D, N>(window)]
}
