//! Time and epoch: nothing that has expired comes back, however often a counter wraps.

use pomguard_common::{Direction, reason::Reason};
use pomguard_tests::{
    harness::{Subject as _, bench},
    host_datapath::HostDatapath,
    packet::{
        Packet, eth,
        flag::{ACK, FIN, SYN},
    },
    reference::{self, Places},
};

use crate::case::AGE;

/// An upper bound of the ticks in ten years.
const TEN_YEARS: u64 = 10 * 366 * 24 * 3_600 * 4;
/// Ticks before which, by five ticks, an entry is made: a counter of 28, 30, 31 or 32 bits wraps then, or
/// none does.
const WRAPS: [u32; 5] = [1 << 28, 1 << 30, 1 << 31, 0, 1_000];

/// A kind of entry.
struct Kind {
    says: &'static str,
    /// The packets that make the entry.
    makes: Vec<(Direction, Packet)>,
    /// A packet that passes only because of the entry.
    passes: (Direction, Packet),
    /// Seconds for which the entry lives.
    age: u32,
}

fn kinds() -> Vec<Kind> {
    use Direction::{Inbound, Outbound};
    let places = Places::v4();
    let ours = |flags| eth().ip(places.host, places.database).tcp(40_000, 5_432).flags(flags);
    let theirs = |flags| ours(flags).mirrored();
    let query = eth().ip(places.host, places.database).udp(40_000, 53);
    let piece = |offset, more| {
        let packet = eth().ip(places.stranger, places.host).tcp(40_000, 443).flags(ACK).payload(&[7; 44]);
        packet.fragment(7, offset, more)
    };
    let open = vec![(Outbound, ours(SYN)), (Inbound, theirs(SYN | ACK)), (Outbound, ours(ACK))];
    let close = [(Outbound, ours(FIN | ACK)), (Inbound, theirs(FIN | ACK))];
    let kind = |says, makes, passes, age| Kind { says, makes, passes: (Inbound, passes), age };
    vec![
        kind("opening", vec![(Outbound, ours(SYN))], theirs(FIN | ACK), 120),
        kind("established", open.clone(), theirs(ACK), AGE),
        kind("closed", [&open[..], &close].concat(), theirs(ACK), 240),
        kind("unanswered", vec![(Outbound, query.clone())], query.clone().mirrored(), 30),
        kind(
            "answered",
            vec![(Outbound, query.clone()), (Inbound, query.clone().mirrored())],
            query.mirrored(),
            300,
        ),
        kind("fragment", vec![(Inbound, piece(0, true))], piece(64, false), 60),
    ]
}

fn passes(datapath: &mut HostDatapath, (direction, packet): &(Direction, Packet)) -> bool {
    datapath.judge(*direction, &packet.build()).expect("both ways agree").passes()
}

#[test]
fn nothing_comes_back_within_ten_years() {
    for wrap in WRAPS {
        for kind in kinds() {
            let mut datapath = HostDatapath::new(reference::policy()).expect("the policy compiles");
            datapath.wait_ticks(wrap.wrapping_sub(5));
            for step in &kind.makes {
                assert!(passes(&mut datapath, step), "{}: {:?}", kind.says, step.0);
            }
            // The entry survives the wrap.
            let Kind { says, passes: asks, age, .. } = &kind;
            let mut elapsed = 8_u64;
            datapath.wait_ticks(8);
            // An answer would change the kind of the entry.
            assert!(*says == "unanswered" || passes(&mut datapath, asks), "{says} at {wrap}: it is there");
            let over = 4 * (u64::from(*age) + 10);
            let mut moments: Vec<u64> = (16..32)
                .flat_map(|bits| {
                    let turns = (1..=TEN_YEARS >> bits).step_by(if bits < 24 { 97 } else { 1 });
                    turns.flat_map(move |turn| [0, 1, 9, over / 2].map(|past| (turn << bits) + past))
                })
                .filter(|moment| *moment > over + elapsed)
                .collect();
            moments.extend([over + elapsed, over + elapsed + 1]);
            moments.sort_unstable();
            for moment in moments {
                datapath.wait_ticks((moment - elapsed) as u32);
                elapsed = moment;
                assert!(!passes(&mut datapath, asks), "{says}, made at {wrap}, is back after {moment} ticks");
            }
        }
    }
}

/// The clock moves on between the reading of the clock on one processor and a renewal on another: the entry
/// has a time that has not come yet for the first processor, and lives.
#[test]
fn an_entry_renewed_under_a_later_clock_lets_answers_in() {
    for wrap in WRAPS {
        for kind in kinds() {
            for behind in [1, 4, 200] {
                let mut datapath = HostDatapath::new(reference::policy()).expect("the policy compiles");
                datapath.wait_ticks(wrap.wrapping_add(2));
                for step in &kind.makes {
                    assert!(passes(&mut datapath, step), "{}: {:?}", kind.says, step.0);
                }
                datapath.wait_ticks(0_u32.wrapping_sub(behind));
                assert!(passes(&mut datapath, &kind.passes), "{}, made {behind} after {wrap}", kind.says);
            }
        }
    }
}

/// The same in the kernel. There the difference is not rare: the daemon enters the connections of a first
/// start by the monotonic clock, and in many virtual machines that clock is ahead of the kernel's ticks.
#[test]
fn programs_let_answers_in_by_an_entry_with_a_later_clock() {
    let Some(mut bench) = bench("entries with a later clock", reference::policy()) else { return };
    for kind in kinds() {
        for behind in [4, 200] {
            bench.renew(reference::policy()).expect("the policy compiles");
            let mut passes = |(direction, packet): &(Direction, Packet)| {
                bench.probe.verdict(*direction, &packet.build()).expect("the kernel runs the frame")
            };
            assert!(!passes(&kind.passes), "{}: without an entry", kind.says);
            for step in &kind.makes {
                assert!(passes(step), "{}: {:?}", kind.says, step.0);
            }
            bench.wait_ticks(0_u32.wrapping_sub(behind)).expect("the policy compiles");
            let passed = bench.probe.verdict(kind.passes.0, &kind.passes.1.build());
            assert!(passed.expect("the kernel runs the frame"), "{}, {behind} ticks before", kind.says);
        }
    }
}

/// The number of a generation wraps, too, and two numbers have another meaning.
#[test]
fn flow_is_judged_by_the_policy_in_force_over_every_wrap() {
    let places = Places::v4();
    let ours = |flags| eth().ip(places.host, places.database).tcp(40_000, 5_432).flags(flags).build();
    let theirs = |flags| eth().ip(places.database, places.host).tcp(5_432, 40_000).flags(flags).build();
    let mut without = reference::policy();
    without.rows.retain(|row| row.id.0 != "E1");
    for changes in 0..6 {
        let mut datapath = HostDatapath::new(reference::policy()).expect("the policy compiles");
        datapath.count_from(u32::MAX - 3).expect("the policy compiles");
        let judge = |datapath: &mut HostDatapath, direction, frame: &[u8]| {
            datapath.judge(direction, frame).expect("both ways agree").reason
        };
        assert_eq!(judge(&mut datapath, Direction::Outbound, &ours(SYN)), Reason::Row);
        assert_eq!(judge(&mut datapath, Direction::Inbound, &theirs(SYN | ACK)), Reason::OwnFlow);
        for change in 0..changes {
            datapath.enforce(reference::policy()).expect("the policy compiles");
            let answer = judge(&mut datapath, Direction::Inbound, &theirs(ACK));
            assert_eq!(answer, Reason::OwnFlow, "after {change} of {changes} changes");
        }
        datapath.enforce(without.clone()).expect("the policy compiles");
        let answer = judge(&mut datapath, Direction::Inbound, &theirs(ACK));
        assert_eq!(answer, Reason::NoFlowKnown, "after {changes} changes, and without the row");
    }
}
