//! VLAN tags that are in the packet's metadata, not in the packet: at TC the tags of packets that leave
//! through a VLAN interface, at XDP the tags that a card removes. A bridge produces both: it moves the tag of
//! a frame that comes in at one port into the metadata, and passes the metadata on when the frame leaves
//! through the other port.

use pomguard_netlab::{Namespace, Offload, Port, Veth};
use pomguard_tests::{
    daemon::{Daemon, INTERFACE, LISTED, LISTED_OUT, Lab, Stats, UNLISTED},
    faults::{Pair, Sender, THE_PEER, THE_SERVER, frames},
    packet::{Packet, eth, flag},
};

/// Makes the machine's interface a port of a bridge. Returns a sender into the other port.
fn bridge(lab: &Lab, machine: &Namespace) -> Sender {
    let bridge = machine.add_bridge("br9").unwrap();
    let (side, _) =
        Veth::connect((machine, &Port::new("side0")), (&lab.stranger, &Port::new("side1"))).unwrap();
    side.attach_to(&bridge).unwrap();
    machine.link(INTERFACE).attach_to(&bridge).unwrap();
    Sender::at_link(&lab.stranger, "side1")
}

/// Returns SYNs of both families behind a tag of VLAN 5, to an allowed port and to a denied one.
fn tagged(
    (from, to): (&Namespace, &Namespace),
    (source, destination): (Pair, Pair),
    ports: [u16; 2],
) -> Vec<Vec<u8>> {
    let syn = |from, to, port| -> Packet {
        let syn = eth().ip(from, to).tcp(40_000, port).flags(flag::SYN);
        syn.vlan(5)
    };
    frames(from, to, |from, to| ports.map(|port| syn(from, to, port)).to_vec())(source, destination)
}

fn sends(sender: &Sender, frames: &[Vec<u8>]) {
    assert!(frames.iter().all(|frame| sender.send(frame)), "nothing guards the stranger");
}

/// Returns the increase of each number.
fn since<const N: usize>(before: &Stats, after: &Stats, of: impl Fn(&Stats) -> [u64; N]) -> [u64; N] {
    let (old, new) = (of(before), of(after));
    std::array::from_fn(|at| new[at] - old[at])
}

#[test]
fn l2_11_outbound_frame_with_an_offloaded_tag_is_judged_inside() {
    let name = "l2_11_outbound_frame_with_an_offloaded_tag_is_judged_inside";
    let Some(lab) = Lab::with_one_cable(name) else { return };
    let _daemon = Daemon::start(&lab);
    let sender = bridge(&lab, &lab.server);
    let frames = tagged((&lab.server, &lab.peer), (THE_SERVER, THE_PEER), [LISTED_OUT, UNLISTED]);
    let before = lab.stats();
    sends(&sender, &frames);
    let after = lab.stats();
    let of = |stats: &Stats| {
        let reason = |name| stats.reason(name, "outbound", "drop");
        [stats.row("pom-4.0/6", "outbound", "connections"), reason("destination"), reason("vlan-unknown")]
    };
    assert_eq!(since(&before, &after, of), [2, 2, 0], "{after}");
}

/// XDP does not see such a tag, so nothing can report it; packets.md says so.
#[test]
fn l2_10_inbound_offloaded_tag_is_judged_as_untagged() {
    let name = "l2_10_inbound_offloaded_tag_is_judged_as_untagged";
    let Some(lab) = Lab::with_one_cable(name) else { return };
    let _daemon = Daemon::start(&lab);
    let sender = bridge(&lab, &lab.peer);
    let frames = tagged((&lab.peer, &lab.server), (THE_PEER, THE_SERVER), [LISTED, UNLISTED]);
    let of = |stats: &Stats| {
        let reason = |name| stats.reason(name, "inbound", "drop");
        [stats.row("pom-4.0/15", "inbound", "connections"), reason("port-known"), reason("vlan-unknown")]
    };
    for (control_state, expected) in [(true, [2, 2, 0]), (false, [0, 0, 4])] {
        lab.peer.link(INTERFACE).set_offload(Offload::TxVlan, control_state).unwrap();
        let before = lab.stats();
        sends(&sender, &frames);
        let after = lab.stats();
        assert_eq!(since(&before, &after, of), expected, "alongside: {control_state}: {after}");
    }
}
