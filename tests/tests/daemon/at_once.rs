//! Packets of one flow on several processors at the same instant.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use pomguard_common::Direction;
use pomguard_tests::{
    daemon::{Daemon, INTERFACE, LISTED_OUT, Lab, PEER, Pinned, SERVER},
    faults::{report, times},
    packet::{
        eth,
        flag::{ACK, SYN},
    },
};

use super::watch::metric;

/// The number of local ports that the server uses.
const PORTS: u32 = 60_000;

/// The frames that the programs judge on the three processors.
type Frames = [Vec<u8>; 3];

/// Returns the packets of a handshake from this port of the server: SYN and ACK outbound, SYN-ACK inbound.
fn handshake(port: u16) -> Frames {
    let ask = |flags| eth().ipv4(SERVER, PEER).tcp(port, LISTED_OUT).flags(flags);
    [ask(SYN).build(), ask(SYN | ACK).mirrored().build(), ask(ACK).build()]
}

/// No host sends its SYN and the next segment at the same instant. In this test both may enter the flow, and
/// the entry that is not used expires.
#[test]
fn tp_23_handshake_on_three_processors_loses_no_flow() {
    let name = "tp_23_handshake_on_three_processors_loses_no_flow";
    let Some(lab) = Lab::with_one_cable(name) else { return };
    let _daemon = Daemon::start(&lab);
    let rounds = times("POMGUARD_FAULT_HANDSHAKES", 20_000) as u32;
    let port = |round: u32| 1_024 + (round % PORTS) as u16;
    let before = metric(&lab, "pomguard_flows_opened_total");
    let (barrier, index) = (Barrier::new(3), lab.server.link(INTERFACE).index().unwrap());
    // Rounds in which the answer came first and was dropped, because no flow existed.
    let early = AtomicU32::new(0);
    let lost = thread::scope(|scope| {
        let judges = [0, 1, 2].map(|part: usize| {
            let (barrier, early) = (&barrier, &early);
            let program =
                Pinned::open(lab.pins(), if part == 1 { Direction::Inbound } else { Direction::Outbound });
            let judge = move || {
                let mut lost = 0_u32;
                for round in 0..rounds {
                    let frame = &handshake(port(round))[part];
                    barrier.wait();
                    let passed = program.judges(index, frame);
                    assert!(passed || part == 1, "what leaves is allowed by its row");
                    early.fetch_add(u32::from(!passed), Ordering::Relaxed);
                    barrier.wait();
                    // By now the flow exists, whatever came first, and the answer passes.
                    if part == 1 && !program.judges(index, frame) {
                        lost += 1;
                    }
                }
                lost
            };
            scope.spawn(|| lab.server.run(judge).unwrap())
        });
        judges.into_iter().map(|judge| judge.join().unwrap()).sum::<u32>()
    });
    let opened = metric(&lab, "pomguard_flows_opened_total") - before;
    let connections = u64::from(rounds.min(PORTS));
    report(&format!(
        "{rounds} handshakes on three processors at once: {lost} lost, {} entered twice, {} answers came first",
        opened - connections,
        early.load(Ordering::Relaxed)
    ));
    assert_eq!(lost, 0);
    // At most one entry for each processor that sends.
    assert!((connections..=2 * connections).contains(&opened), "{opened} of {connections}");
}
