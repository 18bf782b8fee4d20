//! Impossible addresses, and addresses that are not this host's.

use pomguard_common::reason::Reason;

use super::{
    Section, TRACK, address, class,
    link::{allowed, ask},
};
use crate::{
    packet::{Packet, eth},
    reference::Places,
};

/// Returns a packet from another source to a served port.
fn from(places: &Places, v4: &str, v6: &str) -> Packet {
    eth().ip(address(if places.is_v6() { v6 } else { v4 }), places.host).tcp(40_000, 443)
}

/// Returns a packet to another destination, which a row for any address would allow.
fn to(places: &Places, v4: &str, v6: &str) -> Packet {
    eth().ip(places.host, address(if places.is_v6() { v6 } else { v4 })).udp(40_000, 53)
}

/// Returns a packet from a stranger to another destination than this host.
fn past(places: &Places, v4: &str, v6: &str) -> Packet {
    eth().ip(places.stranger, address(if places.is_v6() { v6 } else { v4 })).udp(40_000, 53)
}

pub(super) fn addresses() -> Section {
    let classes = vec![
        class(
            "source 0/8, 127/8, 224/4 and above; ::1, ::/96, ff00::/8; 6to4 or NAT64 (64:ff9b::/96) around \
             an IPv4 address that is not global",
        )
        .inbound("", Reason::SpoofedSource, |at| from(at, "127.0.0.1", "::1"))
        .inbound("", Reason::SpoofedSource, |at| from(at, "0.1.2.3", "::7"))
        .inbound("", Reason::SpoofedSource, |at| from(at, "224.0.0.1", "ff02::1"))
        .inbound("", Reason::SpoofedSource, |at| from(at, "255.255.255.255", "2002:a00:1::1"))
        .inbound("", Reason::SpoofedSource, |at| from(at, "240.0.0.1", "64:ff9b::c0a8:1"))
        .outbound("", Reason::SourceNotOurs, |at| from(at, "127.0.0.1", "::1").mirrored().mirrored())
        .reads("drop `spoofed-source`")
        .reads_outbound("drop `source-not-ours`"),
        class("source is one of this host's own addresses")
            .inbound("", Reason::SpoofedSource, |at| eth().ip(at.host, at.host).tcp(443, 443))
            .outbound("", Reason::Row, ask)
            .reads_outbound("goes on"),
        class("source `::`")
            .inbound(
                "for services of the link (duplicate address detection, MLD)",
                Reason::Neighbour,
                newborn,
            )
            .inbound("otherwise", Reason::SpoofedSource, |at| from(at, "0.0.0.0", "::"))
            .outbound("for services of the link", Reason::Neighbour, newborn)
            .outbound("otherwise", Reason::SourceNotOurs, |at| from(at, "0.0.0.0", "::"))
            .v6(),
        class("IPv4-mapped IPv6 address, source or destination")
            .both(
                "",
                Reason::MappedAddress,
                |at| from(at, "", "::ffff:10.9.0.7"),
                |at| to(at, "", "::ffff:10.9.2.7"),
            )
            .v6(),
        class("source not one of this host's")
            .inbound("", Reason::Row, allowed)
            .outbound("", Reason::SourceNotOurs, |at| eth().ip(at.elsewhere, at.database).tcp(40_000, 5_432))
            .reads("goes on")
            .reads_outbound(
                "drop `source-not-ours`, but for services of the link from a link-local address or from none",
            ),
        class("destination multicast or broadcast")
            .inbound("unless it is a service of the link", Reason::Broadcast, |at| {
                past(at, "224.0.0.251", "ff02::fb")
            })
            .inbound("", Reason::Broadcast, |at| past(at, "255.255.255.255", "ff0e::1"))
            .outbound("", Reason::Destination, |at| to(at, "224.0.0.251", "ff02::fb"))
            .outbound("", Reason::Untracked, |at| to(at, "255.255.255.255", "ff02::fb"))
            .with(TRACK)
            .reads("drop `broadcast`, unless it is a service of the link")
            .reads_outbound(
                "services of the link pass; no row matches, not even one for anywhere: drop `destination`; \
                 pass `leaves-unlisted` in track",
            ),
        class("destination loopback, or another that cannot be a source")
            .inbound("", Reason::NotLocal, |at| past(at, "127.0.0.1", "::1"))
            .outbound("", Reason::Destination, |at| to(at, "127.0.0.1", "::1"))
            .outbound("", Reason::Untracked, |at| to(at, "240.0.0.1", "::7"))
            .with(TRACK),
        class(
            "destination not one of this host's (also a subnet's broadcast address, and a link-local address \
             that the site file does not list)",
        )
        .inbound("unless it is a service of the link", Reason::NotLocal, |at| {
            eth().ip(at.office, at.elsewhere).tcp(40_000, 443)
        })
        .inbound("unless it is a service of the link", Reason::NotLocal, |at| {
            past(at, "10.9.0.255", "fe80::2")
        })
        .outbound("", Reason::Row, ask)
        .reads("drop `not-local`, unless it is a service of the link")
        .reads_outbound("goes on"),
        class("own address, in a broadcast or multicast frame")
            .inbound("", Reason::Broadcast, |at| allowed(at).to([0xff; 6]))
            .inbound("", Reason::Broadcast, |at| allowed(at).to([1, 0, 0x5e, 0, 0, 1]))
            .reads("drop `broadcast`")
            .reads_outbound(""),
    ];
    let after = "This host's addresses are those that the site file gives it, and those of\n\
        [policy.md](policy.md#this-hosts-own-addresses). At an address that nobody has, failsafe rows, timed exceptions \
        and services\nof the link hold as well.";
    Section { title: "Addresses", notes: ["", after], classes }
}

/// Returns a neighbour solicitation for duplicate address detection.
fn newborn(_: &Places) -> Packet {
    eth().ip(address("::"), address("ff02::1:ff00:2")).hops(255).icmp(135, 0).payload(&[0; 16])
}
