extern crate std;

use core::iter;
use std::vec::Vec;

use super::*;
use crate::{Direction, image::Family, limits, parse::tcp_flag, protocol::TCP};

/// Buckets, the time, the words for candidates, and the local ports.
struct Table(Vec<Bucket>, u32, Candidates, Vec<FlowPort>);

impl Barrier for Table {}

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
        self.1
    }

    fn candidates(&self) -> Option<&Candidates> {
        Some(&self.2)
    }

    fn port(&self, port: u16) -> Option<&FlowPort> {
        self.3.get(usize::from(port))
    }

    fn prints(&self, _: u32) -> Option<&Prints> {
        None
    }
}

fn table(buckets: usize) -> Table {
    let ports = iter::repeat_with(FlowPort::default).take(ports::COUNT).collect();
    Table(iter::repeat_with(Bucket::default).take(buckets).collect(), 7, Candidates::default(), ports)
}

/// Each key has another peer.
fn key(number: u32) -> Key {
    Key::new(Family::V4, TCP, &[0x0a09_0002, 0, 0, 0], 40_000, &[number, 0, 0, 0], 5_432)
}

#[test]
fn table_takes_two_thirds_of_its_slots_before_a_refusal() {
    let table = table(limits::FLOW_BUCKETS);
    let live = limits::FLOWS as u32 / 3 * 2;
    for number in 0..live {
        let entered = enter(&table, key(number), Newcomer::new(State::Established, 3, 1));
        assert_eq!(entered, Entered::New, "flow {number} of {live}");
    }
    for number in 0..live {
        let found = find(&table, key(number)).expect("it was entered");
        assert_eq!((found.row, found.epoch, found.tag.state()), (3, 1, State::Established));
    }
    assert_eq!(find(&table, key(live)), None, "nobody else is found");
}

/// The fast path compares one entry. It must never say "absent" where [`find`] finds a flow.
#[test]
fn glance_is_unsure_where_another_entry_has_the_tag() {
    let table = table(2);
    enter(&table, key(1), Newcomer::new(State::Established, 3, 1));
    let found = find(&table, key(1)).expect("it was entered");
    assert_eq!(glance(&table, &key(1)), Glance::Found(found));
    assert_eq!(glance(&table, &key(2)), Glance::Absent);
    // The flow moves to the last way, and its place goes to a flow that has the same tag.
    let (number, way) = (found.slot as usize / FLOW_WAYS, found.slot as usize % FLOW_WAYS);
    let bucket = &table.0[number];
    bucket.tags[7].store(found.tag.0);
    for (at, word) in key(1).0.into_iter().enumerate() {
        bucket.slots[7].key[at].store(word);
        bucket.slots[way].key[at].store(key(9).0[at]);
    }
    assert_eq!(find(&table, key(1)).expect("it is still there").slot as usize, number * FLOW_WAYS + 7);
    assert_eq!(glance(&table, &key(1)), Glance::Unsure);
    // An entry that has ended may hide a live one in the same way.
    bucket.tags[way].store(0);
    assert!(matches!(glance(&table, &key(1)), Glance::Found(_)));
    bucket.tags[7].store(found.tag.moved(State::Free).0);
    assert_eq!(glance(&table, &key(1)), Glance::Unsure);
    // A local port at which no flow was ever entered has none.
    let other = Key::new(Family::V4, TCP, &[0x0a09_0002, 0, 0, 0], 40_001, &[1, 0, 0, 0], 5_432);
    assert_eq!(glance(&table, &other), Glance::Absent);
}

/// Another processor read its clock later, and renewed an entry before this processor reads it: the entry is
/// found, and makes no room.
#[test]
fn an_entry_renewed_under_a_later_clock_is_live() {
    for renewed in [5_000, 1 << 28, 1 << 31, 3, u32::MAX] {
        for behind in [1, 4, 200] {
            for state in [State::Opening, State::Established, State::Udp, State::Icmp] {
                let mut table = table(2);
                table.1 = renewed;
                enter(&table, key(1), Newcomer::new(state, 3, 1));
                table.1 = renewed.wrapping_sub(behind);
                let says = std::format!("{state:?}, renewed at {renewed}, seen {behind} ticks before");
                let found = find(&table, key(1)).expect(&says);
                assert_eq!(found.tag.idle(table.1), 0, "{says}");
                assert_eq!(glance(&table, &key(1)), Glance::Found(found), "{says}");
                let new = (2..20).map(|number| {
                    enter(&table, key(number), Newcomer::new(State::Opening, 3, 1)) == Entered::New
                });
                // The two buckets have sixteen slots.
                assert!(new.filter(|new| *new).count() < WAYS, "{says}: no entry is overwritten");
                let firm = matches!(state, State::Established | State::Udp);
                assert!(!firm || find(&table, key(1)).is_some(), "{says}: the entry makes no room");
            }
        }
    }
}

#[test]
fn less_compares_like_the_machine_does() {
    for one in [0, 1, 7, 1 << 31, (1 << 63) - 1] {
        for other in [0, 1, 7, 1 << 31, (1 << 63) - 1] {
            assert_eq!(less(one, other), if one < other { u64::MAX } else { 0 }, "{one} and {other}");
        }
    }
}

/// A table of two buckets, and keys that may live in either.
struct Pair {
    table: Table,
    next: u32,
}

/// An entry: the state, true if suspect, and the idle ticks.
type Entry = (State, bool, u32);

const WAYS: usize = 2 * FLOW_WAYS;
const SHARE: usize = WAYS / 4;
/// All ages are 1,000 ticks.
const NOW: u32 = 5_000;

impl Pair {
    fn new() -> Self {
        Self {
            table: Table(
                iter::repeat_with(Bucket::default).take(2).collect(),
                NOW,
                Candidates::default(),
                Vec::new(),
            ),
            next: 0,
        }
    }

    fn key(&mut self) -> Key {
        loop {
            self.next += 1;
            let key = key(self.next);
            let hash = key.hash(self.table.secret());
            if hash as u32 & 1 != other_bucket(hash) & 1 {
                return key;
            }
        }
    }

    /// Fills both buckets. Returns the key of each entry.
    fn fill(&mut self, entries: &[Entry]) -> Vec<Key> {
        let keys: Vec<Key> = entries
            .iter()
            .map(|&(state, suspect, _)| {
                let key = self.key();
                assert_eq!(enter(&self.table, key, Newcomer::new(state, 1, 1)), Entered::New);
                let found = find(&self.table, key).expect("it was entered");
                if suspect {
                    segment(&self.table, &found, Direction::Inbound, tcp_flag::RST);
                }
                key
            })
            .collect();
        for (key, (.., idle)) in keys.iter().zip(entries) {
            let found = find(&self.table, *key).expect("it was entered");
            let (tag, _) = at(&self.table, found.slot).expect("it has a slot");
            tag.store(tag.load() - u64::from(*idle));
        }
        keys
    }
}

/// Returns the class of a state.
fn class(state: State) -> u8 {
    match state {
        State::Free | State::Opening | State::Established | State::Closed => 0,
        State::Udp | State::Unanswered => 1,
        State::Icmp => 2,
        State::Fragment => 3,
    }
}

/// Returns the position of the entry that makes room by the table in docs/policy.md, or `None` if there is
/// none.
fn expected(entries: &[Entry], new: State, urgent: bool) -> Option<usize> {
    let live: Vec<_> = entries.iter().filter(|(.., idle)| *idle <= 1_000).collect();
    let count = |of: State| live.iter().filter(|(state, ..)| class(*state) == class(of)).count();
    let own_over = |entry: &Entry| class(entry.0) == class(new) && count(new) > SHARE;
    let unanswered = |(state, ..): &Entry| {
        matches!(state, State::Opening | State::Unanswered | State::Icmp | State::Fragment)
    };
    let lines: [&dyn Fn(&Entry) -> bool; 9] = [
        &|entry| entry.0 == State::Closed,
        &|entry| entry.1,
        &|entry| unanswered(entry) && own_over(entry),
        &|entry| unanswered(entry) && count(entry.0) > SHARE,
        &|entry| unanswered(entry) && class(entry.0) == class(new),
        &|entry| entry.0 == State::Udp && count(State::Udp) > SHARE,
        &|entry| urgent && unanswered(entry),
        &|entry| urgent && entry.0 == State::Udp,
        &|_| urgent,
    ];
    lines.iter().find_map(|line| {
        let all = entries.iter().enumerate().filter(|(_, entry)| entry.2 <= 1_000 && line(entry));
        all.max_by_key(|(_, entry)| entry.2).map(|(at, _)| at)
    })
}

/// f05. With any contents of two full buckets, the entry that the table in docs/policy.md names makes room,
/// and no class is pushed below a quarter of the slots by another class.
#[test]
fn the_entry_that_makes_room_is_the_one_that_the_table_says() {
    let mut seed = 0x5eed_u64;
    let mut random = |below: u32| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as u32 % below
    };
    let mut seen = [0; 3];
    for _ in 0..20_000 {
        let mut pair = Pair::new();
        // Only some states, so that each line of the table is sometimes the first that has an entry.
        let states: Vec<State> = (0..=random(4)).map(|_| State::ALL[random(7) as usize]).collect();
        let suspects = random(3) == 0;
        let entries: Vec<Entry> = (0..WAYS as u32)
            .map(|at| {
                let state = states[random(states.len() as u32) as usize];
                let tcp = matches!(state, State::Opening | State::Established);
                // No two entries are idle for the same time.
                (state, suspects && tcp && random(4) == 0, random(60) * WAYS as u32 + at)
            })
            .collect();
        let keys = pair.fill(&entries);
        let new = [State::Opening, State::Unanswered, State::Icmp, State::Established][random(4) as usize];
        let urgent = random(4) == 0;
        let key = pair.key();
        let entered = enter(&pair.table, key, Newcomer::new(new, 2, 2).urgent(urgent));
        let gone: Vec<usize> = (0..WAYS).filter(|&at| find(&pair.table, keys[at]).is_none()).collect();
        let expected = expected(&entries, new, urgent);
        assert_eq!(gone, Vec::from_iter(expected), "{new:?}, urgent {urgent}, among {entries:?}");
        assert_eq!(entered == Entered::Full, expected.is_none());
        assert_eq!(find(&pair.table, key).is_some(), expected.is_some());
        let Some(at) = expected else {
            seen[0] += 1;
            continue;
        };
        let (state, suspect, _) = entries[at];
        let left = entries.iter().filter(|entry| class(entry.0) == class(state)).count();
        let of_other = class(state) != class(new) && !suspect && state != State::Closed && !urgent;
        assert!(!of_other || left > SHARE, "{new:?} pushes {state:?} below a quarter: {entries:?}");
        seen[1 + usize::from(of_other)] += 1;
    }
    assert!(seen.iter().all(|&times| times > 400), "{seen:?}");
}

#[test]
fn an_entry_past_its_age_is_room_before_any_other() {
    for state in State::ALL {
        let mut pair = Pair::new();
        let mut entries = [(State::Closed, false, 900); WAYS];
        entries[9] = (state, false, 1_001);
        let keys = pair.fill(&entries);
        let key = pair.key();
        assert_eq!(enter(&pair.table, key, Newcomer::new(State::Opening, 1, 1)), Entered::New, "{state:?}");
        assert_eq!(keys.iter().filter(|key| find(&pair.table, **key).is_some()).count(), WAYS - 1);
    }
}

/// Returns the state and the marks of the only flow in a table, after segments of either side: `>` ours, `<`
/// the peer's.
fn after(segments: &str) -> (State, bool) {
    let mut table = table(2);
    enter(&table, key(1), Newcomer::new(State::Established, 1, 1));
    let mut direction = Direction::Outbound;
    for letter in segments.chars() {
        table.1 += 1;
        let flags = match letter {
            '>' | '<' => {
                direction = if letter == '>' { Direction::Outbound } else { Direction::Inbound };
                continue;
            }
            's' => tcp_flag::SYN,
            'S' => tcp_flag::SYN | tcp_flag::ACK,
            'a' => tcp_flag::ACK,
            'f' => tcp_flag::FIN | tcp_flag::ACK,
            _ => tcp_flag::RST,
        };
        let found = find(&table, key(1)).expect("it lives");
        segment(&table, &found, direction, flags);
    }
    let tag = find(&table, key(1)).expect("it lives").tag;
    (tag.state(), tag.suspect())
}

/// f01, f03: the states of TCP by the marks that segments leave.
#[test]
fn segments_move_a_flow_as_docs_policy_says() {
    use State::{Closed, Established, Opening};
    for (segments, state, suspect) in [
        (">a<a", Established, false),
        (">f", Established, false),
        ("<f", Established, false),
        (">f<f", Closed, false),
        ("<f>f", Closed, false),
        (">f<a<f>a<a", Closed, false),
        ("<f>a>f<a", Closed, false),
        (">r", Closed, false),
        (">r<a<f<r", Closed, false),
        ("<r", Established, true),
        ("<r<r", Established, true),
        ("<r>a", Established, false),
        ("<r<a", Established, false),
        ("<r<f", Established, false),
        ("<r<f>f", Closed, false),
        (">f<r", Established, true),
        (">f<r<f", Closed, false),
        ("<r>s", Opening, false),
        (">f<f>s", Opening, false),
        (">f<f>s<S>f", Established, false),
        (">f<f>s<S<f", Established, false),
        (">r>s<S>a", Established, false),
        (">s", Opening, false),
        (">s>a", Opening, false),
        (">s<f", Opening, false),
        (">s<r", Opening, true),
        (">s<r<S", Established, false),
        (">s<S", Established, false),
        (">s<a>r", Closed, false),
        (">s<a>r<S>a", Established, false),
        (">f<f>r>a", Closed, false),
    ] {
        assert_eq!(after(segments), (state, suspect), "{segments}");
    }
}
