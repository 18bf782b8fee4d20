//! Records the denied packets. See [`pomguard_common::drops`].

use pomguard_common::{
    Direction,
    decide::Decision,
    drops::{self, DropKey, DropStore, End},
    flow::Word,
    packet::Packet as _,
};

use crate::{
    barrier::{hide, hide_by, join},
    clock, flows, maps,
    packet::{Context, Frame},
    tables,
};

/// This CPU's table.
struct Drops {
    /// A number that is unknown to the verifier.
    unknown: u64,
}

impl DropStore for Drops {
    #[inline(always)]
    fn element(&self, index: u32) -> Option<&[Word; drops::ELEMENT]> {
        let words = maps::DROPS.get_ptr_mut(index)?;
        // SAFETY: a word is a number of the same size. The value is this CPU's. No other run that records
        // interrupts this one on the same CPU: softirqs do not nest, and egress holds them off.
        Some(unsafe { &*words.cast::<[Word; drops::ELEMENT]>() })
    }

    #[inline(always)]
    fn bucket<'a>(
        &self,
        words: &'a [Word; drops::ELEMENT],
        number: usize,
    ) -> Option<&'a [Word; drops::BUCKET]> {
        // The compiler would join this offset and that within the bucket by an OR of two registers. Kernels up to
        // Linux 6.1 at least know nothing of the result.
        let bucket =
            words.as_ptr().cast::<[Word; drops::BUCKET]>().wrapping_add(number & (drops::BUCKETS - 1));
        let bucket = hide(bucket as usize) as *const [Word; drops::BUCKET];
        // SAFETY: the number is below that of the buckets of an element.
        Some(unsafe { &*bucket })
    }

    #[inline(always)]
    fn slot<'a>(&self, words: &'a [Word; drops::BUCKET], way: u64) -> Option<&'a [Word; drops::SLOT]> {
        let slots = words.as_ptr().wrapping_add(drops::WAYS).cast::<[Word; drops::SLOT]>();
        let slot = slots.wrapping_add(hide(way as usize) & (drops::WAYS - 1));
        // A pointer keeps its bounds on the stack. Up to Linux 6.1 at least, a number does not.
        let slot = hide(slot as usize) as *const [Word; drops::SLOT];
        // SAFETY: the number is below that of the ways of a bucket.
        Some(unsafe { &*slot })
    }

    #[inline(always)]
    fn barrier(&self, value: u64) -> u64 {
        hide_by(value, self.unknown)
    }

    #[inline(always)]
    fn join(&self) {
        join(self.unknown);
    }
}

#[inline(always)]
fn record(hook: Direction, decision: Decision, end: End, bytes: u32) {
    let key = DropKey::new(hook, decision, decision.known_bit(), end);
    let unknown = clock::jiffies();
    let other_port = hide_by(end.other_port.into(), unknown) as u16;
    drops::record(&Drops { unknown }, key, other_port, bytes, clock::now(), flows::FLOW_SECRET.load());
}

/// Records a packet that the fast program denies: a plain packet, or a packet for the general program while
/// that program is missing.
#[inline(always)]
pub(crate) fn plain<C: Context>(hook: Direction, packet: &Frame<C>, decision: Decision, bytes: u32) {
    let reason = decision.reason_number();
    let packet = packet.again();
    let end = if decision.is_read() {
        End::of_plain(hook, &packet, reason)
    } else {
        End::of_frame(hook, &packet, reason)
    };
    record(hook, decision, end, bytes);
}

/// Records a packet that the general program denies. Returns 0.
#[inline(always)]
pub(crate) fn any<C: Context>(context: *mut C, hook: Direction, decision: u64, bytes: u32) -> u32 {
    let Some(decision) = Decision::of_word(decision) else { return 0 };
    let reason = decision.reason_number();
    let datagram = if decision.is_read() { tables::judged(hook) } else { None };
    let end = match datagram {
        Some(datagram) => End::of_datagram(hook, datagram, reason),
        None => End::of_frame(hook, &Frame::new(context), reason),
    };
    record(hook, decision, end, bytes);
    0
}
