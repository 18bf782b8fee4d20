//! Tests of the assignment of rows to counter slots, across changes.

use pomguard_common::limits::{ROW_SLOTS, ROWS};

use super::*;
use crate::compile::{HeldSlot, labels};

fn held(slot: u16, id: &str, last_used: u64) -> HeldSlot {
    HeldSlot { slot, id: id.to_owned(), direction: Direction::Inbound, last_used }
}

fn with(ids: &[&str]) -> Policy {
    policy(ids.iter().map(|id| tcp(id, &["10.50.0.0/16"], 443, 443)).collect())
}

fn of(slots: &SlotTable, id: &str) -> Option<u16> {
    slots.of(&RowId(id.to_owned()), Direction::Inbound)
}

#[test]
fn a_row_keeps_its_slot_and_new_ones_take_free_ones() {
    let previous = [held(1, "test-1/1", 9), held(0, "gone", 9), held(500, "test-1/2", 9)];
    let slots = SlotTable::assign(&previous, &with(&["test-1/3", "test-1/2", "test-1/1"])).expect("room");
    assert_eq!(["test-1/1", "test-1/2", "test-1/3"].map(|id| of(&slots, id)), [Some(1), Some(500), Some(2)]);
    assert_eq!(of(&slots, "gone"), None);
    assert_eq!(slots.departed(), [held(0, "gone", 9)]);
    assert!(slots.reused().is_empty());
}

#[test]
fn the_directions_of_one_row_count_apart() {
    let outbound = Row { direction: Direction::Outbound, ..tcp("test-1/1", &["10.50.0.0/16"], 443, 443) };
    let policy = policy(vec![tcp("test-1/1", &["10.50.0.0/16"], 443, 443), outbound]);
    let slots = slots(&policy);
    assert_eq!(of(&slots, "test-1/1"), Some(0));
    assert_eq!(slots.of(&RowId("test-1/1".to_owned()), Direction::Outbound), Some(1));
}

#[test]
fn without_room_the_longest_unused_gives_up_its_slot() {
    let mut previous: Vec<HeldSlot> =
        (0..ROW_SLOTS as u16).map(|slot| held(slot, &format!("old/{slot}"), 100)).collect();
    previous[77].last_used = 3;
    previous[4_000].last_used = 2;
    let slots = SlotTable::assign(&previous, &with(&["old/5", "new/1", "new/2"])).expect("room");
    assert_eq!(
        [of(&slots, "old/5"), of(&slots, "new/1"), of(&slots, "new/2")],
        [Some(5), Some(4_000), Some(77)]
    );
    let reused: Vec<(&str, &str)> =
        slots.reused().iter().map(|reused| (reused.from.id.as_str(), reused.to.0.as_str())).collect();
    assert_eq!(reused, [("old/4000", "new/1"), ("old/77", "new/2")]);
    assert_eq!(slots.departed().len(), ROW_SLOTS - 3);
}

#[test]
fn rows_that_are_live_never_lose_their_slots() {
    let ids: Vec<String> = (0..ROWS).map(|number| format!("test-1/{number}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let first = slots(&with(&ids));
    let previous: Vec<HeldSlot> = labels(&with(&ids), &first)
        .into_iter()
        .filter_map(|(slot, label)| HeldSlot::of_label(slot, &label, 0))
        .collect();
    assert_eq!(previous.len(), ROWS);
    let mut turned = ids.clone();
    turned.reverse();
    let second = SlotTable::assign(&previous, &with(&turned)).expect("room");
    assert!(ids.iter().all(|id| of(&first, id) == of(&second, id) && of(&first, id).is_some()));
}

#[test]
fn damaged_labels_take_nobodys_slot() {
    let previous = [
        held(3, "test-1/1", 0),
        held(3, "test-1/2", 0),
        held(4, "test-1/1", 0),
        held(u16::MAX, "test-1/3", 0),
    ];
    let slots = SlotTable::assign(&previous, &with(&["test-1/1", "test-1/2", "test-1/3"])).expect("room");
    assert_eq!(["test-1/1", "test-1/2", "test-1/3"].map(|id| of(&slots, id)), [Some(3), Some(0), Some(1)]);
}

#[test]
fn an_id_too_long_for_a_label_keeps_its_slot_too() {
    let long = |last: char| format!("site/{}{last}", "ü".repeat(40));
    let (one, other) = (long('1'), long('2'));
    let policy = with(&[&one, &other]);
    let first = slots(&policy);
    let labels = labels(&policy, &first);
    let previous: Vec<HeldSlot> =
        labels.iter().rev().filter_map(|(slot, label)| HeldSlot::of_label(*slot, label, 0)).collect();
    assert_eq!(previous.len(), 2);
    assert_eq!(SlotTable::assign(&previous, &policy).expect("room"), first);
    assert_ne!(of(&first, &one), of(&first, &other));
}

#[test]
fn label_text_is_cut_at_a_character() {
    let mut row = tcp("test-1/1", &["10.50.0.0/16"], 443, 443);
    row.source = vec!["ü".repeat(50).into()];
    row.services = (0..30).map(|at| service(TCP, 100 * at, 100 * at)).collect();
    let policy = policy(vec![row]);
    let labels = labels(&policy, &slots(&policy));
    let label = &labels[0].1;
    assert_eq!(std::str::from_utf8(&label.source), Ok("ü".repeat(36).as_str()));
    assert!(std::str::from_utf8(&label.ports).is_ok_and(|text| text.starts_with("0, 100, 200, ")));
}
