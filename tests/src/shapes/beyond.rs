//! Shapes that no list of filter tests mentions: other destinations that the same host answers for, protocols
//! in protocols, and lengths that contradict each other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::packet::{Part, eth, ether, extension, flag::SYN};

use super::{KNOCKS, Making, knock};

/// MAC addresses of groups.
const ALL_STATIONS: [u8; 6] = [0xff; 6];
const ALL_HOSTS: [u8; 6] = [1, 0, 0x5e, 0, 0, 1];
const ALL_NODES: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// Protocols that carry a packet, or stand in front of one.
const CARRIERS: [(&str, u8); 9] = [
    ("IPv4", 4),
    ("IPv6", 41),
    ("GRE", 47),
    ("an authentication header", 51),
    ("an encrypted payload", 50),
    ("a mobility header", 135),
    ("a HIP header", 139),
    ("a Shim6 header", 140),
    ("MPLS in IP", 137),
];

/// UDP ports at which tunnels end.
const TUNNELS: [(&str, u16); 6] =
    [("VXLAN", 4_789), ("Geneve", 6_081), ("GTP", 2_152), ("Teredo", 3_544), ("L2TP", 1_701), ("GUE", 6_080)];

/// EtherTypes in front of an IP packet that a station might look through, and the bytes between.
const LINKS: [(&str, u16, &[u8]); 7] = [
    ("MPLS", 0x8847, &[0, 0, 0x01, 0x40]),
    ("MPLS, explicit null", 0x8847, &[0, 0, 0x01, 0xff]),
    ("PPPoE", 0x8864, &[0x11, 0, 0, 1, 0, 42, 0, 0x21]),
    ("MACsec", 0x88e5, &[0, 0, 0, 0, 0, 1]),
    ("provider backbone bridging", 0x88e7, &[0, 0, 0, 1]),
    ("an old tag of 9100", 0x9100, &[0, 0, 0x08, 0]),
    ("cut-through tagging", 0x8926, &[0, 0, 0x08, 0]),
];

/// Adds all shapes of this module.
pub(super) fn add(making: &mut Making) {
    destinations(making);
    sources(making);
    wrapped(making);
    lengths(making);
    if making.doors.to.is_ipv4() { icmp(making) } else { chains(making) }
}

/// Adds shapes to groups that every host belongs to, and to addresses that reach any host.
fn destinations(making: &mut Making) {
    let doors = making.doors;
    let groups: &[(&str, IpAddr, [u8; 6])] = match doors.to {
        IpAddr::V4(to) => {
            let [a, b, c, _] = to.octets();
            &[
                ("the limited broadcast address", Ipv4Addr::BROADCAST.into(), ALL_STATIONS),
                ("the subnet's broadcast address", Ipv4Addr::new(a, b, c, 255).into(), ALL_STATIONS),
                ("the subnet's own address", Ipv4Addr::new(a, b, c, 0).into(), ALL_STATIONS),
                ("all hosts", Ipv4Addr::new(224, 0, 0, 1).into(), ALL_HOSTS),
                ("no address", Ipv4Addr::UNSPECIFIED.into(), ALL_STATIONS),
                ("the loopback address", Ipv4Addr::LOCALHOST.into(), [2, 0, 0, 0, 0, 2]),
            ]
        }
        IpAddr::V6(_) => &[
            ("all nodes", Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into(), ALL_NODES),
            ("all nodes of the interface", Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0, 1).into(), ALL_NODES),
            ("no address", Ipv6Addr::UNSPECIFIED.into(), [2, 0, 0, 0, 0, 2]),
            ("the loopback address", Ipv6Addr::LOCALHOST.into(), [2, 0, 0, 0, 0, 2]),
        ],
    };
    for (whom, address, station) in groups {
        for (number, name) in KNOCKS.iter().enumerate() {
            for to in [*station, [2, 0, 0, 0, 0, 2]] {
                let how = if to == ALL_STATIONS || to[0] & 1 == 1 { "everybody's" } else { "one" };
                making.add(format!("{name}, to {whom} by {how} station"), |_, mark| {
                    vec![knock(number, &doors, eth().ip(doors.from, *address).to(to), mark)]
                });
            }
        }
    }
}

/// Adds shapes from sources that nobody has, or that are the host's own.
fn sources(making: &mut Making) {
    let doors = making.doors;
    let from: Vec<IpAddr> = match doors.to {
        IpAddr::V4(_) => vec![
            doors.to,
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv4Addr::BROADCAST.into(),
            Ipv4Addr::LOCALHOST.into(),
            Ipv4Addr::new(240, 0, 0, 1).into(),
            Ipv4Addr::new(224, 0, 0, 1).into(),
        ],
        IpAddr::V6(_) => vec![
            doors.to,
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::LOCALHOST.into(),
            Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into(),
            Ipv4Addr::new(10, 77, 0, 2).to_ipv6_mapped().into(),
            Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77).into(),
        ],
    };
    for source in from {
        for (number, name) in KNOCKS.iter().enumerate().take(4) {
            making.add(format!("{name}, from {source}"), |_, mark| {
                vec![knock(number, &doors, eth().ip(source, doors.to), mark)]
            });
        }
    }
}

/// Adds knocks inside another protocol.
fn wrapped(making: &mut Making) {
    let doors = making.doors;
    for (carrier, number) in CARRIERS {
        making.add(format!("a SYN in {carrier}"), |ip, mark| {
            let inner = knock(0, &doors, ip.clone(), mark).quoted();
            let header: &[u8] = match number {
                47 => &[0, 0, 0x08, 0],
                51 => &[6, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0],
                135 | 139 | 140 => &[6, 0, 0, 0, 0, 0, 0, 0],
                _ => &[],
            };
            let inner = if header.first() == Some(&6) { &inner[inner.len() - 20..] } else { &inner };
            vec![ip.protocol(number).payload(&[header, inner].concat())]
        });
    }
    for (tunnel, port) in TUNNELS {
        making.add(format!("a SYN in {tunnel}"), |ip, mark| {
            let inner = knock(0, &doors, ip.clone(), mark).build();
            vec![ip.udp(mark, port).payload(&[&[8, 0, 0, 0, 0, 0, 1, 0][..], &inner].concat())]
        });
    }
    for (link, number, between) in LINKS {
        making.add(format!("a SYN behind {link}"), |ip, mark| {
            let inner = knock(0, &doors, ip, mark).quoted();
            vec![eth().ether_type(number).payload(&[between, &inner].concat())]
        });
    }
    for (name, tagged) in [("LLC and SNAP", false), ("LLC, SNAP and a priority tag", true)] {
        making.add(format!("a SYN behind {name}"), |ip, mark| {
            let own = if ip.is_v6() { ether::IPV6 } else { ether::IPV4 };
            let mut llc = vec![0xaa, 0xaa, 3, 0, 0, 0];
            if tagged {
                llc.extend([0x81, 0, 0, 0]);
            }
            llc.extend(own.to_be_bytes());
            llc.extend(knock(0, &doors, ip, mark).quoted());
            vec![eth().ether_type(llc.len() as u16).payload(&llc)]
        });
    }
    for (name, kind) in
        [("the other family's EtherType", 0), ("loopback's EtherType", 0x9000), ("length 0", 1)]
    {
        making.add(format!("a SYN under {name}"), |ip, mark| {
            let other = if ip.is_v6() { ether::IPV4 } else { ether::IPV6 };
            vec![knock(0, &doors, ip, mark).ether_type(if kind == 0 { other } else { kind })]
        });
    }
}

/// Adds shapes with lengths that are below or above the truth, and ports that nobody has.
fn lengths(making: &mut Making) {
    let doors = making.doors;
    let headers: u16 = if doors.to.is_ipv4() { 20 } else { 0 };
    for announced in [0, 1, 19, 20, 21, 39, 40, 41, 60, 1_500, 65_535] {
        making.add(format!("a SYN of 20 bytes in an IP packet that says {announced}"), |ip, mark| {
            vec![ip.tcp(mark, doors.open).announcing(announced).pad(&[0; 20])]
        });
    }
    for first in [0x00, 0x40, 0x41, 0x44, 0x46, 0x4f, 0x55, 0x65, 0x75, 0xf5] {
        making.add(format!("a SYN behind a header that begins with {first:02x}"), |ip, mark| {
            vec![ip.tcp(mark, doors.open).poke(Part::Network, 0, &[first])]
        });
    }
    for words in (0..5).chain(6..16) {
        making.add(format!("a SYN whose header says {words} words"), |ip, mark| {
            vec![ip.tcp(mark, doors.open).poke(Part::Upper, 12, &[words << 4])]
        });
    }
    for length in [0_u16, 1, 7, 8, 9, 23, 25, 65_535] {
        making.add(format!("UDP of 24 bytes that says {length}"), |ip, mark| {
            vec![ip.udp(mark, doors.open).payload(&[7; 16]).poke(Part::Upper, 4, &length.to_be_bytes())]
        });
    }
    for kept in [0, 1, 4, 8, 12, 13, 19] {
        making.add(format!("a SYN of which {kept} bytes came"), |ip, mark| {
            let at = 14 + ip.quoted().len();
            vec![ip.tcp(mark, doors.open).announcing(headers + kept).truncate(at + usize::from(kept))]
        });
    }
    making.add("UDP without a checksum".to_owned(), |ip, mark| {
        vec![ip.udp(mark, doors.open).payload(&[7; 16]).poke(Part::Upper, 6, &[0, 0])]
    });
    making.add("a SYN to port 0".to_owned(), |ip, mark| vec![ip.tcp(mark, 0).flags(SYN)]);
    making.add("UDP to port 0".to_owned(), |ip, mark| vec![ip.udp(mark, 0).payload(&[7; 16])]);
    making.add("a SYN from port 0, marked by its number".to_owned(), |ip, mark| {
        vec![ip.tcp(0, doors.open).options(&[8, 10, (mark >> 8) as u8, mark as u8, 1, 1, 0, 0, 0, 0])]
    });
}

/// Adds ICMP requests other than the plain ones.
fn icmp(making: &mut Making) {
    for (name, kind, code) in [
        ("an echo request of code 1", 8, 1),
        ("an echo request of code 255", 8, 255),
        ("an extended echo request", 42, 0),
        ("a router solicitation", 10, 0),
        ("a traceroute message", 30, 0),
        ("a domain name request", 37, 0),
        ("an ICMPv6 echo request's type", 128, 0),
    ] {
        making.add(format!("{name} over IPv4"), |ip, mark| {
            vec![ip.icmp(kind, code).rest(u32::from(mark) << 16).payload(&[0; 24])]
        });
    }
    for protocol in [58, 1] {
        making.add(format!("a type 128 message of protocol {protocol}"), |ip, mark| {
            vec![ip.icmp(128, 0).protocol(protocol).rest(u32::from(mark) << 16).payload(&[0; 24])]
        });
    }
}

/// Adds chains of extension headers that are out of order, cut, or hide another address.
fn chains(making: &mut Making) {
    let doors = making.doors;
    let home = [&[0xc9, 16][..], &[0xfd, 0, 0, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]].concat();
    for (name, number, body) in [
        ("a home address", extension::DESTINATION, &home[..]),
        ("a jumbo option", extension::HOP_BY_HOP, &[0xc2, 4, 0, 1, 0, 0]),
        ("a CALIPSO option", extension::HOP_BY_HOP, &[7, 8, 0, 0, 0, 1, 0, 0, 0, 0]),
        ("an IOAM option", extension::HOP_BY_HOP, &[0x31, 2, 0, 0]),
        ("an option that ends beyond its header", extension::HOP_BY_HOP, &[1, 200]),
        ("a routing header of type 2 on its way", extension::ROUTING, &[2, 1]),
        ("a segment routing header on its way", extension::ROUTING, &[4, 1, 0, 0, 0, 0]),
        ("a source routing header of RPL on its way", extension::ROUTING, &[3, 1, 0, 0, 0, 0]),
        ("a routing header with 255 segments left", extension::ROUTING, &[9, 255]),
        ("a node with no next header", 59, &[]),
    ] {
        for (number_of_knock, knock_name) in KNOCKS.iter().enumerate().take(4) {
            making.add(format!("{knock_name}, behind {name}"), |ip, mark| {
                vec![knock(number_of_knock, &doors, ip.ext_header(number, body), mark)]
            });
        }
    }
    making.add("a SYN behind a hop-by-hop header that comes second".to_owned(), |ip, mark| {
        let ip = ip.ext_header(extension::DESTINATION, &[1, 4]).ext_header(extension::HOP_BY_HOP, &[1, 4]);
        vec![ip.tcp(mark, doors.open)]
    });
    making.add("a SYN behind two hop-by-hop headers".to_owned(), |ip, mark| {
        let ip = ip.ext_header(extension::HOP_BY_HOP, &[1, 4]).ext_header(extension::HOP_BY_HOP, &[1, 4]);
        vec![ip.tcp(mark, doors.open)]
    });
    making.add("a SYN whose extension header is longer than the packet".to_owned(), |ip, mark| {
        let ip = ip.ext_header(extension::DESTINATION, &[1, 4]);
        vec![ip.tcp(mark, doors.open).poke(Part::Network, 41, &[9])]
    });
    making.add("a SYN in a first fragment behind which headers follow".to_owned(), |ip, mark| {
        let ip = ip.fragment(u32::from(mark), 0, true).ext_header(extension::DESTINATION, &[1, 4]);
        let last = eth().ip(doors.from, doors.to).fragment(u32::from(mark), 32, false);
        vec![ip.tcp(mark, doors.open).payload(&[7; 4]), last.protocol(60).payload(&[7; 8])]
    });
    making.add("UDP in fragments that name two protocols".to_owned(), |ip, mark| {
        let whole = knock(2, &doors, ip, mark);
        let mut pieces = whole.cut(u32::from(mark), &[24]);
        if let Some(last) = pieces.pop() {
            pieces.push(last.protocol(6));
        }
        pieces
    });
    for (kind, name) in [(139, "a node information query"), (160, "an extended echo request")] {
        making.add(name.to_owned(), |ip, mark| {
            vec![ip.icmp(kind, 0).rest(u32::from(mark) << 16).payload(&[0; 24])]
        });
    }
    for number in [1, 2] {
        making.add(format!("IPv4's protocol {number} in IPv6"), |ip, mark| {
            vec![ip.icmp(8, 0).protocol(number).rest(u32::from(mark) << 16).payload(&[0; 24])]
        });
    }
}
