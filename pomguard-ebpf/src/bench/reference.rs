//! The reference: one table of exact keys, and counters.
//!
//! It judges TCP and UDP over IPv4 without options and over IPv6 without extension headers. It knows prefixes, one
//! look-up for each length, and nothing else: no flows, no own addresses, no reasons. A filter of the same policy
//! cannot cost much less.

use core::arch::asm;

use aya_ebpf::{
    bindings::{
        BPF_F_MMAPABLE,
        xdp_action::{XDP_DROP, XDP_PASS},
    },
    btf_maps::{Array, PerCpuArray},
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use pomguard_common::{
    bench::{
        REFERENCE_LENGTHS, REFERENCE_LINES as LINES, REFERENCE_PROBES, Reference, reference_hash,
        reference_service,
    },
    protocol,
};

#[btf_map]
static REFERENCE: Array<Reference, 1> = Array::new();

#[btf_map]
static REFERENCE_LINES: Array<[u64; 8], LINES, { BPF_F_MMAPABLE as usize }> = Array::new();

#[btf_map]
static REFERENCE_COUNTS: PerCpuArray<[u64; 4], 1> = PerCpuArray::new();

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// Passes what the table lists, drops the rest, and counts both.
#[xdp]
#[expect(clippy::needless_pass_by_value, reason = "the attribute's wrapper hands the context over by value")]
fn reference_xdp(ctx: XdpContext) -> u32 {
    let (data, end) = (ctx.data(), ctx.data_end());
    let passes = is_listed(data, end).is_some();
    if let Some(counts) = REFERENCE_COUNTS.get_ptr_mut(0) {
        // SAFETY: a value of this processor, on which no other run of this program interrupts this one.
        let counts = unsafe { &mut *counts };
        let at = usize::from(passes) * 2;
        counts[at & 2] += 1;
        counts[at & 2 | 1] += (end - data) as u64;
    }
    if passes { XDP_PASS } else { XDP_DROP }
}

#[inline(always)]
fn is_listed(data: usize, end: usize) -> Option<()> {
    const V4: u16 = 0x0800;
    const V6: u16 = 0x86dd;
    if data + ETHERNET + 20 + 4 > end {
        return None;
    }
    let head = REFERENCE.get(0)?;
    let first = half::<ETHERNET>(data);
    match half::<12>(data) {
        V4 if first >> 8 == 0x45 => {
            let protocol = half::<22>(data) as u8;
            let address = word::<26>(data);
            let port = half::<36>(data);
            each_length(head, protocol, port, |length, service| {
                let address = u64::from(address & (u32::MAX << ((32 - (length & 31)) % 32)));
                one_word(head, address << 32 | service, reference_hash(address, 0, service))
            })
        }
        V6 if first >> 12 == 6 => {
            if data + ETHERNET + 40 + 4 > end {
                return None;
            }
            let protocol = (half::<20>(data) >> 8) as u8;
            let high = u64::from(word::<22>(data)) << 32 | u64::from(word::<26>(data));
            let low = u64::from(word::<30>(data)) << 32 | u64::from(word::<34>(data));
            let port = half::<56>(data);
            each_length(head, protocol, port, |length, service| {
                let (high, low) = masked(high, low, length);
                three_words(head, [high, low, service], reference_hash(high, low, service))
            })
        }
        _ => None,
    }
}

/// Returns the upper `length` bits of an address of 128 bits.
#[inline(always)]
const fn masked(high: u64, low: u64, length: u32) -> (u64, u64) {
    if length > 64 {
        (high, low & u64::MAX << ((128 - length) & 63))
    } else {
        (high & u64::MAX << ((64 - length) & 63), 0)
    }
}

/// Calls `find` for each prefix length, until one finds the packet.
#[inline(always)]
fn each_length(
    head: &Reference,
    protocol: u8,
    port: u16,
    find: impl Fn(u32, u64) -> Option<()>,
) -> Option<()> {
    if !matches!(protocol, protocol::TCP | protocol::UDP) {
        return None;
    }
    let mut number = 0;
    while number < REFERENCE_LENGTHS && (number as u32) < head.count {
        let length = head.lengths[number];
        if find(length, reference_service(length, protocol, port)).is_some() {
            return Some(());
        }
        number += 1;
    }
    None
}

/// Looks up a key of one word: eight keys in a line.
#[inline(always)]
fn one_word(head: &Reference, key: u64, hash: u64) -> Option<()> {
    let mut line = hash as u32;
    let mut probe = 0;
    while probe < REFERENCE_PROBES {
        let words = REFERENCE_LINES.get(line & head.mask)?;
        if words.contains(&key) {
            return Some(());
        }
        if words[7] == 0 {
            return None;
        }
        line = line.wrapping_add(1);
        probe += 1;
    }
    None
}

/// Looks up a key of three words: two keys in a line.
#[inline(always)]
fn three_words(head: &Reference, key: [u64; 3], hash: u64) -> Option<()> {
    let mut line = hash as u32;
    let mut probe = 0;
    while probe < REFERENCE_PROBES {
        let words = REFERENCE_LINES.get(line & head.mask)?;
        let is = |at: usize| words[at] == key[0] && words[at + 1] == key[1] && words[at + 2] == key[2];
        if is(0) || is(4) {
            return Some(());
        }
        if words[6] == 0 {
            return None;
        }
        line = line.wrapping_add(1);
        probe += 1;
    }
    None
}

/// Reads two bytes of the packet in network order.
#[inline(always)]
fn half<const AT: usize>(data: usize) -> u16 {
    let value: u64;
    // SAFETY: the caller has checked that the packet is long enough. In assembly, because the compiler would read
    // an unaligned number byte by byte.
    unsafe {
        asm!("{value} = *(u16 *)({data} + {at})", value = out(reg) value, data = in(reg) data, at = const AT,
            options(nostack, readonly));
    }
    u16::from_be(value as u16)
}

/// Reads four bytes of the packet in network order.
#[inline(always)]
fn word<const AT: usize>(data: usize) -> u32 {
    let value: u64;
    // SAFETY: as above.
    unsafe {
        asm!("{value} = *(u32 *)({data} + {at})", value = out(reg) value, data = in(reg) data, at = const AT,
            options(nostack, readonly));
    }
    u32::from_be(value as u32)
}
