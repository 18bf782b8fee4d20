//! Policies that alternate under full load: no packet sees a mixture of two.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};

use pomguard_tests::{
    daemon::{Daemon, Lab},
    faults::{
        Flows, Footprint, Leftovers, PacketCounter, Pair, THE_PEER, THE_SERVER, THE_STRANGER,
        TrafficGenerator, frames,
        policies::{BOTH, NEITHER, Policy},
        report, times,
    },
    packet::eth,
};

/// Packets a second of each of the four kinds.
const RATE: u32 = 5_000;

/// The number of changes after which a daemon has reached its final size.
const WARM: usize = 200;

/// Addresses that only the first policy allows, at [`ONES_PORT`].
const ONE: Pair = (Ipv4Addr::new(10, 77, 0, 4), Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 4));
/// Addresses that only the other policy allows, at [`OTHERS_PORT`].
const OTHER: Pair = (Ipv4Addr::new(10, 77, 0, 5), Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 5));
/// The port of [`ONE`].
const ONES_PORT: u16 = 20_011;
/// The port of [`OTHER`].
const OTHERS_PORT: u16 = 20_012;

fn allow(name: &str, from: Pair, port: u16) -> String {
    let (v4, v6) = from;
    format!(
        "[[allow]]\nname = \"{name}\"\nfrom = [\"{v4}\", \"{v6}\"]\nto = [\"server\"]\nports = \"{port}\"\n\
         protocol = \"udp\"\n"
    )
}

/// Writes a policy. Both policies contain the stranger's row. The site knows all other addresses, so that a
/// drop of the stranger's packet would have a reason of its own.
fn write(lab: &Lab, policy: Policy) {
    let known: Vec<String> =
        [ONE, OTHER].iter().flat_map(|(v4, v6)| [v4.to_string(), v6.to_string()]).collect();
    let (own, from, port) = match policy {
        Policy::One => ("one", ONE, ONES_PORT),
        Policy::Other => ("other", OTHER, OTHERS_PORT),
    };
    lab.write_site(&format!(
        "[[peer]]\naddresses = {known:?}\nsystems = [\"WFO\"]\n{}{}{}",
        allow("both", THE_STRANGER, BOTH),
        allow(own, from, port),
        allow("turn", THE_PEER, policy.port()),
    ));
}

/// FL-09; and FL-15, as far as a test of some minutes can show it.
#[test]
fn policy_changes_drop_no_common_allow_and_pass_no_common_deny() {
    let name = "policy_changes_drop_no_common_allow_and_pass_no_common_deny";
    let Some(lab) = Lab::new(name) else { return };
    let changes = times("POMGUARD_FAULT_CHANGES", 1_000);
    write(&lab, Policy::One);
    // Every port has a listener. A closed port would answer with an ICMP error, which is rightly dropped if
    // the policy that allowed the quoted packet is no longer in force.
    let ports = [BOTH, ONES_PORT, OTHERS_PORT, Policy::One.port(), Policy::Other.port()];
    let _listeners =
        ports.map(|port| lab.server.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap()));
    let daemon = Daemon::start(&lab);
    let before = lab.stats();

    let udp = |from: Pair, port| {
        frames(&lab.peer, &lab.server, move |from, to| vec![eth().ip(from, to).udp(40_003, port)])(
            from, THE_SERVER,
        )
    };
    let counter = |from, port| PacketCounter::new(&lab.server, from, Some(port));
    // A mixture would know the address of one policy and the port of the other.
    let neither = [(THE_PEER, NEITHER), (ONE, OTHERS_PORT), (OTHER, ONES_PORT)];
    let turns = [
        (THE_PEER, Policy::One.port()),
        (THE_PEER, Policy::Other.port()),
        (ONE, ONES_PORT),
        (OTHER, OTHERS_PORT),
    ];
    let mut both_ear = counter(THE_STRANGER, BOTH);
    let mut neither_ears = neither.map(|(from, port)| counter(from, port));
    let mut turn_ears = turns.map(|(from, port)| counter(from, port));
    let flows = Flows::open(&lab, 64);
    let all = |kinds: &[(Pair, u16)]| kinds.iter().flat_map(|&(from, port)| udp(from, port)).collect();
    let both = TrafficGenerator::start(&lab.peer, udp(THE_STRANGER, BOTH), RATE);
    let denied = TrafficGenerator::start(&lab.peer, all(&neither), RATE);
    let turning = TrafficGenerator::start(&lab.peer, all(&turns), 2 * RATE);

    let (mut policy, mut warm) = (Policy::One, None);
    for change in 1..=changes {
        policy = policy.next();
        write(&lab, policy);
        let status = daemon.reload();
        assert!(!status.contains("refused"), "change {change}: {status}");
        if change == changes.min(WARM) {
            warm = Some(Footprint::of(&daemon, &lab));
        }
    }
    let grown = Footprint::of(&daemon, &lab).assert_flat(&warm.unwrap(), "FL-15, after all changes");
    let (both, denied, turning) = (both.stop(), denied.stop(), turning.stop());
    let fared = flows.close();

    let after = lab.stats();
    let changed = after.generation() - before.generation();
    assert_eq!(changed, changes as u64);
    let passed = both_ear.heard();
    assert_eq!(after.row("site/both", "inbound", "packets"), passed, "each that was judged arrived: {after}");
    assert!(passed > 0 && passed <= both, "{passed} of {both}");
    for (reason, packets) in after.drops("inbound") {
        assert!(reason.ends_with("-known"), "{packets} that both allow were dropped as {reason}: {after}");
    }
    for ((from, port), counter) in neither.iter().zip(&mut neither_ears) {
        assert_eq!(counter.heard(), 0, "{from:?} reached {port}, which neither policy allows");
    }
    for ((from, port), counter) in turns.iter().zip(&mut turn_ears) {
        let heard = counter.heard();
        assert!(heard > 0 && heard < turning, "{from:?} reached {port} {heard} times of {turning}");
    }
    assert!(fared.lost.is_empty(), "{:?}", fared.lost);
    assert_eq!(after.total("outbound", "dropped"), 0, "{after}");
    Leftovers::of(&lab).assert_whole("after all changes");
    report(&format!(
        "{changes} changes under load: 0 dropped of {passed} that both policies allow, 0 passed of {denied} that \
         neither allows, {turning} that take turns, 0 of {} flows lost ({} words), {grown}",
        fared.flows, fared.words
    ));
}
