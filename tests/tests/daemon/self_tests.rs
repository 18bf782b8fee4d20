//! Test runs of the programs that enforce: they never count as traffic, and never depend on traffic.

use std::fs;

use pomguard::kernel::{counters, pins::Pins};
use pomguard_common::{Direction, counter::Counters, reason::Reason};
use pomguard_tests::{
    daemon::{Daemon, INTERFACE, LISTED, LISTED_OUT, Lab, PEER, Pinned, SERVER, STRANGER, Stats, opens},
    faults::TrafficGenerator,
    packet::{
        Packet, eth, ether,
        flag::{ACK, FIN, SYN},
    },
};

fn arp() -> Vec<u8> {
    eth().to([0xff; 6]).ether_type(ether::ARP).payload(&[0; 28]).build()
}

fn self_tests(lab: &Lab) -> Counters {
    counters::self_tests(&Pins::new(lab.pins())).unwrap()
}

fn seen(counters: &Counters) -> [u64; 2] {
    counters.direction.map(|half| half.seen.packets)
}

fn json(stats: &Stats) -> serde_json::Value {
    serde_json::from_str(&stats.to_string()).unwrap()
}

fn opened(lab: &Lab) -> u64 {
    json(&lab.stats())["flows"]["opened"].as_u64().unwrap()
}

/// The number of rounds in which a lab is quiet at least once.
const ROUNDS: usize = 10;

/// Returns every number of `pomguard stats` about traffic: totals, reasons, rows and flows.
fn numbers(stats: &Stats) -> String {
    let value = json(stats);
    ["totals", "reasons", "rows", "flows"].map(|part| value[part].to_string()).join("\n")
}

/// The rate of neighbours is used up at every moment. The start runs the programs on an ARP request, while
/// real requests are dropped by the rate limit.
#[test]
fn a_start_under_an_arp_flood_succeeds() {
    let Some(lab) = Lab::with_one_cable("a_start_under_an_arp_flood_succeeds") else { return };
    let settings = fs::read_to_string(lab.config()).unwrap();
    fs::write(lab.config(), format!("{settings}\n[packets.rates]\nneighbours = 4\n")).unwrap();
    let flood = [(); 3].map(|()| TrafficGenerator::start(&lab.peer, vec![arp()], 100_000));
    for _ in 0..5 {
        assert!(Daemon::start(&lab).stop().success());
    }
    drop(flood);
    let stats = lab.stats();
    assert!(stats.reason("rate-limited", "inbound", "drop") > 1_000, "the flood met its rate: {stats}");
    assert_eq!(stats.judged("inbound"), stats.total("inbound", "seen"), "{stats}");
    let counted = self_tests(&lab);
    assert_eq!(seen(&counted), [5, 5], "one each way for each start");
    for half in counted.direction {
        assert_eq!(half.judged[Reason::Arp.index()].packets, 5);
    }
}

#[test]
fn a_test_run_counts_apart_and_changes_no_flow() {
    let Some(lab) = Lab::with_one_cable("a_test_run_counts_apart_and_changes_no_flow") else { return };
    let _daemon = Daemon::start(&lab);
    assert!(opens(&lab.peer, SERVER, LISTED));
    let [xdp, tc] = Direction::ALL.map(|direction| Pinned::open(lab.pins(), direction));
    let ask = |flags| eth().ipv4(SERVER, PEER).tcp(40_000, LISTED_OUT).flags(flags);
    let answer = |packet: Packet| packet.mirrored().flags(SYN | ACK).build();
    let allowed = eth().ipv4(PEER, SERVER).tcp(40_000, LISTED).build();
    let denied = eth().ipv4(STRANGER, SERVER).tcp(40_000, LISTED).build();

    // The kernels of the lab send packets of their own now and then (ARP, MLD): one round without any is
    // enough, because a self-test that changed a number would change it in every round.
    let quiet = (0..ROUNDS).any(|_| {
        let (before, apart) = (numbers(&lab.stats()), seen(&self_tests(&lab)));
        for _ in 0..3 {
            assert!(xdp.tests(&allowed) && !xdp.tests(&denied) && xdp.tests(&arp()));
            assert!(tc.tests(&ask(SYN).build()) && tc.tests(&arp()));
            assert!(!xdp.tests(&answer(ask(SYN))), "the SYN of a self-test opened no flow");
        }
        let after = numbers(&lab.stats());
        let now = seen(&self_tests(&lab));
        assert_eq!([now[0] - apart[0], now[1] - apart[1]], [12, 6]);
        after == before
    });
    assert!(quiet, "self-tests change the numbers of traffic: {}", lab.stats());

    // The same frames by the guarded interface are traffic.
    let index = lab.server.link(INTERFACE).index().unwrap();
    let before = opened(&lab);
    lab.server
        .run(|| {
            assert!(tc.judges(index, &ask(SYN).build()) && xdp.judges(index, &answer(ask(SYN))));
            // A self-test neither ends the flow nor belongs to it.
            assert!(!xdp.tests(&ask(SYN).mirrored().flags(FIN | ACK).build()));
            assert!(xdp.judges(index, &ask(SYN).mirrored().flags(ACK).build()));
        })
        .unwrap();
    assert_eq!(opened(&lab) - before, 1);
}
