//! The published disposition of every class of packet: the content of docs/packets.md, with frames that show
//! each entry. The document is written from this table, and the tests try the table on the loaded programs.

use std::net::IpAddr;

use pomguard::policy::{Direction, Mode, PacketSettings, Policy};
use pomguard_common::reason::Reason;

use crate::{packet::Packet, reference::Places};

mod addresses;
mod icmp;
mod link;
mod network;
mod others;
mod render;
mod transport;
mod trial;

pub use self::{render::document, trial::Trial};

/// Makes an example frame in one address family.
type Make = fn(&Places) -> Packet;

/// A section of the document.
#[derive(Debug)]
pub struct Section {
    pub(self) title: &'static str,
    /// The text before the table, and the text after it.
    pub(self) notes: [&'static str; 2],
    /// The rows of the table.
    pub classes: Vec<Class>,
}

/// A class of packets: a row of a table.
#[derive(Clone, Debug)]
pub struct Class {
    /// Description of the packets.
    pub packet: &'static str,
    /// The text of the inbound and outbound cell, if it replaces the outcomes.
    reads: [Option<&'static str>; 2],
    /// The dispositions of the packets.
    pub outcomes: Vec<Outcome>,
}

/// The disposition of a packet in one direction, under a condition.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Direction of the packet.
    pub direction: Direction,
    /// The condition; empty for always.
    when: &'static str,
    /// The reason under which the packet is counted.
    pub reason: Reason,
    /// The reason under which the packet is counted in audit, if different.
    pub audited: Option<Reason>,
    /// The setting other than the defaults.
    pub set: Option<Set>,
    /// The packets before this packet.
    pub before: Vec<(Direction, Make)>,
    /// An example packet.
    pub packet: Make,
    /// Limits the outcome to one address family: `Some(true)` for IPv6.
    family: Option<bool>,
}

/// A setting of the operator.
#[derive(Clone, Copy, Debug)]
pub struct Set {
    /// The description of the setting in the cell.
    message: &'static str,
    /// The key of the setting in `[packets]`, if any.
    key: Option<&'static str>,
    /// Applies the setting to a policy.
    pub apply: fn(&mut Policy),
}

impl Outcome {
    /// Returns the address families of the outcome, each as the addresses that take part.
    pub fn families(&self) -> impl Iterator<Item = Places> {
        let family = self.family;
        Places::both().into_iter().filter(move |places| family.is_none_or(|v6| v6 == places.is_v6()))
    }
}

const fn class(packet: &'static str) -> Class {
    Class { packet, reads: [None, None], outcomes: Vec::new() }
}

impl Class {
    fn outcome(mut self, direction: Direction, when: &'static str, reason: Reason, packet: Make) -> Self {
        let (audited, set, before, family) = (None, None, Vec::new(), None);
        self.outcomes.push(Outcome { direction, when, reason, audited, set, before, packet, family });
        self
    }

    fn inbound(self, when: &'static str, reason: Reason, packet: Make) -> Self {
        self.outcome(Direction::Inbound, when, reason, packet)
    }

    fn outbound(self, when: &'static str, reason: Reason, packet: Make) -> Self {
        self.outcome(Direction::Outbound, when, reason, packet)
    }

    /// Adds the same outcome inbound and outbound. `packet` makes the inbound packet, `mirror` the outbound
    /// one.
    fn both(self, when: &'static str, reason: Reason, packet: Make, mirror: Make) -> Self {
        self.inbound(when, reason, packet).outbound(when, reason, mirror)
    }

    /// Adds the same outcome in both directions for a frame that has no direction.
    fn each_way(self, reason: Reason, packet: Make) -> Self {
        self.both("", reason, packet, packet)
    }

    fn last(mut self, change: impl Fn(&mut Outcome)) -> Self {
        self.outcomes.last_mut().into_iter().for_each(change);
        self
    }

    /// Puts an inbound packet before the last outcome.
    fn after_inbound(self, packet: Make) -> Self {
        self.last(|it| it.before.push((Direction::Inbound, packet)))
    }

    /// Puts an outbound packet before the last outcome.
    fn after_outbound(self, packet: Make) -> Self {
        self.last(|it| it.before.push((Direction::Outbound, packet)))
    }

    /// Sets the reason under which audit counts the last outcome.
    fn audited_as(self, reason: Reason) -> Self {
        self.last(|it| it.audited = Some(reason))
    }

    /// Sets the setting of the last outcome.
    fn with(self, set: Set) -> Self {
        self.last(|it| it.set = Some(set))
    }

    /// Sets the setting of the last two outcomes.
    fn both_with(mut self, set: Set) -> Self {
        self.outcomes.iter_mut().rev().take(2).for_each(|it| it.set = Some(set));
        self
    }

    /// Limits all outcomes to IPv4.
    fn v4(mut self) -> Self {
        self.outcomes.iter_mut().for_each(|it| it.family = Some(false));
        self
    }

    /// Limits all outcomes to IPv6.
    fn v6(mut self) -> Self {
        self.outcomes.iter_mut().for_each(|it| it.family = Some(true));
        self
    }

    /// Sets the text of both cells; the outcomes are examples of it.
    fn reads(mut self, cell: &'static str) -> Self {
        self.reads = [Some(cell), Some(cell)];
        self
    }

    /// Sets the text of the outbound cell.
    fn reads_outbound(mut self, cell: &'static str) -> Self {
        self.reads[1] = Some(cell);
        self
    }
}

macro_rules! sets {
    ($($name:ident $message:literal $key:expr, $apply:expr;)+) => {
        $(const $name: Set = Set { message: $message, key: $key, apply: $apply };)+
    };
}

sets! {
    VLANS "when `vlans` lists the id" Some("vlans"), |policy| policy.packets.vlans = vec![5];
    NO_LINK_CONTROL "with `link_control` off" Some("link_control"), |policy| policy.packets.link_control = false;
    NO_DHCP "with `dhcp` off" Some("dhcp"), |policy| policy.packets.dhcp = false;
    NO_MEMBERSHIP "with `group_membership` off" Some("group_membership"),
        |policy| policy.packets.group_membership = false;
    NO_VRRP "with `vrrp` off" Some("vrrp"), |policy| policy.packets.vrrp = false;
    NO_ECHO_V6 "with `echo_v6` off" Some("echo_v6"), |policy| policy.packets.echo_v6 = false;
    REDIRECTS "with `redirects` on" Some("redirects"), |policy| policy.packets.redirects = true;
    TRACK "in track" None, |policy| policy.outbound = Mode::Track;
    FAILSAFE "when a failsafe row allows it" None, |policy| {
        policy.rows.iter_mut().for_each(|row| row.failsafe = true);
    };
}

/// Returns the default of a key of `[packets]`.
fn default_of(key: &str) -> String {
    let settings = serde_json::to_value(PacketSettings::default()).unwrap_or_default();
    match settings.get(key) {
        Some(serde_json::Value::Array(all)) if all.is_empty() => "none".to_owned(),
        Some(value) => value.to_string(),
        None => "missing".to_owned(),
    }
}

/// Returns the whole table.
#[must_use]
pub fn sections() -> Vec<Section> {
    vec![
        link::frames(),
        network::headers(),
        network::fragments(),
        addresses::addresses(),
        transport::tcp(),
        transport::udp(),
        icmp::v4(),
        icmp::v6(),
        others::protocols(),
    ]
}

/// The reasons under which no class of the table ends, each with the explanation: they need more than a
/// packet.
pub const BESIDES: [(Reason, &str); 9] = [
    (
        Reason::OwnMulticast,
        "inbound, at an interface in generic mode: a copy of what this host sent to a group, which the kernel hands back \
         to the group's members on this host. XDP sees it without an Ethernet header. It passes where its source is \
         an own address and its destination a group, and where the same bytes as an Ethernet frame of the wire go to \
         nobody. The EtherType of that frame is a part of the own address: the first two bytes of an IPv4 address, \
         the third group of an IPv6 one. Where Linux may take frames of that number, the copy stays dropped, as \
         `ethertype`: 0x0003 to 0x05ff, and what begins with 0x08, 0x22, 0x43, 0x60, 0x65, 0x80 to 0x9f, 0xda, 0xe0, \
         0xe1, 0xed or 0xfb. Private IPv4 addresses are not among them. In native mode the copy does not pass XDP",
    ),
    (
        Reason::NotLocalKnown,
        "inbound, from an address that the site file names: to an address that this machine has and the site file gives \
         to nobody",
    ),
    (Reason::Exception, "what a timed exception is about, where no row allows it"),
    (
        Reason::Grace,
        "TCP without SYN that nothing is known of, while the grace period of a first start holds",
    ),
    (
        Reason::NoPolicy,
        "there is no policy in the kernel: every packet, in every mode, but for failsafe tuples, ARP, neighbour \
         discovery and link control",
    ),
    (Reason::FlowTableFull, "what would open a flow outbound, when there is no room to remember it"),
    (
        Reason::RateLimited,
        "ARP and neighbour discovery, ICMPv6 echo requests that no row names, ICMP errors about flows: \
         those that come in oftener than `[packets.rates]` says, counted by each processor for itself in quarters \
         of a second. Errors that tell a path's MTU have a rate of their own. None of these classes admits a \
         fragment, so a rate covers all that its class lets in",
    ),
    (
        Reason::Isolated,
        "lockdown: every packet, in every mode, but for failsafe tuples and what the link needs",
    ),
    (Reason::Internal, "a look-up that cannot fail; it should stay at zero"),
];

#[expect(clippy::expect_used, reason = "the addresses are written in the table")]
fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
