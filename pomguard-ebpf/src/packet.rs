//! The only place that touches packet memory.

use aya_ebpf::{
    EbpfContext as _, Global,
    bindings::{__sk_buff, xdp_md},
    programs::TcContext,
};
use pomguard_common::{image::Family, limits, packet::Packet, parse::Datagram};

use crate::barrier::hide;

/// Index of the interface whose packets are self-tests: that of the loopback, where nothing is guarded. An object
/// that judges no traffic may set it to 0, which no interface has: then test packets count like those of
/// the network.
#[unsafe(no_mangle)]
pub(crate) static SELF_TEST_INTERFACE: Global<u32> = Global::new(limits::LOOPBACK);

/// A frame: in XDP wholly in one buffer, since the program does not ask for more; in TC the linear
/// part can be read, and the rest counts towards its length.
#[derive(Clone, Copy)]
pub(crate) struct Frame<C: Context> {
    context: *mut C,
    data: usize,
    end: usize,
    length: C::Length,
}

/// A context that knows where its packet lies.
pub(crate) trait Context: Sized {
    /// First byte, and one past the last.
    fn bounds(context: *mut Self) -> (usize, usize);
    /// What has to be kept to know the length of the packet.
    type Length: Copy;
    /// Measures the packet that lies between `data` and `end`, or begins there.
    fn measure(data: usize, end: usize) -> Self::Length;
    /// Length of the packet.
    fn length(context: *mut Self, measured: Self::Length) -> u32;
    /// True if the packet may be many TCP segments in one.
    fn may_hold_segments(context: *mut Self) -> bool;
    /// Index of the interface that the packet came in by, or leaves by.
    fn interface(context: *mut Self) -> u32;
    /// True if a socket with just these ends sends the packet.
    fn is_from_socket(context: *mut Self, ends: &Datagram) -> bool;
}

impl Context for xdp_md {
    #[inline(always)]
    fn bounds(context: *mut Self) -> (usize, usize) {
        // SAFETY: the kernel hands the program a valid context. Volatile, so that each look at the
        // packet starts with pointers of its own.
        let data = unsafe { (&raw const (*context).data).read_volatile() };
        // SAFETY: as above.
        let end = unsafe { (&raw const (*context).data_end).read_volatile() };
        (data as usize, end as usize)
    }

    // Kept: measured anew for each use, it doubles the verifier's walk.
    type Length = u32;

    #[inline(always)]
    fn measure(data: usize, end: usize) -> u32 {
        (end - data) as u32
    }

    #[inline(always)]
    fn length(_context: *mut Self, measured: u32) -> u32 {
        measured
    }

    #[inline(always)]
    fn may_hold_segments(_context: *mut Self) -> bool {
        true
    }

    #[inline(always)]
    fn interface(context: *mut Self) -> u32 {
        // SAFETY: as above.
        unsafe { (*context).ingress_ifindex }
    }

    #[inline(always)]
    fn is_from_socket(_context: *mut Self, _ends: &Datagram) -> bool {
        false
    }
}

impl Context for __sk_buff {
    #[inline(always)]
    fn bounds(context: *mut Self) -> (usize, usize) {
        // SAFETY: as for `xdp_md`.
        let data = unsafe { (&raw const (*context).data).read_volatile() };
        // SAFETY: as above.
        let end = unsafe { (&raw const (*context).data_end).read_volatile() };
        (data as usize, end as usize)
    }

    // Nothing: the context has it, and the stack is short.
    type Length = ();

    #[inline(always)]
    fn measure(_data: usize, _end: usize) {}

    #[inline(always)]
    fn length(context: *mut Self, (): ()) -> u32 {
        // SAFETY: as for `xdp_md`.
        unsafe { (*context).len }
    }

    #[inline(always)]
    fn may_hold_segments(context: *mut Self) -> bool {
        // SAFETY: as for `xdp_md`.
        unsafe { (*context).gso_size != 0 }
    }

    #[inline(always)]
    fn interface(context: *mut Self) -> u32 {
        // SAFETY: as for `xdp_md`.
        unsafe { (*context).ifindex }
    }

    #[inline(always)]
    fn is_from_socket(context: *mut Self, ends: &Datagram) -> bool {
        sends(context, ends) != 0
    }
}

/// 1 if a socket with just these ends sends a packet, else 0. A function of its own, for its stack to be free
/// again.
#[inline(never)]
fn sends(context: *mut __sk_buff, ends: &Datagram) -> u64 {
    // SAFETY: as for `bounds`.
    let socket = unsafe { (*context).__bindgen_anon_2.sk };
    if socket.is_null() {
        return 0;
    }
    // What is translated has other ends than its socket. Volatile: of two loads the compiler would make one
    // at a computed offset, and the verifier takes only constant ones.
    // SAFETY: the kernel hands the program a valid socket, of which these fields may be read.
    let own_port = unsafe { (&raw const (*socket).src_port).read_volatile() };
    // SAFETY: as above. Linux before 5.18 has a word here, of which this half is the port.
    let peer_port = unsafe { (&raw const (*socket).dst_port).read_volatile() };
    // SAFETY: as above.
    let peer_v4 = unsafe { (&raw const (*socket).dst_ip4).read_volatile() };
    // SAFETY: as above.
    let peer_v6 = unsafe { (&raw const (*socket).dst_ip6[3]).read_volatile() };
    let (peer, last) = match ends.family {
        Family::V4 => (peer_v4, ends.destination[0]),
        Family::V6 => (peer_v6, ends.destination[3]),
    };
    let (peer, peer_port) = (u32::from_be(peer), u16::from_be(peer_port));
    let same = own_port == u32::from(ends.source_port) && peer_port == ends.destination_port && peer == last;
    u64::from(same)
}

impl<C: Context> Frame<C> {
    /// The frame of a context.
    #[inline(always)]
    pub(crate) fn new(context: *mut C) -> Self {
        let (data, end) = C::bounds(context);
        Self { context, data, end, length: C::measure(data, end) }
    }

    /// The context.
    #[inline(always)]
    pub(crate) const fn context(&self) -> *mut C {
        self.context
    }

    /// The index of the interface that it came in by.
    #[inline(always)]
    pub(crate) fn interface(&self) -> u32 {
        C::interface(self.context)
    }

    /// 1 for a self-test, 0 for a packet of the network. Computed without a branch, after which the verifier
    /// would walk the rest of the program twice.
    #[inline(always)]
    pub(crate) fn self_test(&self) -> u32 {
        let difference = hide((C::interface(self.context) ^ SELF_TEST_INTERFACE.load()) as usize);
        (hide(difference.wrapping_sub(1)) >> 63) as u32
    }
}

/// The window at `offset` of the memory between `data` and `end`, if it lies inside.
#[inline(always)]
fn window<'a, const N: usize>(data: usize, end: usize, offset: u32) -> Option<&'a [u8; N]> {
    // The verifier wants a bound on what is added to a packet pointer before it is compared. The
    // compiler would check it once for several windows and keep the offset on the stack, where
    // Linux 5.10 forgets the bounds of a number.
    let offset = hide(offset as usize);
    if offset > 2 * limits::HEADER_REACH + 1_024 {
        return None;
    }
    let start = data + offset;
    if hide(start + N) > end {
        // keeps `end - N` from being compared, which the verifier refuses
        return None;
    }
    // SAFETY: the kernel keeps [data, end) mapped and unchanged while the program runs, and the
    // N bytes from `start` lie inside; the verifier checks the same comparison again.
    Some(unsafe { &*(start as *const [u8; N]) })
}

impl<C: Context> Packet for Frame<C> {
    #[inline(always)]
    fn length(&self) -> u32 {
        C::length(self.context, self.length)
    }

    #[inline(always)]
    fn window<const N: usize>(&self, offset: u32) -> Option<&[u8; N]> {
        window(self.data, self.end, offset)
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        C::interface(self.context)
    }

    #[inline(always)]
    fn may_hold_segments(&self) -> bool {
        C::may_hold_segments(self.context)
    }

    #[inline(always)]
    fn is_from_socket(&self, ends: &Datagram) -> bool {
        C::is_from_socket(self.context, ends)
    }

    type Again<'a>
        = Self
    where
        Self: 'a;

    #[inline(always)]
    fn again(&self) -> Self {
        let (data, end) = C::bounds(self.context);
        Self { context: self.context, data, end, length: self.length }
    }
}

/// Makes sure that the headers lie in the linear part of a packet, where they can be read.
///
/// The headers of what the kernel's own stack sends always do; nothing shorter than Ethernet, IPv4
/// and TCP together is sent in pieces by it. Only what a program has put together itself (a packet
/// socket) may need this, and if it still falls short after it, it is dropped as truncated.
#[inline(always)]
pub(crate) fn pull_headers(ctx: &TcContext) {
    /// Ethernet, IPv4 and TCP without options.
    const SHORTEST: usize = 14 + 20 + 20;
    let (data, end) = __sk_buff::bounds(ctx.as_ptr().cast());
    if hide(data + SHORTEST) > end {
        // An error leaves the packet as it was.
        let _ = ctx.pull_data(ctx.len().min(limits::HEADER_REACH as u32));
    }
}
