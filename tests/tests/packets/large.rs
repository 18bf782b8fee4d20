//! Frames of more than 65,535 bytes: TCP segments that the kernel holds in one packet (BIG TCP). The kernel's
//! test run accepts no frame of that size, so these tests run on the host; `daemon::large` sends real ones.

use pomguard_common::{
    Direction::{self, Inbound, Outbound},
    image::Barrier,
    packet::Packet as Frame,
    parse::{self, Link, Parsed},
    reason::Reason,
};
use pomguard_tests::{
    harness::{Effect, Subject as _},
    host_datapath::HostDatapath,
    oracle::Host,
    packet::{Packet, eth, extension, flag::ACK},
    random::Random,
    reference::{self, Places},
};

/// The largest value of a length field.
const LONGEST: usize = 65_535;

/// Returns a segment of an allowed connection.
fn call(places: &Places) -> Packet {
    eth().ip(places.stranger, places.host).tcp(40_000, 443).flags(ACK)
}

/// Returns the forms in which the kernel passes such packets, each with its smallest size of IP in bytes.
fn forms(packet: &Packet) -> Vec<(Packet, usize)> {
    let (least, jumbos) =
        if packet.is_v6() { (LONGEST + 41, &[false, true][..]) } else { (LONGEST + 1, &[false][..]) };
    let form = |&jumbo: &bool| (packet.clone().held_in_one(least, jumbo), least);
    jumbos.iter().map(form).collect()
}

/// Returns the decision code's effect of the frame, which must equal the oracle's.
fn reason(datapath: &mut HostDatapath, host: &mut Host, direction: Direction, frame: &[u8]) -> Effect {
    assert_eq!(datapath.read(frame), host.read(frame));
    let found = datapath.judge(direction, frame).expect("the frame runs");
    let wanted = host.judge(direction, frame).effect(datapath.in_force(), direction);
    assert_eq!(found, wanted, "{:02x?}", &frame[..80]);
    found
}

fn both() -> (HostDatapath, Host) {
    let datapath = HostDatapath::new(reference::policy()).expect("the policy compiles");
    (datapath, Host::new(reference::policy()))
}

#[test]
fn f07_segments_held_in_one_packet_are_judged_as_one() {
    let (mut datapath, mut host) = both();
    for places in Places::both() {
        let denied = eth().ip(places.stranger, places.host).tcp(40_000, 8_080).flags(ACK);
        for tags in 0..3 {
            let tagged = |packet: &Packet| (0..tags).fold(packet.clone(), |packet, _| packet.vlan(0));
            for (packet, _) in forms(&tagged(&call(&places))) {
                let frame = packet.build();
                assert_eq!(
                    reason(&mut datapath, &mut host, Inbound, &frame).reason,
                    Reason::Row,
                    "{tags} tags"
                );
                let frame = packet.mirrored().build();
                assert_eq!(reason(&mut datapath, &mut host, Outbound, &frame).reason, Reason::PeerFlow);
            }
            for (packet, _) in forms(&tagged(&denied)) {
                assert_eq!(reason(&mut datapath, &mut host, Inbound, &packet.build()).reason, Reason::NoFlow);
            }
        }
    }
}

/// IP-15, EH-11.
#[test]
fn f07_a_length_of_zero_counts_only_beyond_what_a_field_can_say() {
    let (mut datapath, mut host) = both();
    for places in Places::both() {
        for (packet, least) in forms(&call(&places)) {
            let whole = packet.build();
            // The length of one byte less fits the field. The jumbo option contradicts this frame, too.
            let cut = &whole[..14 + least - 1];
            assert_eq!(reason(&mut datapath, &mut host, Inbound, cut).reason, Reason::Malformed);
            let short = &whole[..200];
            assert_eq!(reason(&mut datapath, &mut host, Inbound, short).reason, Reason::Malformed);
            let longer = [&whole[..], &[0; 9]].concat();
            let jumbo = whole[14 + 6] == extension::HOP_BY_HOP && places.is_v6();
            let wanted = if jumbo { Reason::Malformed } else { Reason::Row };
            assert_eq!(reason(&mut datapath, &mut host, Inbound, &longer).reason, wanted);
        }
        // The kernel merges only TCP.
        let bytes = LONGEST + 100;
        let udp = eth().ip(places.resolver, places.host).udp(40_000, 53).held_in_one(bytes, false);
        assert_eq!(reason(&mut datapath, &mut host, Inbound, &udp.build()).reason, Reason::Malformed);
    }
    let v6 = Places::v6();
    let option = |body: &[u8]| {
        let packet = call(&v6).ext_header(extension::HOP_BY_HOP, body).held_in_one(LONGEST + 200, false);
        packet.build()
    };
    let payload = (LONGEST + 200 - 40) as u32;
    let jumbo = [&[0xc2, 4][..], &payload.to_be_bytes()].concat();
    assert_eq!(
        reason(&mut datapath, &mut host, Inbound, &option(&jumbo)).reason,
        Reason::Row,
        "as the kernel does"
    );
    for (what, body) in [
        ("no jumbo option", vec![1, 4, 0, 0, 0, 0]),
        ("another length", [&[0xc2, 4][..], &(payload - 1).to_be_bytes()].concat()),
        ("padding before the option", [&[1, 0][..], &jumbo, &[1, 2, 0, 0]].concat()),
    ] {
        let frame = option(&body);
        assert_eq!(reason(&mut datapath, &mut host, Inbound, &frame).reason, Reason::Malformed, "{what}");
    }
}

/// A frame that holds no segments, by the kernel's information.
struct One<'a>(&'a [u8]);

impl Frame for One<'_> {
    fn length(&self) -> u32 {
        self.0.length()
    }

    fn window<const N: usize>(&self, offset: u32) -> Option<&[u8; N]> {
        self.0.window(offset)
    }

    fn may_hold_segments(&self) -> bool {
        false
    }

    type Again<'b>
        = &'b Self
    where
        Self: 'b;

    fn again(&self) -> &Self {
        self
    }
}

/// A link without VLANs.
struct Plain;

impl Barrier for Plain {}

impl Link for Plain {
    fn serves_vlan(&self, _: u16) -> bool {
        false
    }
}

#[test]
fn f07_what_the_kernel_calls_no_segments_is_malformed() {
    for places in Places::both() {
        for (packet, _) in forms(&call(&places)) {
            let frame = packet.build();
            assert!(matches!(parse::frame(frame.as_slice(), &Plain), Parsed::Datagram(_)));
            assert_eq!(parse::frame(&One(&frame), &Plain), Parsed::Drop(Reason::Malformed));
        }
    }
}

/// Any byte of the headers may be changed, and the end may be anywhere near the limit.
#[test]
fn large_frames_are_read_as_the_naive_reading_does() {
    let (datapath, host) = both();
    let mut random = Random(7);
    let mut lengths = 0;
    for places in Places::both() {
        for (packet, least) in forms(&call(&places)) {
            let whole = packet.pad(&[7; 64]).build();
            for _ in 0..3_000 {
                let mut frame = whole[..14 + least - 32 + random.below(96)].to_vec();
                for _ in 0..random.below(3) {
                    frame[12 + random.below(80)] = random.below(256) as u8;
                }
                let read = datapath.read(&frame);
                assert_eq!(read, host.read(&frame), "{:02x?}", &frame[..100]);
                lengths += usize::from(matches!(read, Parsed::Datagram(seen) if seen.end > 65_535 + 14));
            }
        }
    }
    assert!(lengths > 1_000, "{lengths} were read to an end beyond any length field");
}
