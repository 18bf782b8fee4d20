//! Random packets under random policies. The loaded programs against the same code on the host, which
//! catches what the compiler and the verifier could change; and against a naive second reading.
//!
//! `POMGUARD_FUZZ_PACKETS` says how many packets, `POMGUARD_FUZZ_SEED` repeats a run.

#![expect(clippy::expect_used, reason = "a test stops at the first surprise")]

use std::{
    collections::BTreeMap,
    env,
    time::{Duration, Instant, SystemTime},
};

use pomguard::policy::{Direction, Mode};
use pomguard_common::{
    counter::{RowTally, Tally},
    decide::NO_ROW,
    reason::Reason,
};
use pomguard_tests::{
    harness::{Bench, Effect, after_one, bench, unlike},
    oracle::{self, Answer},
    random::{self, Random, Stream},
    twin::Twin,
};

/// Packets under one policy.
const ROUND: usize = 1_000;
/// A run that was not asked for by number ends after this long.
const LONGEST: Duration = Duration::from_secs(60);

struct Run {
    stream: Stream,
    rounds: usize,
    bounded: bool,
    begun: Instant,
}

impl Run {
    /// As the environment says; the seed is printed.
    fn of(what: &str) -> Self {
        let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_nanos());
        let seed = number("POMGUARD_FUZZ_SEED").unwrap_or(now as u64);
        let packets = number("POMGUARD_FUZZ_PACKETS");
        println!("{what}: POMGUARD_FUZZ_SEED={seed}");
        let rounds = (packets.unwrap_or(100_000) as usize).div_ceil(ROUND);
        Self { stream: Stream::new(Random(seed)), rounds, bounded: packets.is_none(), begun: Instant::now() }
    }

    fn over(&self) -> bool {
        self.bounded && self.begun.elapsed() > LONGEST
    }
}

/// A frame that the kernel's test run takes in this direction, which some that are cut short are not.
fn frame(stream: &mut Stream, direction: Direction) -> Vec<u8> {
    loop {
        let frame = stream.frame(direction);
        let least = match frame.get(12..14) {
            Some([0x08, 0x00]) if direction == Direction::Outbound => 34,
            Some([0x86, 0xdd]) if direction == Direction::Outbound => 54,
            _ => 15,
        };
        // Longer ones do not fit the page that a test run has.
        if (least..3_000).contains(&frame.len()) {
            return frame;
        }
    }
}

fn hex(frame: &[u8]) -> String {
    frame.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[test]
fn the_loaded_programs_decide_as_the_same_code_on_the_host() {
    let what = "the_loaded_programs_decide_as_the_same_code_on_the_host";
    let mut run = Run::of(what);
    let mut packets = 0;
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for round in 0..run.rounds {
        if run.over() {
            break;
        }
        let policy = random::policy(&mut run.stream.random);
        let Some(mut bench) = bench(what, policy) else { return };
        let twin = Twin::new(&bench.image().expect("compiles")).expect("opens");
        let mut expected = bench.probe.counters().expect("counters");
        for at in 0..ROUND {
            let direction = run.stream.random.of(&Direction::ALL);
            let frame = frame(&mut run.stream, direction);
            let decision = twin.judge(direction, &frame).expect("opens");
            let effect = Effect {
                reason: decision.reason(),
                audited: decision.audited(),
                row: decision.row(),
                connection: decision.row() != NO_ROW && decision.opens(),
                enters: decision.entered().is_some(),
            };
            let tell =
                || format!("round {round}, packet {at}, {}: {decision:?}: {}", direction.name(), hex(&frame));
            let row = |bench: &Bench| {
                if effect.row == NO_ROW {
                    RowTally::default()
                } else {
                    bench.probe.row(effect.row).expect("a row")
                }
            };
            let before = row(&bench);
            let passed =
                bench.probe.verdict(direction, &frame).unwrap_or_else(|error| panic!("{error}: {}", tell()));
            let after = row(&bench);
            let found = bench.probe.counters().expect("counters");
            let tally = Tally { packets: 1, bytes: frame.len() as u64 };
            expected = after_one(expected, direction, tally, effect);
            assert_eq!(passed, decision.passes(), "{}", tell());
            let differences = unlike(&expected, &found);
            assert!(differences.is_empty(), "{}: {differences:?}", tell());
            let counted = (after.packets - before.packets, after.connections - before.connections);
            assert_eq!(
                counted,
                (u64::from(effect.row != NO_ROW), u64::from(effect.connection)),
                "{}",
                tell()
            );
            *reasons.entry(effect.reason.name()).or_default() += 1;
            packets += 1;
        }
    }
    println!("{packets} packets in {:.1?}: no difference; {reasons:?}", run.begun.elapsed());
    let never =
        [Reason::NoPolicy, Reason::RateLimited, Reason::Isolated, Reason::FlowTableFull, Reason::Internal];
    let missed: Vec<&str> = Reason::ALL
        .iter()
        .filter(|reason| !never.contains(reason) && !reasons.contains_key(reason.name()))
        .map(|reason| reason.name())
        .collect();
    assert!(packets < 50_000 || missed.is_empty(), "the generator never made a packet of {missed:?}");
}

#[test]
fn the_loaded_programs_pass_what_a_naive_reading_allows_and_nothing_that_it_refuses() {
    let what = "the_loaded_programs_pass_what_a_naive_reading_allows_and_nothing_that_it_refuses";
    let mut run = Run::of(what);
    let mut answers: BTreeMap<String, usize> = BTreeMap::new();
    for round in 0..run.rounds {
        if run.over() {
            break;
        }
        let mut policy = random::policy(&mut run.stream.random);
        (policy.inbound, policy.outbound) = (Mode::Enforce, Mode::Enforce);
        let Some(mut bench) = bench(what, policy) else { return };
        // What comes in enters no conversation, so that first everything is unasked for.
        for direction in Direction::ALL {
            for at in 0..ROUND / 2 {
                let frame = frame(&mut run.stream, direction);
                let answer = oracle::judge(bench.policy(), direction, &frame);
                let passed = bench.probe.verdict(direction, &frame).expect("the frame runs");
                let right = match answer {
                    Answer::Passes => passed,
                    Answer::Stops => !passed,
                    Answer::Open => true,
                };
                *answers.entry(format!("{} {answer:?}", direction.name())).or_default() += 1;
                if !right {
                    let finding = bench.probe.run(direction, &frame).expect("the frame runs");
                    panic!(
                        "round {round}, packet {at}, {}: {answer:?} expected, passed is {passed}, asked again \
                         {finding:?}: {}\n{:#?}",
                        direction.name(),
                        hex(&frame),
                        bench.policy().rows
                    );
                }
            }
        }
    }
    println!("{:.1?}: no difference; {answers:?}", run.begun.elapsed());
}
