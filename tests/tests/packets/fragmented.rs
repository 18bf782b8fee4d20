//! Fragmented datagrams: fragments that come twice, that overlap, that come in floods or over several VLANs.
//! `daemon/fragments.rs` tests how the host treats fragments that contradict each other.

use std::net::IpAddr;

use pomguard::policy::{PacketSettings, Policy};
use pomguard_common::{
    Direction, limits,
    protocol::{TCP, UDP},
    reason::Reason,
};
use pomguard_tests::{
    host_datapath::HostDatapath,
    packet::{Packet, eth, extension, flag::ACK},
    reference::{self, Places},
};

use crate::case::{case, run, run_under};

/// Returns the first 24 bytes of a longer datagram to port 53.
fn head(source: IpAddr, destination: IpAddr) -> Packet {
    eth().ip(source, destination).fragment(7, 0, true).udp(40_000, 53).payload(&[1; 16])
}

/// Returns a later fragment of this datagram.
fn follower(source: IpAddr, destination: IpAddr, offset: u16, more: bool) -> Packet {
    eth().ip(source, destination).fragment(7, offset, more).protocol(UDP).payload(&[2; 16])
}

#[test]
fn a_piece_that_comes_twice_passes_twice() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let Places { host, resolver, stranger, .. } = places;
        let first = head(resolver, host);
        let (middle, last) = (follower(resolver, host, 24, true), follower(resolver, host, 40, false));
        cases.push(
            case("FR-07", "each piece of an allowed datagram, twice")
                .inbound(&first, Reason::Row)
                .row("A3")
                .inbound(&first, Reason::Row)
                .row("A3")
                .inbound(&middle, Reason::Fragment)
                .inbound(&middle, Reason::Fragment)
                .inbound(&last, Reason::Fragment)
                .inbound(&last, Reason::Fragment),
        );
        cases.push(
            case("FR-07", "each piece of a denied one, twice")
                .inbound(&head(stranger, host), Reason::Source)
                .inbound(&head(stranger, host), Reason::Source)
                .inbound(&follower(stranger, host, 24, true), Reason::FragmentUnknown)
                .inbound(&follower(stranger, host, 24, true), Reason::FragmentUnknown),
        );
        cases.push(
            case("FR-07", "each piece of our answer, twice")
                .outbound(&first.clone().mirrored(), Reason::PeerFlow)
                .outbound(&first.mirrored(), Reason::PeerFlow)
                .outbound(&last.clone().mirrored(), Reason::Fragment)
                .outbound(&last.mirrored(), Reason::Fragment),
        );
    }
    run("a_piece_that_comes_twice_passes_twice", &cases);
}

#[test]
fn overlapping_fragments_pass_for_the_host_to_refuse() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let Places { host, resolver, .. } = places;
        let middle = follower(resolver, host, 24, true);
        let others = [
            ("in the same place", middle.clone().payload(&[9; 16])),
            ("over the end of the first", follower(resolver, host, 16, true).payload(&[9; 16])),
            ("over the header's last neighbour", follower(resolver, host, 8, true).payload(&[9; 8])),
            ("over all that follows", follower(resolver, host, 8, false).payload(&[9; 64])),
        ];
        for (says, other) in others {
            cases.push(
                case("FR-08", format!("a second piece {says}"))
                    .inbound(&head(resolver, host), Reason::Row)
                    .row("A3")
                    .inbound(&middle, Reason::Fragment)
                    .inbound(&other, Reason::Fragment)
                    .inbound(&head(resolver, host), Reason::Row)
                    .row("A3"),
            );
            cases.push(
                case("FR-08", format!("a second piece {says} of a denied one"))
                    .inbound(&head(places.stranger, host), Reason::Source)
                    .inbound(&other, Reason::FragmentUnknown),
            );
        }
        let denied = eth().ip(resolver, host).fragment(7, 0, true).udp(40_000, 54).payload(&[9; 16]);
        cases.push(
            case("FR-08", "a second first piece, to a denied port: it is judged for itself")
                .inbound(&head(resolver, host), Reason::Row)
                .row("A3")
                .inbound(&denied, Reason::PortKnown)
                .inbound(&middle, Reason::Fragment),
        );
        cases.push(
            case("FR-08", "a second first piece, to an allowed port: what follows is of it")
                .inbound(&denied, Reason::PortKnown)
                .inbound(&middle, Reason::FragmentUnknown)
                .inbound(&head(resolver, host), Reason::Row)
                .row("A3")
                .inbound(&middle, Reason::Fragment),
        );
    }
    // Ports after an extension header begin at an offset where a later fragment may begin: no host accepts
    // both.
    let Places { host, resolver, .. } = Places::v6();
    let chained = eth()
        .ip(resolver, host)
        .fragment(7, 0, true)
        .ext_header(extension::DESTINATION, &[1, 4])
        .udp(40_000, 53)
        .payload(&[1; 8]);
    cases.push(
        case("FR-08", "over the ports behind an extension header")
            .inbound(&chained, Reason::Row)
            .row("A3")
            .inbound(&follower(resolver, host, 8, false).payload(&[0, 9, 0, 54]), Reason::Fragment),
    );
    run("overlapping_fragments_pass_for_the_host_to_refuse", &cases);
}

#[test]
fn ipv6_fragments_share_the_fate_of_the_first() {
    let Places { host, stranger, elsewhere, .. } = Places::v6();
    let first = |port| eth().ip(stranger, host).fragment(0x0001_0007, 0, true).tcp(40_000, port);
    let first = |port, flags| first(port).flags(flags).payload(&[1; 4]);
    let later = |id, to| eth().ip(stranger, to).protocol(TCP).fragment(id, 24, false).payload(&[2; 16]);
    let cases = [
        case("FR-14", "a segment to an allowed port")
            .inbound(&first(443, ACK), Reason::Row)
            .row("A2")
            .inbound(&later(0x0001_0007, host), Reason::Fragment)
            .outbound(&first(443, ACK).mirrored(), Reason::PeerFlow)
            .outbound(&later(0x0001_0007, host).mirrored(), Reason::Fragment),
        case("FR-14", "a segment to a denied port")
            .inbound(&first(22, ACK), Reason::NoFlow)
            .inbound(&later(0x0001_0007, host), Reason::FragmentUnknown)
            .outbound(&first(22, ACK).mirrored(), Reason::UnsolicitedReply)
            .outbound(&later(0x0001_0007, host).mirrored(), Reason::FragmentUnknown),
        case("FR-14", "all 32 bits of the identification count")
            .inbound(&first(443, ACK), Reason::Row)
            .row("A2")
            .inbound(&later(7, host), Reason::FragmentUnknown)
            .inbound(&later(0x0002_0007, host), Reason::FragmentUnknown)
            .inbound(&later(0x0001_0007, elsewhere), Reason::NotLocal)
            .inbound(&later(0x0001_0007, host), Reason::Fragment),
    ];
    run("ipv6_fragments_share_the_fate_of_the_first", &cases);
}

/// The kernel does the same: it distinguishes datagrams by interface only for virtual routers.
#[test]
fn fragmented_datagram_spans_served_vlans_only() {
    let packets = PacketSettings { vlans: vec![5, 6], ..reference::policy().packets };
    let mut cases = Vec::new();
    for places in Places::both() {
        let Places { host, resolver, .. } = places;
        let (first, last) = (head(resolver, host), follower(resolver, host, 24, false));
        cases.push(
            case("FR-23", "a train on one VLAN that is served, its end on another")
                .inbound(&first.clone().vlan(5), Reason::Row)
                .row("A3")
                .inbound(&last.clone().vlan(5), Reason::Fragment)
                .inbound(&last.clone().vlan(6), Reason::Fragment),
        );
        cases.push(
            case("FR-23", "its end on a VLAN that is not served")
                .inbound(&first.vlan(5), Reason::Row)
                .row("A3")
                .inbound(&last.vlan(7), Reason::VlanUnknown),
        );
    }
    let policy = Policy { packets, ..reference::policy() };
    run_under("fragmented_datagram_spans_served_vlans_only", policy, &cases);
}

/// A million first fragments take a while in the kernel: `faults/tables.rs` sends tens of thousands there.
#[test]
fn million_first_fragments_leave_flows_and_the_newest_whole() {
    const HEADS: u32 = 1_000_000;
    /// The offset of the identification in a frame whose first extension header is the fragment header.
    const ID: usize = 14 + 40 + 4;
    let places = Places::v6();
    let mut datapath = HostDatapath::new(reference::policy()).expect("the policy compiles");
    let ask = eth().ip(places.host, places.database).tcp(40_000, 5_432);
    let answer = ask.clone().mirrored().flags(ACK).build();
    let reason = |datapath: &mut HostDatapath, direction, frame: &[u8]| {
        datapath.judge(direction, frame).expect("both ways agree").reason
    };
    assert_eq!(reason(&mut datapath, Direction::Outbound, &ask.build()), Reason::Row);
    let mut first = head(places.resolver, places.host).build();
    for id in 0..HEADS {
        first[ID..ID + 4].copy_from_slice(&id.to_be_bytes());
        assert_eq!(reason(&mut datapath, Direction::Inbound, &first), Reason::Row, "FR-13: first piece {id}");
    }
    let mut last = follower(places.resolver, places.host, 24, false).build();
    let mut follows = |id: u32| {
        last[ID..ID + 4].copy_from_slice(&id.to_be_bytes());
        reason(&mut datapath, Direction::Inbound, &last) == Reason::Fragment
    };
    assert!(follows(HEADS - 1), "FR-13: the newest train");
    let whole = (0..HEADS).filter(|&id| follows(id)).count();
    assert!(whole <= limits::FRAGMENTS, "FR-13: {whole} trains are remembered");
    assert_eq!(reason(&mut datapath, Direction::Inbound, &answer), Reason::OwnFlow, "FR-13: the flow");
}
