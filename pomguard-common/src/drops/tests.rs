extern crate std;

use core::iter::repeat_with;
use std::{boxed::Box, collections::BTreeMap, vec::Vec};

use super::*;

struct Table(Vec<Box<[Word; ELEMENT]>>);

impl DropStore for Table {
    fn element(&self, index: u32) -> Option<&[Word; ELEMENT]> {
        self.0.get(index as usize).map(Box::as_ref)
    }
}

const SECRET: u64 = 0x1234_5678_9abc_def1;

fn table() -> Table {
    let element = || Box::new(core::array::from_fn(|_| Word::default()));
    Table(repeat_with(element).take(ELEMENTS).collect())
}

/// Packets and bytes, keyed as in the table of drops.
type Counted<K> = BTreeMap<K, (u64, u64)>;

/// Packets and bytes of each entry, and of each part of the rest.
fn contents(table: &Table) -> (Counted<DropKey>, Counted<u64>) {
    let (mut entries, mut rest) = (BTreeMap::new(), BTreeMap::new());
    for element in &table.0[..REST] {
        for bucket in element.chunks(BUCKET) {
            for (tag, slot) in bucket[..WAYS].iter().zip(bucket[WAYS..].chunks(SLOT)) {
                if tag.load() != 0 {
                    let key = DropKey {
                        peer: [slot[field::PEER].load(), slot[field::PEER + 1].load()],
                        what: slot[field::WHAT].load(),
                    };
                    let counts = (slot[field::PACKETS].load(), slot[field::BYTES].load());
                    assert!(entries.insert(key, counts).is_none(), "{key:?} has one entry");
                }
            }
        }
    }
    for at in (0..ELEMENT).step_by(2) {
        let counts = (table.0[REST][at].load(), table.0[REST][at + 1].load());
        if counts.0 != 0 {
            rest.insert(rest_key(at).what, counts);
        }
    }
    (entries, rest)
}

fn key(reason: Reason, known: u64, peer: u32, port: u16) -> DropKey {
    let end = End { peer: [u64::from(peer) << 32, 0], kind: PeerKind::V4, port, protocol: 6, ..End::NOBODY };
    DropKey::new(Direction::Inbound, Decision::because(reason), known, end)
}

/// A simple generator: the tests need no better one.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

#[test]
fn key_returns_what_was_put_into_it() {
    let end = End {
        peer: [7, 9],
        kind: PeerKind::V6,
        port: 65_535,
        other_port: 1,
        sender: true,
        protocol: 255,
        vlan: 4_095,
    };
    for known in [0, 1] {
        for hook in Direction::ALL {
            for reason in [Reason::NoPolicy, Reason::MappedAddress] {
                let key = DropKey::new(hook, Decision::because(reason), known, end);
                assert_eq!((key.port(), key.protocol(), key.vlan()), (65_535, 255, 4_095));
                assert_eq!((key.kind(), key.direction()), (PeerKind::V6, hook));
                assert_eq!((key.reason_number(), key.audited()), (reason as u8, false));
                assert_eq!((key.known(), key.is_sender_port(), key.peer), (known == 1, true, [7, 9]));
                let rest = rest_key(rest_at(key.what));
                assert_eq!(
                    (rest.direction(), rest.reason_number(), rest.known(), rest.audited()),
                    (hook, reason as u8, known == 1, false)
                );
            }
        }
    }
}

#[test]
fn scan_of_a_million_sources_leaves_known_systems_alone() {
    let table = table();
    let known: Vec<DropKey> =
        (0..400).map(|n| key(Reason::PortKnown, 1, 0x0a1e_0000 + n / 4, 1_000 + (n % 4) as u16)).collect();
    let mut state = 88_172_645_463_325_252;
    let mut expected: BTreeMap<DropKey, u64> = BTreeMap::new();
    for n in 0..1_000_000_u32 {
        let random = random(&mut state);
        let stranger = key(Reason::Port, 0, random as u32, (random >> 32) as u16);
        // About a minute.
        record(&table, stranger, 0, 60, n >> 12, SECRET);
        if n % 100 == 0 {
            let one = known[(random >> 48) as usize % known.len()];
            record(&table, one, 0, 100, n >> 12, SECRET);
            *expected.entry(one).or_default() += 1;
        }
    }
    let (entries, rest) = contents(&table);
    for (key, packets) in &expected {
        assert_eq!(entries.get(key), Some(&(*packets, 100 * packets)), "{key:?}");
    }
    let strangers: u64 = entries.iter().filter(|(key, _)| !key.known()).map(|(_, counts)| counts.0).sum();
    assert_eq!(rest.len(), 1, "strangers under one reason: {rest:?}");
    let unlisted: u64 = rest.values().map(|counts| counts.0).sum();
    assert_eq!(strangers + unlisted, 1_000_000);
    assert!(entries.iter().filter(|(key, _)| !key.known()).count() > SLOTS / 2);
}

/// A table without limits, by plain comparison of the fields that tell entries apart.
#[derive(Default)]
struct Model(BTreeMap<([u64; 2], u64), (u64, u64)>);

impl Model {
    fn record(&mut self, key: DropKey, bytes: u32) {
        let peer = match (key.known(), key.kind()) {
            (true, _) | (false, PeerKind::None | PeerKind::Mac) => key.peer,
            (false, PeerKind::V4) => [key.peer[0] >> 40 << 40, 0],
            (false, PeerKind::V6) => [key.peer[0] >> 16 << 16, 0],
        };
        let counts = self.0.entry((peer, key.what)).or_default();
        counts.0 += 1;
        counts.1 += u64::from(bytes);
    }
}

#[test]
fn random_drops_add_up_as_in_a_table_without_limits() {
    let mut state = 1;
    for round in 0..20 {
        let (table, mut model) = (table(), Model::default());
        // From a few keys, which all find room, to many more than fit.
        let spread = 1 << (2 + round);
        let mut now = random(&mut state) as u32;
        for _ in 0..20_000 {
            let pick = random(&mut state) % spread;
            let reasons = [Reason::Port, Reason::PortKnown, Reason::NoFlow, Reason::VlanUnknown];
            let reason = reasons[pick as usize % 4];
            let kind = [PeerKind::V4, PeerKind::V6, PeerKind::Mac][pick as usize / 4 % 3];
            let high = if kind == PeerKind::Mac { pick } else { pick << 37 };
            let low = if kind == PeerKind::V6 { pick } else { 0 };
            let end = End { peer: [high, low], kind, port: pick as u16 & 3, ..End::NOBODY };
            let hook = Direction::ALL[pick as usize / 12 % 2];
            let known = u64::from(reason == Reason::PortKnown);
            let key = DropKey::new(hook, Decision::because(reason), known, end);
            now = now.wrapping_add(u32::from(random(&mut state).is_multiple_of(64)));
            record(&table, key, 0, 60, now, SECRET);
            model.record(key, 60);
        }
        let (entries, rest) = contents(&table);
        let mut totals: BTreeMap<u64, [u64; 2]> = BTreeMap::new();
        for ((_, what), counts) in &model.0 {
            totals.entry(rest_key(rest_at(*what)).what).or_default()[0] += counts.0;
        }
        let parts = entries.iter().map(|(key, counts)| (rest_key(rest_at(key.what)).what, *counts));
        for (part, (packets, bytes)) in parts.chain(rest.iter().map(|(part, counts)| (*part, *counts))) {
            assert_eq!(bytes, 60 * packets);
            totals.get_mut(&part).unwrap()[1] += packets;
        }
        for (part, [recorded, found]) in totals {
            assert_eq!(recorded, found, "round {round}, {part:#x}");
        }
        if round < 4 {
            assert!(rest.is_empty() && entries.len() == model.0.len(), "round {round}: all find room");
        }
    }
}

#[test]
fn strangers_of_a_prefix_share_an_entry_with_the_first_address() {
    let table = table();
    for last in 1..=250 {
        record(&table, key(Reason::Port, 0, 0xc612_0000 + last, 23), 0, 60, 100, SECRET);
    }
    record(&table, key(Reason::Port, 0, 0xc612_0101, 23), 0, 60, 100, SECRET);
    let (entries, _) = contents(&table);
    let expected = [(0xc612_0001, 250), (0xc612_0101, 1)];
    assert_eq!(
        entries.iter().map(|(key, counts)| (key.peer[0] >> 32, counts.0)).collect::<Vec<_>>(),
        expected
    );
}

#[test]
fn entry_makes_room_only_after_it_was_idle() {
    let table = table();
    // More than an area has slots: every bucket is full.
    let strangers = |offset: u32| (0..50_000).map(move |n| key(Reason::Port, 0, (n + offset) << 8, 23));
    for key in strangers(0) {
        record(&table, key, 0, 60, 1_000, SECRET);
    }
    let (before, _) = contents(&table);
    assert_eq!(before.len(), SLOTS);
    for key in strangers(1 << 20) {
        record(&table, key, 0, 60, 1_000 + IDLE, SECRET);
    }
    assert_eq!(contents(&table).0, before, "none was idle for longer");
    for key in strangers(1 << 20) {
        record(&table, key, 0, 60, 1_001 + IDLE, SECRET);
    }
    let (after, rest) = contents(&table);
    assert!(after.keys().all(|key| !before.contains_key(key)));
    let all: u64 = after.values().chain(rest.values()).map(|counts| counts.0).sum();
    assert_eq!(all, 150_000);
}

#[test]
fn key_with_the_print_of_another_entry_is_counted_in_the_rest() {
    let table = table();
    let (one, other) =
        (key(Reason::PortKnown, 1, 0x0a1e_0001, 23), key(Reason::PortKnown, 1, 0x0a1e_0002, 23));
    record(&table, one, 0, 60, 100, SECRET);
    let taken = |bucket: &&[Word]| bucket[..WAYS].iter().any(|tag| tag.load() != 0);
    let buckets = table.0[..REST].iter().flat_map(|element| element.chunks(BUCKET));
    let bucket = buckets.filter(taken).last().expect("the entry has a bucket");
    let way = bucket[..WAYS].iter().position(|tag| tag.load() != 0).expect("the entry has a way");
    bucket[WAYS + way * SLOT + field::PEER].store(other.peer[0]);
    record(&table, one, 0, 60, 101, SECRET);
    let (entries, rest) = contents(&table);
    assert_eq!(entries, BTreeMap::from([(other, (1, 60))]));
    assert_eq!(rest, BTreeMap::from([(rest_key(rest_at(one.what)).what, (1, 60))]));
}

/// The tick of the next attempt must neither outlast the room nor survive a turn of the clock.
#[test]
fn full_bucket_is_looked_through_again_when_an_entry_may_make_room() {
    for (until, now, refused) in [
        (0, 0, false),
        (0, u32::MAX, false),
        (100, 99, true),
        (100, 100, false),
        (100, 101, false),
        (100, 100 - IDLE - 1, true),
        (100, 100 - IDLE - 2, false),
        (5, u32::MAX, true),
    ] {
        assert_eq!(is_refused(until, now), refused, "{until} at {now}");
    }
}

#[test]
fn service_is_at_the_destination_or_at_the_lower_port_of_an_answer() {
    let mut frame = [0_u8; 60];
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14] = 0x45;
    frame[23] = 6;
    frame[26..30].copy_from_slice(&[10, 0, 0, 1]);
    frame[30..34].copy_from_slice(&[10, 0, 0, 2]);
    frame[34..38].copy_from_slice(&[0, 80, 0xc0, 0]);
    let end = |hook, reason: Reason| {
        let end = End::of_plain(hook, &frame[..], reason as u8);
        (end.peer[0] >> 32, end.port, end.other_port, end.sender)
    };
    assert_eq!(end(Direction::Inbound, Reason::Port), (0x0a00_0001, 49_152, 80, false));
    assert_eq!(end(Direction::Inbound, Reason::NoFlow), (0x0a00_0001, 80, 49_152, true));
    assert_eq!(end(Direction::Outbound, Reason::Destination), (0x0a00_0002, 49_152, 80, false));
    assert_eq!(end(Direction::Outbound, Reason::UnsolicitedReply), (0x0a00_0002, 80, 49_152, true));
    frame[34..38].copy_from_slice(&[0xc0, 0, 0, 80]);
    let end = End::of_plain(Direction::Inbound, &frame[..], Reason::NoFlowKnown as u8);
    assert_eq!(
        (end.port, end.other_port, end.sender),
        (80, 49_152, false),
        "in the middle of a call to this host"
    );
}

#[test]
fn frame_that_cannot_be_read_is_recorded_by_what_it_says() {
    let mut frame = [0_u8; 60];
    frame[..6].copy_from_slice(&[1; 6]);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    frame[12..18].copy_from_slice(&[0x81, 0, 0x20, 100, 8, 0]);
    frame[27] = 17;
    frame[30..34].copy_from_slice(&[10, 0, 0, 1]);
    let end = End::of_frame(Direction::Inbound, &frame[..], Reason::VlanUnknown as u8);
    assert_eq!((end.vlan, end.kind, end.peer[0] >> 32, end.protocol), (100, PeerKind::V4, 0x0a00_0001, 17));
    let end = End::of_frame(Direction::Inbound, &frame[..], Reason::Truncated as u8);
    assert_eq!(end.vlan, 0, "the VLAN is not the reason");
    frame[12..14].copy_from_slice(&[0x88, 0xcc]);
    let end = End::of_frame(Direction::Inbound, &frame[..], Reason::EtherType as u8);
    assert_eq!((end.kind, end.peer[0], end.port), (PeerKind::Mac, 0x0200_0000_0009, 0x88cc));
    assert_eq!(End::of_frame(Direction::Inbound, &frame[..13], 33), End::NOBODY);
    for length in 0..frame.len() {
        // The frame ends anywhere: nothing beyond the end is read.
        let _ = End::of_frame(Direction::Outbound, &frame[..length], 33);
        let _ = End::of_plain(Direction::Outbound, &frame[..length], 33);
    }
}
