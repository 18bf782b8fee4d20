//! Access to packet memory: the only module that touches it.

use aya_ebpf::{
    EbpfContext as _, Global,
    bindings::{__sk_buff, xdp_md},
    programs::TcContext,
};
use pomguard_common::{image::Family, limits, packet::Packet, parse::Datagram};

use crate::{barrier::hide, calls};

/// Index of the interface whose packets are self-tests: the loopback interface, which pomguard does not
/// guard. An object that judges no traffic may set this to 0, which is the index of no interface: then test
/// packets count like packets of the network.
#[unsafe(no_mangle)]
pub(crate) static SELF_TEST_INTERFACE: Global<u32> = Global::new(limits::LOOPBACK);

/// A frame. In XDP the whole frame is in one buffer, because the program does not ask for more; in TC the
/// program can read the linear part, and the rest counts towards the length.
#[derive(Clone, Copy)]
pub(crate) struct Frame<C: Context> {
    context: *mut C,
    data: usize,
    end: usize,
    length: C::Length,
}

/// A context that gives access to its packet.
pub(crate) trait Context: Sized {
    /// Returns the address of the first byte, and the address after the last byte.
    fn bounds(context: *mut Self) -> (usize, usize);
    /// The data that must be kept in order to know the length of the packet.
    type Length: Copy;
    /// Measures the packet that lies between `data` and `end`, or begins at `data`.
    fn measure(data: usize, end: usize) -> Self::Length;
    /// Returns the length of the packet.
    fn length(context: *mut Self, measured: Self::Length) -> u32;
    /// Returns true if the packet may be many TCP segments in one.
    fn may_hold_segments(context: *mut Self) -> bool;
    /// Returns the index of the interface by which the packet comes in or leaves.
    fn interface(context: *mut Self) -> u32;
    /// Returns true if a socket with exactly these ends sends the packet.
    fn is_from_socket(context: *mut Self, ends: &Datagram) -> bool;
    /// Records a packet that the general program denies.
    fn record(context: *mut Self, decision: u64, bytes: u32);
}

impl Context for xdp_md {
    #[inline(always)]
    fn bounds(context: *mut Self) -> (usize, usize) {
        // SAFETY: the kernel hands the program a valid context. Volatile, so that each view of the packet
        // starts with new pointers.
        let data = unsafe { (&raw const (*context).data).read_volatile() };
        // SAFETY: as above.
        let end = unsafe { (&raw const (*context).data_end).read_volatile() };
        (data as usize, end as usize)
    }

    // Stored: a new measurement for each use would double the work of the verifier.
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

    #[inline(always)]
    fn record(context: *mut Self, decision: u64, bytes: u32) {
        calls::pom_record_inbound(context, decision, bytes);
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

    // Not stored: the context has the length, and the stack is small.
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

    #[inline(always)]
    fn record(context: *mut Self, decision: u64, bytes: u32) {
        calls::pom_record_outbound(context, decision, bytes);
    }
}

/// Returns 1 if a socket with exactly these ends sends the packet, else 0. A separate function, so that its
/// stack space is free again afterwards.
#[inline(never)]
fn sends(context: *mut __sk_buff, ends: &Datagram) -> u64 {
    // SAFETY: as for `bounds`.
    let socket = unsafe { (*context).__bindgen_anon_2.sk };
    if socket.is_null() {
        return 0;
    }
    // A translated packet has other ends than its socket. The loads are volatile: the compiler would merge
    // two loads into one at a computed offset, and the verifier accepts only constant offsets.
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
    /// Returns the frame of a context.
    #[inline(always)]
    pub(crate) fn new(context: *mut C) -> Self {
        let (data, end) = C::bounds(context);
        Self { context, data, end, length: C::measure(data, end) }
    }

    /// Returns the context.
    #[inline(always)]
    pub(crate) const fn context(&self) -> *mut C {
        self.context
    }

    /// Returns the index of the interface by which the frame came in.
    #[inline(always)]
    pub(crate) fn interface(&self) -> u32 {
        C::interface(self.context)
    }

    /// Returns 1 for a self-test, 0 for a packet of the network. Computed without a branch, after which the
    /// verifier would explore the rest of the program twice.
    #[inline(always)]
    pub(crate) fn self_test(&self) -> u32 {
        let difference = hide((C::interface(self.context) ^ SELF_TEST_INTERFACE.load()) as usize);
        (hide(difference.wrapping_sub(1)) >> 63) as u32
    }
}

/// Returns the window at `offset` of the memory between `data` and `end`, if the window lies inside.
#[inline(always)]
fn window<'a, const N: usize>(data: usize, end: usize, offset: u32) -> Option<&'a [u8; N]> {
    // The verifier requires a bound on the number that is added to a packet pointer before the pointer is
    // compared. Without `hide`, the compiler would check the bound once for several windows and keep the
    // offset on the stack, where Linux 5.10 forgets the bounds of a number.
    let offset = hide(offset as usize);
    if offset > 2 * limits::HEADER_REACH + 1_024 {
        return None;
    }
    let start = data + offset;
    if hide(start + N) > end {
        // `hide` keeps the compiler from comparing `end - N`, which the verifier refuses.
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

/// Makes sure that the headers are in the linear part of a packet, where the program can read them.
///
/// The headers of TCP packets from the kernel's own stack always are. A datagram without a copy of its data, and a
/// packet that a user program has built (through a packet socket), may need this. If the headers of such a packet
/// are still not readable after the pull, the packet is dropped as truncated.
#[inline(always)]
pub(crate) fn pull_headers(ctx: &TcContext) {
    /// Bytes of Ethernet, IPv4 and TCP without options.
    const SHORTEST: usize = 14 + 20 + 20;
    /// Bytes by which the header of IPv6 is longer.
    const MORE: usize = 20;
    /// The EtherType of IPv6, in network order.
    const V6: u32 = 0x86dd_u16.to_be() as u32;
    let (data, end) = __sk_buff::bounds(ctx.as_ptr().cast());
    // SAFETY: as for `bounds`.
    let protocol = unsafe { (*ctx.as_ptr().cast::<__sk_buff>()).protocol };
    let least = if protocol == V6 { SHORTEST + MORE } else { SHORTEST };
    let linear = hide(end - data);
    if linear < least && linear < ctx.len() as usize {
        // An error leaves the packet unchanged.
        let _ = ctx.pull_data(ctx.len().min(limits::HEADER_REACH as u32));
    }
}
