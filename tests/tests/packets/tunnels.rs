//! Tunnels: the programs do not look at the packets inside.

use pomguard::policy::{Direction, PortRange};
use pomguard_common::{protocol::UDP, reason::Reason};
use pomguard_tests::{
    packet::eth,
    reference::{self, Places, row},
};

use crate::case::{case, run, run_under};

/// Tunnels in UDP: their ports, and the header before the inner frame or packet.
const TUNNELS: [(&str, u16, &[u8]); 4] = [
    ("VXLAN", 4_789, &[8, 0, 0, 0, 0, 0, 5, 0]),
    ("Geneve", 6_081, &[0, 0, 0x65, 0x58, 0, 0, 5, 0]),
    ("GTP-U", 2_152, &[0x30, 0xff, 0, 60, 0, 0, 0, 1]),
    ("WireGuard", 51_820, &[4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
];

#[test]
fn a_tunnel_in_udp_is_judged_by_its_own_addresses_and_port() {
    let mut cases = Vec::new();
    for places in Places::both() {
        // The inner packet goes to a denied port and has an impossible source: nobody looks.
        let inner = eth().ip(places.host, places.host).tcp(40_000, 22);
        for (name, port, header) in TUNNELS {
            let carried = [header, &inner.build()].concat();
            let packet = |peer| eth().ip(peer, places.host).udp(40_000, port).payload(&carried);
            cases.push(
                case("UD-13", format!("{name} at a port that a row names"))
                    .inbound(&packet(places.resolver), Reason::Row)
                    .row("tunnels")
                    .outbound(&packet(places.resolver).mirrored(), Reason::PeerFlow),
            );
            cases.push(
                case("UD-13", format!("{name} of somebody else"))
                    .inbound(&packet(places.stranger), Reason::Source)
                    .outbound(&packet(places.stranger).mirrored(), Reason::Destination),
            );
        }
    }
    let mut policy = reference::policy();
    for (_, port, _) in TUNNELS {
        let peers = ["10.9.1.0/24", "fd00:9:1::/64"];
        let mut tunnel = row("tunnels", Direction::Inbound, &peers, UDP, PortRange::one(port));
        match policy.rows.iter_mut().find(|it| it.id == tunnel.id) {
            Some(first) => first.services.append(&mut tunnel.services),
            None => policy.rows.push(tunnel),
        }
    }
    run_under("a_tunnel_in_udp_is_judged_by_its_own_addresses_and_port", policy, &cases);
    let mut unlisted = Vec::new();
    for places in Places::both() {
        for (name, port, header) in TUNNELS {
            // The inner packet would be allowed.
            let inner = eth().ip(places.resolver, places.host).udp(40_000, 53);
            let carried = [header, &inner.build()].concat();
            let packet = eth().ip(places.resolver, places.host).udp(40_000, port).payload(&carried);
            let says = format!("{name} at a port that no row names");
            unlisted.push(case("UD-13", says).inbound(&packet, Reason::PortKnown));
        }
    }
    run("a_tunnel_in_udp_is_judged_by_its_own_addresses_and_port", &unlisted);
}

/// SCTP has ports, which no row can name: a row for SCTP covers all of them, and the reader of the site file
/// refuses a row with ports (`input/tests.rs`).
#[test]
fn a_row_for_sctp_is_for_all_its_ports_and_for_nothing_else() {
    const SCTP: u8 = 132;
    let mut policy = reference::policy();
    policy.rows.push(row(
        "sctp",
        Direction::Inbound,
        &["10.9.1.0/24", "fd00:9:1::/64"],
        SCTP,
        PortRange::ANY,
    ));
    let mut cases = Vec::new();
    for places in Places::both() {
        for port in [22_u16, 443, 3_868] {
            let chunk = [&40_000_u16.to_be_bytes()[..], &port.to_be_bytes(), &[0; 24]].concat();
            let from = |peer| eth().ip(peer, places.host).protocol(SCTP).payload(&chunk);
            cases.push(
                case("UD-11", format!("SCTP to port {port}"))
                    .inbound(&from(places.resolver), Reason::Row)
                    .row("sctp")
                    .outbound(&from(places.resolver).mirrored(), Reason::PeerFlow)
                    .inbound(&from(places.stranger), Reason::Protocol)
                    .inbound(&from(places.office), Reason::ProtocolKnown),
            );
        }
        let tcp = eth().ip(places.resolver, places.host).tcp(40_000, 3_868);
        let udp = eth().ip(places.resolver, places.host).udp(40_000, 3_868);
        cases.push(
            case("UD-11", "TCP and UDP under a row for SCTP")
                .inbound(&tcp, Reason::PortKnown)
                .inbound(&udp, Reason::PortKnown),
        );
    }
    run_under("a_row_for_sctp_is_for_all_its_ports_and_for_nothing_else", policy, &cases);
}
