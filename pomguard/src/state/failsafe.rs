//! The policy of the failsafe rows alone, out of a confirmed policy.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use pomguard_common::{Direction, control::Override, counter::RowLabel, image::Family, protocol};

use super::confirmed::Confirmed;
use crate::{
    input::Settings,
    policy::{
        MachineAddresses, MatrixName, Mode, Origin, OwnAddresses, Peer, Policy, PortRange, Row, RowId,
        Service,
    },
};

/// The host of a policy that belongs to no host of the site file. No host can have this name.
pub const UNIDENTIFIED: &str = "(unidentified)";

impl Confirmed {
    /// Returns the policy that has the failsafe rows of this policy and no other row, at the addresses of the machine. The
    /// modes stay, `settings` decide about packet classes.
    #[must_use]
    pub fn only_failsafe(&self, settings: &Settings) -> Policy {
        let mut lines: BTreeMap<(u16, u8), Vec<&Override>> = BTreeMap::new();
        for line in self.overrides.iter().filter(|line| line.marks & Override::EXCEPTION == 0) {
            lines.entry((line.row, line.marks & Override::OUTBOUND)).or_default().push(line);
        }
        let label = |slot: u16| self.labels.iter().find(|(of, _)| *of == slot).map(|(_, label)| label);
        let rows = lines.iter().map(|((slot, _), lines)| row(*slot, lines, label(*slot))).collect();
        Policy {
            host: UNIDENTIFIED.to_owned(),
            matrix: MatrixName { id: self.about.matrix.clone(), title: self.about.matrix.clone() },
            local: Vec::new(),
            shared: Vec::new(),
            own_addresses: OwnAddresses::Machine,
            machine: MachineAddresses::default(),
            inbound: self.mode(Direction::Inbound),
            outbound: self.mode(Direction::Outbound),
            rows,
            known: Vec::new(),
            packets: settings.packets.clone(),
            flows: settings.flows.clone(),
        }
    }
}

/// Returns the row of a counter slot, out of its lines in the table of overrides.
fn row(slot: u16, lines: &[&Override], label: Option<&RowLabel>) -> Row {
    let text = |of: fn(&RowLabel) -> &[u8]| {
        let bytes = label.map(of).unwrap_or_default();
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    };
    let id = Some(text(|label| &label.id)).filter(|id| !id.is_empty());
    let origin = Origin { file: "the saved policy".into(), line: 1 };
    let peers: BTreeSet<IpNet> = lines.iter().filter_map(|line| prefix(line)).collect();
    let services: BTreeSet<Service> = lines.iter().map(|line| service(line)).collect();
    let has_ports = lines.iter().any(|line| ports(line.protocol));
    let client_ports =
        lines.first().filter(|_| has_ports).map_or(PortRange::ANY, |it| range(it.client_ports));
    let outbound = lines.first().is_some_and(|line| line.marks & Override::OUTBOUND != 0);
    Row {
        id: RowId(id.unwrap_or_else(|| format!("site/failsafe-{slot}"))),
        direction: if outbound { Direction::Outbound } else { Direction::Inbound },
        source: vec![text(|label| &label.source).into()],
        destination: vec![text(|label| &label.destination).into()],
        printed: text(|label| &label.ports),
        protocol: String::new(),
        peers: peers
            .into_iter()
            .map(|prefix| Peer { prefix, name: prefix.to_string().into(), origin: origin.clone() })
            .collect(),
        client_ports,
        services: services.into_iter().collect(),
        mode: Mode::Enforce,
        failsafe: true,
        purpose: String::new(),
        origin,
    }
}

/// Returns the prefix of a line; `None` if the line has no valid prefix.
fn prefix(line: &Override) -> Option<IpNet> {
    let bits = |words: [u32; 4]| words.iter().fold(0, |bits: u128, word| bits << 32 | u128::from(*word));
    let length = u8::try_from(bits(line.mask).leading_ones()).ok()?;
    let peer = bits(line.peer);
    if line.marks & !(Override::OUTBOUND | Override::EXCEPTION) == Family::V4 as u8 {
        Ipv4Net::new(((peer >> 96) as u32).into(), length).ok().map(IpNet::V4)
    } else {
        Ipv6Net::new(peer.into(), length).ok().map(IpNet::V6)
    }
}

fn service(line: &Override) -> Service {
    let ports = if ports(line.protocol) { range(line.ports) } else { PortRange::ANY };
    Service { protocol: line.protocol, ports }
}

/// Returns true if rows of the protocol name ports.
const fn ports(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP)
}

const fn range(ports: u32) -> PortRange {
    PortRange { first: ports as u16, last: (ports >> 16) as u16 }
}

#[cfg(test)]
mod tests {
    use pomguard_common::image::{HEAD, Line};

    use super::*;
    use crate::{
        compile::{SlotTable, labels, overrides},
        input::Draft,
        policy::resolve,
        state::confirmed::About,
    };

    const SETTINGS: &str = "site = \"site.toml\"\nhost = \"pom1\"\ninterfaces = [\"eth0\"]\n";
    const SITE: &str = r#"matrix = "pom-4.0"
zones = 1

[[host]]
name = "pom1"
addresses = ["10.20.0.11", "fd00::11"]
systems = ["Agent Manager"]

[[allow]]
name = "way-in"
from = ["10.9.0.0/24", "10.9.1.7", "fd00:9::/48"]
to = ["every-host"]
ports = "22, 2200-2202"
protocol = ["tcp", "udp"]
failsafe = true

[[allow]]
name = "ping"
from = ["10.9.0.0/24"]
to = ["every-host"]
protocol = "icmp"
failsafe = true

[[allow]]
name = "time"
from = ["every-host"]
to = ["10.9.2.1"]
ports = "123"
source_ports = "100-123"
protocol = "udp"
failsafe = true
"#;

    /// Returns the lines of a policy's failsafe rows without their counter slots, sorted.
    fn lines(policy: &Policy) -> Vec<String> {
        let slots = SlotTable::assign(&[], policy).unwrap();
        let lines = overrides(policy, &slots).unwrap().into_iter();
        let mut lines: Vec<String> = lines.map(|line| format!("{:?}", Override { row: 0, ..line })).collect();
        lines.sort();
        lines
    }

    #[test]
    fn policy_of_the_failsafe_rows_has_the_lines_of_the_saved_one() {
        let draft = Draft::from_texts(("pomguard.toml", SETTINGS), ("site.toml", SITE)).unwrap();
        let policy = resolve(&draft, &[]).unwrap();
        let slots = SlotTable::assign(&[], &policy).unwrap();
        let confirmed = Confirmed {
            about: About {
                host: "pom1".to_owned(),
                matrix: "pom-4.0".to_owned(),
                since: 1,
                settings: SETTINGS.to_owned(),
                identity: None,
                change: None,
            },
            labels: labels(&policy, &slots),
            overrides: overrides(&policy, &slots).unwrap(),
            lines: vec![Line::ZERO; HEAD as usize + 1],
        };
        let only = confirmed.only_failsafe(&draft.settings);
        assert_eq!(lines(&only), lines(&policy));
        assert_eq!(lines(&only).len(), 3 * 2 * 2 + 1 + 1);
        let ids: BTreeSet<&str> = only.rows.iter().map(|row| row.id.0.as_str()).collect();
        assert_eq!(ids, BTreeSet::from(["site/way-in", "site/ping", "site/time"]));
        assert!(only.local.is_empty() && only.rows.iter().all(|row| row.failsafe));
    }
}
