//! A look-up that asks the port and the prints first finds the same flows as a look-up that always searches.

extern crate std;

use core::{cell::Cell, iter};
use std::vec::Vec;

use super::{
    prints::{complete, doubt},
    *,
};
use crate::{
    Direction,
    image::Family,
    parse::tcp_flag,
    protocol::{ICMP, TCP, UDP},
};

/// Ticks of a second.
const SECOND: u32 = 4;

/// A small flow table with the tables of its ports and prints.
struct Table {
    buckets: Vec<Bucket>,
    prints: Vec<Prints>,
    ports: Vec<FlowPort>,
    candidates: Candidates,
    ages: Cell<[u32; 8]>,
    now: Cell<u32>,
}

impl Table {
    fn new(now: u32) -> Self {
        Self {
            buckets: iter::repeat_with(Bucket::default).take(64).collect(),
            prints: iter::repeat_with(Prints::default).take(64).collect(),
            ports: iter::repeat_with(FlowPort::default).take(ports::COUNT).collect(),
            candidates: Candidates::default(),
            ages: Cell::new(core::array::from_fn(|state| {
                State::from_number(state as u32).age_seconds() * SECOND
            })),
            now: Cell::new(now),
        }
    }

    fn wait(&self, ticks: u32) {
        self.now.set(self.now.get().wrapping_add(ticks));
    }
}

impl Barrier for Table {}

impl Store for Table {
    fn bucket(&self, bucket: u32) -> Option<&Bucket> {
        self.buckets.get(bucket as usize)
    }

    fn mask(&self) -> u32 {
        self.buckets.len() as u32 - 1
    }

    fn secret(&self) -> u64 {
        0x5eed
    }

    fn age(&self, state: State) -> u32 {
        self.ages.get()[state as usize]
    }

    fn now(&self) -> u32 {
        self.now.get()
    }

    fn candidates(&self) -> Option<&Candidates> {
        Some(&self.candidates)
    }

    fn port(&self, port: u16) -> Option<&FlowPort> {
        self.ports.get(usize::from(port))
    }

    fn prints(&self, bucket: u32) -> Option<&Prints> {
        self.prints.get(bucket as usize)
    }
}

/// The flows of a table behind other filters.
struct Filtered<'a>(&'a Table, Filters);

/// The ports and prints of a table as a look-up finds them.
enum Filters {
    /// There are none: a look-up always searches.
    Missing,
    /// Those of the table. Whoever asks for them does so before this key is in the table.
    Before(Key),
}

impl Filtered<'_> {
    /// Returns the table if a look-up may ask for its ports and prints.
    fn filters(&self) -> Option<&Table> {
        let Filters::Before(key) = self.1 else { return None };
        assert!(
            find(&searched(self.0), key).is_none(),
            "the flow is in the table before its port and its print"
        );
        Some(self.0)
    }
}

impl Barrier for Filtered<'_> {}

impl Store for Filtered<'_> {
    fn bucket(&self, bucket: u32) -> Option<&Bucket> {
        self.0.bucket(bucket)
    }

    fn mask(&self) -> u32 {
        self.0.mask()
    }

    fn secret(&self) -> u64 {
        self.0.secret()
    }

    fn age(&self, state: State) -> u32 {
        self.0.age(state)
    }

    fn now(&self) -> u32 {
        self.0.now()
    }

    fn candidates(&self) -> Option<&Candidates> {
        self.0.candidates()
    }

    fn port(&self, port: u16) -> Option<&FlowPort> {
        self.filters()?.port(port)
    }

    fn prints(&self, bucket: u32) -> Option<&Prints> {
        self.filters()?.prints(bucket)
    }
}

/// Returns the same flows without ports and prints.
fn searched(table: &Table) -> Filtered<'_> {
    Filtered(table, Filters::Missing)
}

fn key(protocol: u8, port: u16, peer: u32) -> Key {
    Key::new(Family::V4, protocol, &[0x0a4d_0001, 0, 0, 0], port, &[peer, 0, 0, 0], 443)
}

/// Numbers in pseudo-random order (Marsaglia's xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32 % end
    }
}

/// One step that changes a table: an outbound packet, an inbound packet, or the passing of time.
fn step(table: &Table, random: &mut Random) {
    let protocol = [TCP, TCP, UDP, UDP, ICMP][random.below(5) as usize];
    let key = key(protocol, 40_000 + random.below(5) as u16, random.below(24));
    let found = find(table, key);
    assert_eq!(found, find(&searched(table), key), "{protocol} at {}", table.now.get());
    match (glance(table, &key), found) {
        (Glance::Found(glanced), _) => assert_eq!(Some(glanced), found),
        (Glance::Absent, found) => assert_eq!(found, None, "{protocol} at {}", table.now.get()),
        (Glance::Unsure, _) => {}
    }
    // The daemon corrects the prints, after somebody has lost or spoilt them.
    let bucket = random.below(64) as usize;
    match random.below(1_000) {
        0..250 => assert_eq!(doubt(&table.buckets[bucket], &table.prints[bucket]), 0, "no print is wrong"),
        250..500 => complete(&table.buckets[bucket], &table.prints[bucket]),
        500 => {
            let way = random.below(8) as usize;
            table.prints[bucket].way(way).store(prints::UNKNOWN);
        }
        501 => (0..8).for_each(|way| table.prints[bucket].way(way).store(prints::UNKNOWN)),
        _ => {}
    }
    match random.below(12) {
        // Mostly short times, sometimes about the age of a state, seldom days.
        0 => table.wait(random.below(3)),
        1 => table.wait(random.below(40 * SECOND)),
        2 => table.wait(random.below(400 * SECOND)),
        3 if random.below(8) == 0 => table.wait(random.below(8_000 * SECOND)),
        3 if random.below(64) == 0 => table.wait(random.below(6 * 86_400 * SECOND)),
        4 if random.below(32) == 0 => {
            let established = if random.below(2) == 0 { 7_440 } else { 5 * 86_400 };
            let mut ages = table.ages.get();
            ages[State::Established as usize] = established * SECOND;
            table.ages.set(ages);
        }
        packet => match (found, protocol) {
            (None, _) => {
                let state = match protocol {
                    TCP => [State::Opening, State::Established][random.below(2) as usize],
                    UDP => State::Unanswered,
                    _ => State::Icmp,
                };
                enter(table, key, Newcomer::new(state, 1, 1).urgent(random.below(4) == 0));
            }
            (Some(found), TCP) => {
                let hook = if packet % 2 == 0 { Direction::Inbound } else { Direction::Outbound };
                let flags = [tcp_flag::ACK, tcp_flag::ACK, tcp_flag::FIN, tcp_flag::RST, tcp_flag::SYN];
                segment(table, &found, hook, flags[random.below(5) as usize] | tcp_flag::ACK);
            }
            (Some(found), UDP) if packet % 2 == 0 => answered(table, &found),
            (Some(found), _) => touch(table, &found, found.tag.state()),
        },
    }
}

#[test]
fn port_and_prints_never_deny_a_flow_that_a_search_finds() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    // Start times around the points where clocks and tags wrap.
    for start in [0, 1, 7, u32::MAX, u32::MAX - 9_000 * SECOND, Tag::TIME - 9_000 * SECOND, 1 << 31] {
        let table = Table::new(start);
        for _ in 0..150_000 {
            step(&table, &mut random);
        }
    }
}

#[test]
fn clock_of_another_processor_denies_no_flow() {
    for protocol in [TCP, UDP] {
        for now in [0, 1, 5, 1_000, u32::MAX] {
            let table = Table::new(now);
            let state = if protocol == TCP { State::Established } else { State::Unanswered };
            enter(&table, key(protocol, 40_000, 1), Newcomer::new(state, 1, 1));
            let time = table.port(40_000).map(|port| port.time(protocol)).expect("it is kept").load();
            for late in 0..=20_u32 {
                let reader = now.wrapping_sub(late);
                assert!(
                    ports::may_have_flow(time, port_age(&table, protocol), reader),
                    "{now} read at {reader}"
                );
            }
        }
    }
}

#[test]
fn flow_is_found_in_the_last_tick_of_its_age_in_each_state() {
    let states = [State::Opening, State::Established, State::Closed, State::Udp, State::Unanswered];
    for state in states {
        let protocol = if matches!(state, State::Udp | State::Unanswered) { UDP } else { TCP };
        for long in [false, true] {
            let table = Table::new(u32::MAX - 3);
            if long {
                let mut ages = table.ages.get();
                ages[state as usize] = 60 * 86_400 * SECOND;
                table.ages.set(ages);
            }
            let key = key(protocol, 50_000, 9);
            // The port's time is not renewed while it is recent, but the flow's time is.
            enter(&table, self::key(protocol, 50_000, 8), Newcomer::new(state, 1, 1));
            table.wait(59 * SECOND);
            enter(&table, key, Newcomer::new(state, 1, 1));
            table.wait(table.age(state));
            assert!(find(&table, key).is_some(), "{state:?}");
            table.wait(1);
            assert!(find(&table, key).is_none(), "{state:?}");
        }
    }
}

#[test]
fn port_and_print_are_written_before_the_flow() {
    let table = Table::new(9);
    let key = key(UDP, 40_000, 1);
    assert_eq!(
        enter(&Filtered(&table, Filters::Before(key)), key, Newcomer::new(State::Unanswered, 1, 1)),
        Entered::New
    );
    assert!(find(&table, key).is_some());
}

#[test]
fn port_without_flows_is_not_searched() {
    let table = Table::new(9);
    let time = |protocol: u8, port: u16| {
        let time = table.port(port).map(|port| port.time(protocol)).expect("it is kept").load();
        ports::may_have_flow(time, port_age(&table, protocol), table.now())
    };
    enter(&table, key(TCP, 40_000, 1), Newcomer::new(State::Established, 1, 1));
    assert!(time(TCP, 40_000));
    assert!(!time(UDP, 40_000) && !time(TCP, 40_001), "another transport, another port");
    enter(&table, key(UDP, 40_001, 1), Newcomer::new(State::Unanswered, 1, 1));
    assert!(time(UDP, 40_001));
    table.wait(330 * SECOND);
    assert!(time(UDP, 40_001), "it lasts as long as both states of UDP");
    table.wait(200 * SECOND);
    assert!(!time(UDP, 40_001), "and no more than some minutes longer");
    table.wait((State::Established.age_seconds() + 600) * SECOND);
    assert!(!time(TCP, 40_000));
}

#[test]
fn flows_without_ports_are_always_searched() {
    let table = Table::new(9);
    let key = key(ICMP, 40_000, 1);
    assert!(port_time(&table, &key).is_none());
    enter(&table, key, Newcomer::new(State::Icmp, 1, 1));
    assert!(find(&table, key).is_some());
}

#[test]
fn port_of_which_nothing_is_known_may_have_flows_of_any_age() {
    for now in [0, 1, 77, u32::MAX] {
        let table = Table::new(now);
        for age in [table.age(State::Closed), table.age(State::Established)] {
            let later = now.wrapping_add(age);
            assert!(ports::may_have_flow(ports::unknown(now), port_age(&table, TCP), later), "{now} + {age}");
        }
    }
}

#[test]
fn print_of_a_hash_says_something() {
    let prints: std::collections::BTreeSet<u8> =
        (0..=255_u64).map(|top| Prints::of_hash(top << 56 | 7)).collect();
    assert_eq!(prints.len(), 254, "{prints:?}");
    assert!(!prints.contains(&prints::UNKNOWN) && !prints.contains(&prints::FREE));
    for print in 2..=255_u64 {
        assert_eq!(u64::from(Prints::of_hash(print << 56)), print);
        let tag = Tag::new(print << 56 | 0xff_ffff_ffff, State::Udp, 9);
        assert_eq!(Prints::of_hash(tag.0), Prints::of_hash(print << 56), "the tag has the bits of the print");
    }
}

#[test]
fn bucket_is_read_if_a_print_fits() {
    let mut random = Random(9);
    let table = Table::new(1);
    let prints = &table.prints[0];
    for _ in 0..200_000 {
        let stored: [u8; 8] = core::array::from_fn(|_| random.below(5) as u8);
        for (way, print) in stored.iter().enumerate() {
            prints.way(way).store(*print);
        }
        let hash = u64::from(random.below(6)) << 56;
        let fits = |print: &u8| *print == prints::UNKNOWN || *print == Prints::of_hash(hash);
        let hits = prints::hits(&table, 0, hash);
        assert_eq!(hits != 0, stored.iter().any(fits), "{stored:?} for {hash:x}");
    }
    assert_ne!(prints::hits(&searched(&table), 0, 77), 0, "without prints, any way");
}

#[test]
fn prints_spare_nearly_all_searches_for_absent_flows() {
    let table = Table::new(9);
    let known = |peer: u32| key(TCP, 40_000, peer);
    let entered = (0..200)
        .filter(|peer| enter(&table, known(*peer), Newcomer::new(State::Established, 1, 1)) == Entered::New);
    assert!(entered.count() > 190);
    table.buckets.iter().zip(&table.prints).for_each(|(bucket, prints)| complete(bucket, prints));
    let searched = (1_000..11_000).filter(|peer| {
        let hash = known(*peer).hash(table.secret());
        [hash as u32, other_bucket(hash)]
            .iter()
            .any(|bucket| prints::hits(&table, bucket & table.mask(), hash) != 0)
    });
    let searched = searched.count();
    // Sixteen ways, three of eight taken: six prints of 254 values fit by chance.
    assert!((100..400).contains(&searched), "{searched} of 10,000");
}

#[test]
fn prints_of_a_table_that_was_found_are_corrected() {
    let table = Table::new(9);
    let keys: Vec<Key> = (0..100).map(|peer| key(TCP, 40_000, peer)).collect();
    for key in &keys {
        enter(&table, *key, Newcomer::new(State::Established, 1, 1));
    }
    // As an older version leaves them: prints of other flows.
    table.prints.iter().for_each(|prints| (0..8).for_each(|way| prints.way(way).store(77)));
    let lost = keys.iter().filter(|key| find(&table, **key).is_none()).count();
    assert!(lost > 90, "{lost}");
    let wrong: usize =
        table.buckets.iter().zip(&table.prints).map(|(bucket, prints)| doubt(bucket, prints)).sum();
    assert!(wrong >= lost, "{wrong} and {lost}");
    assert!(keys.iter().all(|key| find(&table, *key).is_some()));
    table.prints.iter().for_each(Prints::clear);
    assert!(keys.iter().all(|key| find(&table, *key).is_some()), "unknown prints hide nothing");
    table.buckets.iter().zip(&table.prints).for_each(|(bucket, prints)| complete(bucket, prints));
    assert!(keys.iter().all(|key| find(&table, *key).is_some()));
    let unknown = |prints: &&Prints| (0..8).any(|way| prints.way(way).load() == prints::UNKNOWN);
    assert_eq!(table.prints.iter().filter(unknown).count(), 0);
}

/// A program has written the print of a flow that replaces another one, and the tag follows after the daemon has
/// compared the two.
#[test]
fn print_that_comes_before_its_tag_is_not_corrected() {
    let table = Table::new(0);
    let older = key(TCP, 40_000, 1);
    enter(&table, older, Newcomer::new(State::Established, 1, 1));
    let slot = find(&table, older).unwrap().slot;
    // A key with the same bucket.
    let same = |key: &Key| key.hash(table.secret()) as u32 & table.mask() == slot / FLOW_WAYS as u32;
    let newer = (2..10_000).map(|peer| key(TCP, 40_000, peer)).find(same).unwrap();
    let hash = newer.hash(table.secret());
    let (bucket, prints) =
        (&table.buckets[slot as usize / FLOW_WAYS], &table.prints[slot as usize / FLOW_WAYS]);
    let way = slot as usize % FLOW_WAYS;
    prints::note(&table, slot, hash);
    doubt(bucket, prints);
    for (word, value) in bucket.slots[way].key.iter().zip(newer.0) {
        word.store(value);
    }
    bucket.tags[way].store(Tag::new(hash, State::Established, table.now()).0);
    assert!(find(&table, newer).is_some());
    complete(bucket, prints);
    assert!(find(&table, newer).is_some());
}
