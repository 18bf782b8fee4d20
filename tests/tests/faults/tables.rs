//! Tables at their limit, in the loaded programs: live flows stay, whatever comes in or leaves by the hundred
//! thousand.

use std::net::IpAddr;

use pomguard_common::{Direction, flow::State, limits, protocol::TCP, reason::Reason};
use pomguard_tests::{
    faults::{report, times},
    harness::{Bench, Subject as _, bench},
    packet::{Packet, eth, flag},
    random::Random,
    reference::{self, Places},
};

/// The number of flows that must survive a flood.
const LIVE: u32 = 1_000;
/// The number of packets of a flood: more than the table has room for.
const FLOOD: u32 = 400_000;

/// The bench, with the addresses of the reference policy.
struct Table<'a> {
    bench: &'a mut Bench,
    places: Places,
}

/// Frames of TCP flows of this host, by number. A frame of each kind is built once and then modified.
struct Frames {
    out: Vec<u8>,
    back: Vec<u8>,
}

/// Offsets of the varying fields in an IPv4 frame.
const SOURCE: usize = 26;
const DESTINATION: usize = 30;
const SOURCE_PORT: usize = 34;
const DESTINATION_PORT: usize = 36;

fn put(frame: &mut [u8], at: usize, bytes: &[u8]) {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
}

impl Frames {
    fn new(places: &Places, flags_out: u8, flags_back: u8) -> Self {
        let packet = |from, to, flags| -> Packet { eth().ip(from, to).tcp(5_432, 5_432).flags(flags) };
        Self {
            out: packet(places.host, places.database, flags_out).build(),
            back: packet(places.database, places.host, flags_back).build(),
        }
    }

    /// Returns an outbound frame of a flow: from 64,000 ports of this host to up to 250 databases.
    fn out(&mut self, number: u32) -> &[u8] {
        put(&mut self.out, SOURCE_PORT, &port(number).to_be_bytes());
        put(&mut self.out, DESTINATION + 3, &[database(number)]);
        &self.out
    }

    /// Returns an inbound frame of a flow.
    fn back(&mut self, number: u32) -> &[u8] {
        put(&mut self.back, DESTINATION_PORT, &port(number).to_be_bytes());
        put(&mut self.back, SOURCE + 3, &[database(number)]);
        &self.back
    }
}

fn port(number: u32) -> u16 {
    1_024 + (number % 64_000) as u16
}

fn database(number: u32) -> u8 {
    1 + (number / 64_000) as u8
}

impl Table<'_> {
    fn passes(&mut self, direction: Direction, frame: &[u8]) -> bool {
        self.bench.probe.verdict(direction, frame).unwrap()
    }

    fn sends(&mut self, frame: &[u8]) -> bool {
        self.passes(Direction::Outbound, frame)
    }

    fn takes(&mut self, frame: &[u8]) -> bool {
        self.passes(Direction::Inbound, frame)
    }

    /// Opens a flow and lets the peer answer. Returns true if the table had room for the flow.
    fn establish(&mut self, opening: &mut Frames, number: u32) -> bool {
        if !self.sends(opening.out(number)) {
            return false;
        }
        assert!(self.takes(opening.back(number)), "flow {number} is answered");
        true
    }

    /// Returns how many of these flows no longer receive their answers.
    fn lost(&mut self, numbers: impl Iterator<Item = u32>) -> usize {
        let mut running = Frames::new(&self.places, flag::ACK, flag::ACK);
        numbers.filter(|&number| !self.takes(running.back(number))).count()
    }

    /// Returns the numbers of flows opened, of flows evicted, and of packets dropped for lack of room.
    fn counts(&self) -> [u64; 3] {
        let counters = self.bench.probe.counters().unwrap();
        let full =
            counters.direction.iter().map(|half| half.judged[Reason::FlowTableFull.index()].packets).sum();
        [counters.flows_opened, counters.flows_evicted, full]
    }

    fn since(&self, before: [u64; 3]) -> [u64; 3] {
        let now = self.counts();
        [0, 1, 2].map(|at| now[at] - before[at])
    }
}

/// Runs `test` on a bench with the reference policy. Does nothing without root.
fn with_table(name: &str, test: impl FnOnce(&mut Table<'_>)) {
    let Some(mut bench) = bench(name, reference::policy()) else { return };
    test(&mut Table { bench: &mut bench, places: Places::v4() });
    bench.forget().unwrap();
}

/// Returns a SYN of this host and its answer.
fn opening(places: &Places) -> Frames {
    Frames::new(places, flag::SYN, flag::SYN | flag::ACK)
}

#[test]
fn full_table_refuses_new_flows_and_keeps_every_live_one() {
    with_table("full_table_refuses_new_flows_and_keeps_every_live_one", |table| {
        let before = table.counts();
        let mut opening = opening(&table.places);
        let (mut live, mut refused, mut first) = (Vec::new(), 0_u64, 0);
        for number in 0.. {
            if table.establish(&mut opening, number) {
                live.push(number);
            } else {
                if refused == 0 {
                    first = live.len();
                }
                refused += 1;
            }
            if refused == 10_000 {
                break;
            }
            assert!(number < 2 * limits::FLOWS as u32, "FL-04: the table is never full");
        }
        assert_eq!(table.since(before), [live.len() as u64, 0, refused], "FL-04: opened, evicted, refused");
        assert!(first > limits::FLOWS / 4, "FL-04: room for {first} of {}", limits::FLOWS);
        assert_eq!(table.lost(live.iter().copied()), 0, "FL-04: every flow lives");
        let mut running = Frames::new(&table.places, flag::ACK, flag::ACK);
        table.bench.wait(10).unwrap();
        for &number in &live {
            assert!(table.sends(running.out(number)), "FL-11: flow {number} goes on");
        }
        assert_eq!(table.since(before), [live.len() as u64, 0, refused], "FL-11: kept alive in their places");
        let places = table.places;
        let login = eth().ip(places.office, places.host).tcp(40_000, 22);
        assert!(table.takes(&login.clone().flags(flag::SYN).build()), "FL-04: operators log in");
        assert!(
            table.sends(&login.mirrored().flags(flag::SYN | flag::ACK).build()),
            "FL-04: and are answered"
        );
        table.bench.wait(State::Established.age_seconds()).unwrap();
        assert_eq!(table.lost(live.iter().copied().take(1_000)), 1_000, "past their age they are gone");
        assert!(table.establish(&mut opening, 0), "and there is room again");
        report(&format!(
            "full table: the first refusal at {first} of {} flows; {} live, {refused} refused, 0 evicted, 0 lost",
            limits::FLOWS,
            live.len()
        ));
    });
}

#[test]
fn flood_of_own_openings_evicts_no_live_flow() {
    let name = "flood_of_own_openings_evicts_no_live_flow";
    with_table(name, |table| {
        let mut opening = opening(&table.places);
        assert!((0..LIVE).all(|number| table.establish(&mut opening, number)));
        let before = table.counts();
        for number in LIVE..LIVE + FLOOD {
            assert!(table.sends(opening.out(number)), "FL-05: opening {number} leaves");
        }
        let [opened, evicted, full] = table.since(before);
        assert_eq!((opened, full), (u64::from(FLOOD), 0), "FL-02, FL-05: opened, refused");
        assert!(evicted > u64::from(FLOOD) / 4, "FL-02: the table was at its capacity: {evicted}");
        assert_eq!(table.lost(0..LIVE), 0, "FL-01, FL-02, FL-05: every flow lives");
        let next = LIVE + FLOOD..2 * LIVE + FLOOD;
        assert!(next.clone().all(|number| table.establish(&mut opening, number)), "FL-05: others connect");
        assert_eq!(table.lost(next), 0, "FL-05: and live");
        report(&format!(
            "{FLOOD} openings of our own: {evicted} of them evicted, 0 of {LIVE} flows lost, {LIVE} of {LIVE} new ones connect"
        ));
    });
}

#[test]
fn floods_from_outside_leave_no_trace_in_the_table() {
    with_table("floods_from_outside_leave_no_trace_in_the_table", |table| {
        let mut opening = opening(&table.places);
        assert!((0..LIVE).all(|number| table.establish(&mut opening, number)));
        let before = table.counts();
        let mut random = Random(1);
        let (host, stranger) = (table.places.host, table.places.stranger);
        let tcp = |port, flags| eth().ip(stranger, host).tcp(5_000, port).flags(flags).build();
        let udp = eth().ip(stranger, host).udp(5_000, 8_080).payload(b"flood").build();
        // FL-01 at a port that everybody may open, FL-03 at ports that nobody may open.
        let kinds = [
            (tcp(443, flag::SYN), true),
            (tcp(22, flag::SYN), false),
            (tcp(8_080, flag::SYN), false),
            (tcp(8_080, flag::SYN | flag::ACK), false),
            // TP-06 at both kinds of ports.
            (tcp(22, flag::ACK), false),
            (tcp(8_080, flag::RST), false),
            (tcp(8_080, flag::FIN | flag::ACK), false),
            (udp, false),
        ];
        let each = times("POMGUARD_FAULT_STRAYS", FLOOD as usize / 4);
        let sent = kinds.len() * each;
        for (mut frame, expected) in kinds {
            for _ in 0..each {
                // An address of a /8 that is neither the host's network nor special.
                put(
                    &mut frame,
                    SOURCE,
                    &[198, random.word() as u8, random.word() as u8, random.word() as u8],
                );
                put(&mut frame, SOURCE_PORT, &(1_024 + random.below(60_000) as u16).to_be_bytes());
                assert_eq!(table.takes(&frame), expected, "{frame:02x?}");
            }
        }
        assert_eq!(table.since(before), [0, 0, 0], "FL-01, FL-03, TP-06: no entry, no eviction");
        assert_eq!(table.lost(0..LIVE), 0, "FL-01, FL-03, TP-06: every flow lives");
        report(&format!(
            "{sent} packets of eight floods from outside: 0 entries made, 0 of {LIVE} flows lost"
        ));
    });
}

#[test]
fn fl_12_all_flows_of_one_allowed_source_take_no_room() {
    let name = "fl_12_all_flows_of_one_allowed_source_take_no_room";
    with_table(name, |table| {
        let mut opening = opening(&table.places);
        assert!((0..LIVE).all(|number| table.establish(&mut opening, number)));
        let before = table.counts();
        let places = table.places;
        // SYN, SYN and ACK, ACK: a complete handshake, and idle from then on.
        let packet = |flags| eth().ip(places.office, places.host).tcp(1_024, 22).flags(flags);
        let (mut syn, mut ack) = (packet(flag::SYN).build(), packet(flag::ACK).build());
        let mut answer = packet(flag::ACK).mirrored().flags(flag::SYN | flag::ACK).build();
        let ports = 1_024..=u16::MAX;
        for port in ports.clone() {
            put(&mut syn, SOURCE_PORT, &port.to_be_bytes());
            put(&mut ack, SOURCE_PORT, &port.to_be_bytes());
            put(&mut answer, DESTINATION_PORT, &port.to_be_bytes());
            assert!(
                table.takes(&syn) && table.sends(&answer) && table.takes(&ack),
                "FL-12: the flow from port {port}"
            );
        }
        assert_eq!(table.since(before), [0, 0, 0], "FL-12: no entry, no eviction");
        assert_eq!(table.lost(0..LIVE), 0, "FL-12: every flow of others lives");
        assert!(
            (LIVE..2 * LIVE).all(|number| table.establish(&mut opening, number)),
            "FL-12: others connect"
        );
        report(&format!(
            "{} flows of one allowed source: 0 entries made, {LIVE} of {LIVE} others connect",
            ports.len()
        ));
    });
}

#[test]
fn forged_resets_and_ends_do_not_end_a_live_flow() {
    with_table("forged_resets_and_ends_do_not_end_a_live_flow", |table| {
        const ROUNDS: u32 = 20;
        let mut opening = opening(&table.places);
        assert!((0..LIVE).all(|number| table.establish(&mut opening, number)));
        let before = table.counts();
        let mut running = Frames::new(&table.places, flag::ACK, flag::ACK);
        let forged = [flag::RST, flag::RST | flag::ACK, flag::FIN | flag::ACK, flag::SYN];
        let mut forged = forged.map(|flags| Frames::new(&table.places, flag::ACK, flags));
        for round in 0..ROUNDS {
            for number in 0..LIVE {
                for frames in &mut forged {
                    table.takes(frames.back(number));
                }
                // The two sides alternate in sending first.
                let when = format!("FL-13: flow {number} in round {round}");
                let comes_first = (round + number) % 2 == 0;
                assert!(!comes_first || table.takes(running.back(number)), "{when}");
                assert!(table.sends(running.out(number)), "{when}");
                assert!(comes_first || table.takes(running.back(number)), "{when}");
            }
            table.bench.wait(200).unwrap();
        }
        assert_eq!(table.since(before), [0, 0, 0], "FL-13: no entry was lost and made again");
        report(&format!("{} forged resets and ends: 0 of {LIVE} flows lost", 4 * ROUNDS * LIVE));
    });
}

#[test]
fn fragment_flood_leaves_flows_alone_and_the_newest_datagrams() {
    with_table("fragment_flood_leaves_flows_alone_and_the_newest_datagrams", |table| {
        let mut opening = opening(&table.places);
        assert!((0..LIVE).all(|number| table.establish(&mut opening, number)));
        let before = table.counts();
        let (from, host): (IpAddr, IpAddr) = (table.places.stranger, table.places.host);
        let fragmented = 4 * limits::FRAGMENTS as u32;
        let first = |id| {
            let segment = eth().ip(from, host).tcp(40_000, 443).flags(flag::ACK).payload(&[7; 44]);
            segment.fragment(id, 0, true).build()
        };
        let follower =
            |id| eth().ip(from, host).protocol(TCP).payload(&[7; 16]).fragment(id, 64, false).build();
        for id in 0..fragmented {
            assert!(table.takes(&first(id)), "FL-08: first fragment {id}");
        }
        let newest = fragmented - 100..fragmented;
        let follows = newest.filter(|&id| table.takes(&follower(id))).count();
        // The resolution of their age is a quarter of a second: within that time, new datagrams may evict
        // new ones.
        assert!(follows >= 80, "FL-08, FR-13: {follows} of the newest 100 trains are whole");
        assert!(!table.takes(&follower(fragmented)), "FL-08: what follows nothing does not pass");
        assert_eq!(table.since(before), [0, 0, 0], "FL-08: no entry, no eviction among the flows");
        assert_eq!(table.lost(0..LIVE), 0, "FL-08: every flow lives");
        report(&format!(
            "{fragmented} fragmented datagrams in a table for {}: {follows} of the newest 100 whole, 0 of {LIVE} flows lost",
            limits::FRAGMENTS
        ));
    });
}
