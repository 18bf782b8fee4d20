//! Readings for tests.

use pomguard_common::Direction;

use super::{
    metrics::DaemonState,
    snapshot::{
        AttachInfo, Capacity, Disposition, FlowKinds, FlowStats, ImageInForce, ReasonStats, RowStats,
        Snapshot, Totals,
    },
};
use crate::policy::{Mode, RowId};

/// The time of the reading: 23 November 2026, 00:00 UTC.
pub(crate) const NOW: u64 = 1_795_392_000;

pub(crate) fn row(id: &str, direction: Direction, ends: (&str, &str), ports: &str, packets: u64) -> RowStats {
    RowStats {
        id: RowId(id.to_owned()),
        direction,
        source: ends.0.to_owned(),
        destination: ends.1.to_owned(),
        ports: ports.to_owned(),
        live: true,
        failsafe: false,
        mode: Mode::Enforce,
        packets,
        bytes: packets * 640,
        connections: packets / 9,
        first_hit: (packets > 0).then_some(NOW - 400_000),
        last_hit: (packets > 0).then_some(NOW - 61),
    }
}

fn reason(name: &str, direction: Direction, verdict: Disposition, packets: u64) -> ReasonStats {
    ReasonStats { name: name.to_owned(), direction, verdict, packets, bytes: packets * 74, last: None }
}

/// Returns a reading of a busy server: two interfaces, rows with and without hits, one retired, one failsafe.
pub(crate) fn snapshot() -> Snapshot {
    use Direction::{Inbound, Outbound};
    let mut rows = vec![
        row("site/ssh-ops", Inbound, ("10.9.0.0/24", "pom1"), "22/tcp", 4_120),
        row("pom-4.0/1", Inbound, ("Agent Manager", "Campaign Manager"), "9995-9997/tcp", 18_446_744),
        row("pom-4.0/16", Inbound, ("Agent Desktop", "Agent Manager"), "17999/tcp", 1_204_771),
        row("pom-4.0/40", Inbound, ("POMCache, Multitenancy Service", "POMCache"), "47500-47520/tcp", 0),
        row(
            "pom-4.0/8",
            Outbound,
            ("Campaign Manager", "Experience Portal Manager"),
            "443, 9443/tcp",
            90_210,
        ),
        row("pom-3.1/7", Inbound, ("Kafka client", "Kafka"), "9092/tcp", 77),
    ];
    rows[0].failsafe = true;
    rows[3].mode = Mode::Audit;
    rows[5].live = false;
    let mut reasons = vec![
        reason("row", Inbound, Disposition::Pass, 19_651_515),
        reason("failsafe", Inbound, Disposition::Pass, 4_120),
        reason("own-flow", Inbound, Disposition::Pass, 88_002),
        reason("arp", Inbound, Disposition::Pass, 3_201),
        reason("port", Inbound, Disposition::Drop, 2_345),
        reason("port-known", Inbound, Disposition::Drop, 12),
        reason("source-known", Inbound, Disposition::Audit, 3),
        reason("tcp-flags", Inbound, Disposition::Audit, 41),
        reason("row", Outbound, Disposition::Pass, 90_210),
        reason("peer-flow", Outbound, Disposition::Pass, 17_002_118),
        reason("leaves-unlisted", Outbound, Disposition::Pass, 504),
    ];
    for (reason, age) in reasons.iter_mut().zip([1, 40, 7, 12, 3, 86_400, 7_200]) {
        reason.last = Some(NOW - age);
    }
    let totals = [Inbound, Outbound]
        .map(|direction| {
            let packets = |verdict: Disposition| -> u64 {
                reasons
                    .iter()
                    .filter(|r| r.direction == direction && r.verdict == verdict)
                    .map(|r| r.packets)
                    .sum()
            };
            let (passed, dropped, audited) =
                (packets(Disposition::Pass), packets(Disposition::Drop), packets(Disposition::Audit));
            Totals {
                direction,
                seen: passed + dropped + audited,
                seen_bytes: (passed + dropped + audited) * 640,
                passed: passed + audited,
                dropped,
                audited,
            }
        })
        .to_vec();
    Snapshot {
        host: "pom1".to_owned(),
        matrix: "pom-4.0".to_owned(),
        generation: 7,
        image: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".to_owned(),
        inbound: Mode::Enforce,
        outbound: Mode::Track,
        counting_since: NOW - 864_000,
        installed_at: NOW - 3_600,
        attach: vec![
            AttachInfo {
                interface: "eth0".to_owned(),
                ifindex: 2,
                xdp: "native".to_owned(),
                tc: "tcx".to_owned(),
                seen: 20_110_000,
            },
            AttachInfo {
                interface: "ens192".to_owned(),
                ifindex: 3,
                xdp: "generic".to_owned(),
                tc: "clsact".to_owned(),
                seen: 4_711,
            },
        ],
        rows,
        reasons,
        totals,
        flows: FlowStats {
            entries: 1_312,
            kinds: FlowKinds {
                tcp_opening: 2,
                tcp_established: 1_124,
                tcp_suspect: 1,
                tcp_closed: 90,
                udp_unanswered: 5,
                udp_answered: 80,
                icmp: 10,
            },
            capacity: 262_144,
            opened: 44_101,
            evicted: 0,
        },
        capacity: vec![
            Capacity { name: "tuples".to_owned(), used: 214, limit: 100_000 },
            Capacity { name: "rows".to_owned(), used: 5, limit: 4_096 },
            Capacity { name: "lines".to_owned(), used: 1_280, limit: 131_072 },
        ],
        differences: Vec::new(),
        since: None,
        since_change: None,
    }
}

/// Returns a reading of a server without any traffic.
pub(crate) fn quiet() -> Snapshot {
    let mut quiet = snapshot();
    quiet.inbound = Mode::Audit;
    quiet.reasons.clear();
    quiet.attach.truncate(1);
    for row in &mut quiet.rows {
        (row.packets, row.bytes, row.connections) = (0, 0, 0);
        (row.first_hit, row.last_hit) = (None, None);
    }
    for totals in &mut quiet.totals {
        (totals.seen, totals.seen_bytes) = (0, 0);
        (totals.passed, totals.dropped, totals.audited) = (0, 0, 0);
    }
    let kinds = FlowKinds::default();
    quiet.flows = FlowStats { entries: 0, kinds, capacity: 262_144, opened: 0, evicted: 0 };
    quiet
}

pub(crate) fn daemon() -> DaemonState {
    DaemonState {
        version: "0.1.0".to_owned(),
        attach_wanted: "auto".to_owned(),
        installed: Some(ImageInForce { image: snapshot().image, generation: 7 }),
        last_reload_success: Some(NOW - 3_600),
        last_reload_successful: true,
        flows_freed: 31,
        system_drops: [(("backup".to_owned(), Direction::Inbound, "drop"), 5)].into(),
        rollback_at: Some(NOW + 60),
        ..DaemonState::default()
    }
}
