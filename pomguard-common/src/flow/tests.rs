extern crate std;

use core::iter;
use std::vec::Vec;

use super::*;
use crate::{image::Family, limits, protocol::TCP};

struct Table(Vec<Bucket>);

impl Forget for Table {}

impl Store for Table {
    fn bucket(&self, bucket: u32) -> Option<&Bucket> {
        self.0.get(bucket as usize)
    }

    fn mask(&self) -> u32 {
        self.0.len() as u32 - 1
    }

    fn secret(&self) -> u64 {
        0x5eed
    }

    fn age(&self, _state: State) -> u32 {
        1_000
    }

    fn now(&self) -> u32 {
        7
    }
}

/// To another peer each.
fn key(number: u32) -> Key {
    Key::new(Family::V4, TCP, &[0x0a09_0002, 0, 0, 0], 40_000, &[number, 0, 0, 0], 5_432)
}

#[test]
fn two_thirds_of_the_slots_can_be_live_conversations_before_one_finds_no_room() {
    let table = Table(iter::repeat_with(Bucket::default).take(limits::FLOW_BUCKETS).collect());
    let live = limits::FLOWS as u32 / 3 * 2;
    for number in 0..live {
        let entered = enter(&table, key(number), State::Established, 3, 1);
        assert_eq!(entered, Entered::New, "conversation {number} of {live}");
    }
    for number in 0..live {
        let found = find(&table, key(number)).expect("it was entered");
        assert_eq!((found.row, found.stamp, found.tag.state()), (3, 1, State::Established));
    }
    assert_eq!(find(&table, key(live)), None, "nobody else is found");
}
