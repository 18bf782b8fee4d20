use pomguard_common::{
    Direction,
    decide::Decision,
    drops::{End, PeerKind},
    reason::Reason,
};

use super::*;
use crate::{
    kernel::drops::{DropEntry, Rest},
    observe::drops::store::Store,
};

fn key(known: bool, peer: u32, port: u16) -> DropKey {
    let reason = if known { Reason::PortKnown } else { Reason::Port };
    let end = End { peer: [u64::from(peer) << 32, 0], kind: PeerKind::V4, port, protocol: 6, ..End::NOBODY };
    DropKey::new(Direction::Inbound, Decision::because(reason), known.into(), end)
}

fn entry(slot: u32, taken: u32, key: DropKey, packets: u64) -> DropEntry {
    DropEntry { slot, taken, key, packets, bytes: 60 * packets, first: 7_200, last: 7_300, other_port: 4_000 }
}

fn reading(at: u64, entries: &[DropEntry], rest: u64) -> Reading {
    let part = rest_key(rest_at(key(false, 0, 0).what));
    let rest = if rest == 0 { Vec::new() } else { vec![Rest { key: part, packets: rest, bytes: 60 * rest }] };
    Reading { table: 1, at, entries: entries.to_vec(), rest, ..Reading::default() }
}

fn packets(hour: &Hour) -> u64 {
    let entries = hour.table.values().map(|counts| counts.packets);
    entries.chain(hour.rest.values().map(|counts| counts[0])).sum()
}

#[test]
fn each_packet_counts_once_however_often_the_table_is_read() {
    let mut ledger = Ledger::default();
    let known = key(true, 0x0a1e_0009, 13_724);
    assert_eq!(packets(&ledger.account(&reading(7_300, &[entry(0, 1, known, 5)], 0))), 5);
    assert_eq!(packets(&ledger.account(&reading(7_301, &[entry(0, 1, known, 5)], 0))), 0);
    // A restart: the ledger is read back as written.
    let written = serde_json::to_string(&ledger).unwrap();
    let mut ledger: Ledger = serde_json::from_str(&written).unwrap();
    assert_eq!(packets(&ledger.account(&reading(7_302, &[entry(0, 1, known, 8)], 0))), 3);
    assert_eq!(ledger.hour.table[&known].packets, 8);
    // Another table: a reboot.
    let other = Reading { table: 2, ..reading(7_303, &[entry(0, 1, known, 2)], 0) };
    assert_eq!(packets(&ledger.account(&other)), 2);
    assert_eq!(ledger.hour.table[&known].packets, 10);
}

#[test]
fn packets_of_a_replaced_entry_are_not_counted_again_in_the_rest() {
    let mut ledger = Ledger::default();
    let [one, two, three] = [1, 2, 3].map(|peer| key(false, peer << 8, 23));
    ledger.account(&reading(7_300, &[entry(0, 1, one, 5)], 2));
    assert_eq!(packets(&ledger.hour), 7);
    // The five packets went to the rest.
    ledger.account(&reading(7_301, &[entry(0, 2, two, 1)], 7));
    assert_eq!(packets(&ledger.hour), 8);
    // Between two readings another entry came and went, with four packets.
    ledger.account(&reading(7_302, &[entry(0, 4, three, 1)], 12));
    assert_eq!(packets(&ledger.hour), 13);
    // The same key again, in a slot that was reused.
    ledger.account(&reading(7_303, &[entry(0, 5, three, 1)], 13));
    assert_eq!((packets(&ledger.hour), ledger.hour.table[&three].packets), (14, 2));
}

#[test]
fn replaced_entry_counts_right_even_if_the_rest_was_read_before_it() {
    let mut ledger = Ledger::default();
    let [one, two] = [1, 2].map(|peer| key(false, peer << 8, 23));
    ledger.account(&reading(7_300, &[entry(0, 1, one, 5)], 3));
    ledger.account(&reading(7_301, &[entry(0, 2, two, 1)], 3));
    assert_eq!(packets(&ledger.hour), 9);
    ledger.account(&reading(7_302, &[entry(0, 2, two, 1)], 9));
    assert_eq!(packets(&ledger.hour), 10, "one more without a key");
}

#[test]
fn clock_that_goes_back_begins_no_hour_twice() {
    let mut ledger = Ledger::default();
    assert!(ledger.turn(100 * HOUR).is_some());
    for at in [100 * HOUR + 5, 99 * HOUR, 77 * HOUR, 100 * HOUR] {
        assert_eq!(ledger.turn(at), None, "{at}");
    }
    assert_eq!(ledger.turn(101 * HOUR).map(|over| over.hour), Some(100));
    assert_eq!(ledger.turn(10 * HOUR).map(|over| over.hour), Some(101), "a clock that was days ahead");
}

#[test]
fn hour_has_a_bound_and_loses_no_packet() {
    let mut hour = Hour::default();
    let counts = Counts { packets: 1, bytes: 60, ..Counts::default() };
    for n in 0..10_000_u32 {
        hour.add(key(true, n, 1), &counts);
        hour.add(key(false, n << 8, 1), &counts);
    }
    assert_eq!(packets(&hour), 20_000);
    assert_eq!(hour.table.keys().filter(|key| key.known()).count(), KNOWN);
    assert_eq!(hour.table.len(), KNOWN + STRANGERS);
    let bytes = serde_json::to_vec(&hour).unwrap().len();
    assert!(bytes < 1 << 20, "{bytes}");
}

#[test]
fn disk_keeps_hours_for_days_and_within_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    assert!(store.ledger().unwrap().is_none());
    let mut ledger = Ledger::default();
    for hour in 0..100 {
        let entry = entry(0, 1, key(true, 9, 161), hour + 1);
        if let Some(over) = ledger.turn(hour * HOUR) {
            store.close(&over).unwrap();
        }
        ledger.account(&reading(hour * HOUR, &[entry], 0));
        store.save(&ledger).unwrap();
    }
    assert_eq!(store.ledger().unwrap().as_ref(), Some(&ledger));
    let kept = |since| store.hours(since, ledger.hour.hour).0.len();
    assert_eq!((kept(0), kept(90 * HOUR + 5)), (99, 9));
    store.prune(99 * HOUR, 3, 1 << 30).unwrap();
    assert_eq!(kept(0), 72);
    store.prune(99 * HOUR, 3, 1_000).unwrap();
    let left = kept(0);
    assert!((1..10).contains(&left), "{left}");
    std::fs::write(folder.path().join("drops/98.json"), b"{").unwrap();
    let (_, unreadable) = store.hours(0, ledger.hour.hour);
    assert!(unreadable[0].to_string().contains("drops/98.json: not what was written"), "{unreadable:?}");
}
