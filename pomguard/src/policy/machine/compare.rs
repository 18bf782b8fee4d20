//! Compares the settings and the policy with the machine.

use std::{collections::BTreeSet, net::IpAddr};

use super::{Device, Listener, Machine};
use crate::{
    input::Settings,
    policy::{Direction, Policy, conflict::Note},
};

/// Most ports or names that one remark lists.
const LISTED: usize = 12;

/// Returns remarks about the machine under these settings and this policy.
#[must_use]
pub fn compare(settings: &Settings, policy: &Policy, machine: &Machine) -> Vec<Note> {
    let guarded: BTreeSet<&str> = settings.interfaces.iter().map(|at| at.value.as_str()).collect();
    let view = View { guarded, policy, machine };
    let mut notes = Vec::new();
    view.missing(settings, &mut notes);
    view.unguarded(&mut notes);
    view.answer_paths(&mut notes);
    view.vlans(&mut notes);
    view.stacked(&mut notes);
    view.containers(&mut notes);
    view.listeners(&mut notes);
    notes
}

/// Returns true if the subject of a remark is open or cut for as long as the remark is true.
#[must_use]
pub fn needs_attention(note: &Note) -> bool {
    matches!(
        note.kind,
        "unguarded-interface" | "open-interface" | "answer-path" | "vlan-unserved" | "vlan-offload"
    )
}

/// Returns true if an address is link-local.
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

struct View<'a> {
    guarded: BTreeSet<&'a str>,
    policy: &'a Policy,
    machine: &'a Machine,
}

fn note(kind: &'static str, message: String) -> Note {
    Note { kind, message, rows: Vec::new() }
}

/// Returns the first few items, and the number of the others.
fn listed<T: ToString>(items: &[T]) -> String {
    let shown = items.iter().take(LISTED).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match items.len().saturating_sub(LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

impl View<'_> {
    fn is_guarded(&self, device: &Device) -> bool {
        self.guarded.contains(device.name.as_str())
    }

    /// Returns true if every packet that arrives on the device passes a guard: of the device itself, or of each
    /// device below.
    fn is_covered(&self, device: &Device) -> bool {
        self.covers(device, &mut BTreeSet::new())
    }

    fn covers(&self, device: &Device, seen: &mut BTreeSet<u32>) -> bool {
        if self.is_guarded(device) {
            return true;
        }
        let mut below = self.machine.below(device).peekable();
        seen.insert(device.index) && below.peek().is_some() && below.all(|lower| self.covers(lower, seen))
    }

    fn missing(&self, settings: &Settings, notes: &mut Vec<Note>) {
        for at in settings.interfaces.iter().filter(|at| self.machine.device(&at.value).is_none()) {
            let message = format!(
                "{}: there is no interface {} here: it is waited for; `ip link` shows those there are",
                at.origin, at.value
            );
            notes.push(note("interface-missing", message));
        }
    }

    /// Notes interfaces that lead to this host and that nothing guards.
    fn unguarded(&self, notes: &mut Vec<Note>) {
        for device in self.machine.devices.iter().filter(|it| it.up && it.name != "lo") {
            let own: Vec<_> = device.addresses.iter().filter(|it| self.policy.local.contains(it)).collect();
            if self.is_covered(device) {
                continue;
            }
            if own.is_empty() && !device.default_route {
                open(device, notes);
                continue;
            }
            let mut why = Vec::new();
            if !own.is_empty() {
                why.push(format!("has {}", listed(&own)));
            }
            if device.default_route {
                why.push("has a default route".to_owned());
            }
            let remedy = if device.ethernet {
                "add it to `interfaces`"
            } else {
                "it is none of Ethernet and cannot be guarded: guard the interface below it"
            };
            let message = format!(
                "{} is up, {}, and is not guarded: what comes in by it is not filtered; {remedy}",
                device.name,
                why.join(" and ")
            );
            notes.push(note("unguarded-interface", message));
        }
    }

    /// Notes interfaces that nothing guards and by which replies leave.
    fn answer_paths(&self, notes: &mut Vec<Note>) {
        for device in self.machine.devices.iter().filter(|it| it.name != "lo" && !self.is_covered(it)) {
            let by = self.machine.paths.iter().filter(|(_, index)| *index == device.index);
            let peers: Vec<_> = by.map(|(address, _)| *address).collect();
            if peers.is_empty() {
                continue;
            }
            let message = format!(
                "what this server sends to {} leaves by {}, which is not guarded: it is neither judged nor counted, \
                 and answers to it find no flow where they come in by a guarded interface",
                listed(&peers),
                device.name
            );
            notes.push(note("answer-path", message));
        }
    }

    fn vlans(&self, notes: &mut Vec<Note>) {
        // The policy of the files does not know the machine yet. Ids beyond the room of an image are not served.
        let between: Vec<u16> = self.machine.vlans_between(&self.guarded).into_iter().collect();
        let served = self.policy.served_with(&between);
        for device in self.machine.devices.iter().filter(|it| it.up) {
            let Some(id) = device.vlan.filter(|id| !served.contains(id)) else { continue };
            let cards = self.machine.below(device).filter(|lower| self.is_guarded(lower));
            for card in cards {
                let message = format!(
                    "{} takes VLAN {id} from {}, and the guard there drops that VLAN: add {id} to `vlans` under \
                     [packets]",
                    device.name, card.name
                );
                notes.push(note("vlan-unserved", message));
            }
        }
        if served.is_empty() {
            return;
        }
        for device in self.machine.devices.iter().filter(|it| it.strips_vlan_tags && self.is_guarded(it)) {
            let message = format!(
                "{0} takes VLAN tags off before the guard sees a frame: `vlans` is idle there, and every VLAN is \
                 judged like none; `ethtool -K {0} rxvlan off` leaves the tags in",
                device.name
            );
            notes.push(note("vlan-offload", message));
        }
    }

    /// Notes devices above guarded devices, and guarded devices above others.
    fn stacked(&self, notes: &mut Vec<Note>) {
        for device in self.machine.devices.iter().filter(|it| self.is_guarded(it)) {
            for above in self.machine.above(device) {
                let message = match above.kind.as_str() {
                    "bridge" | "openvswitch" => format!(
                        "{} (bridge) stands on {}, which is guarded: virtual machines and containers behind it with \
                         addresses of their own are cut off there; guard {0} instead to let them talk",
                        above.name, device.name
                    ),
                    "macvlan" | "macvtap" | "ipvlan" | "ipvtap" => format!(
                        "{} ({}) stands on {}, which is guarded: an address of its own that is none of this host's \
                         is cut off",
                        above.name, above.kind, device.name
                    ),
                    "bond" | "team" => format!(
                        "{} is a member of {}, which is what has the addresses: name {1} in `interfaces`, and it is \
                         guarded whichever member carries a packet",
                        device.name, above.name
                    ),
                    _ => continue,
                };
                notes.push(note("stacked-interface", message));
            }
            let open: Vec<&str> = self
                .machine
                .below(device)
                .filter(|lower| device.kind == "bridge" && !self.is_guarded(lower))
                .map(|lower| lower.name.as_str())
                .collect();
            if !open.is_empty() {
                let message = format!(
                    "{} is guarded, and its ports are not ({}): what they hand to each other is not judged",
                    device.name,
                    listed(&open)
                );
                notes.push(note("bridge-ports", message));
            }
        }
    }

    fn containers(&self, notes: &mut Vec<Note>) {
        let of_containers = |it: &&Device| {
            // A bridge over a guarded card is named with its ports.
            let over_card = self.machine.below(it).any(|lower| self.is_guarded(lower));
            let bridge = it.kind == "bridge" && !it.addresses.is_empty() && !over_card;
            it.up && (it.leaves_namespace || bridge) && !self.is_covered(it)
        };
        let open = self.machine.devices.iter().filter(of_containers);
        let names: Vec<&str> = open.map(|device| device.name.as_str()).collect();
        if !names.is_empty() {
            let message = format!(
                "{} lead into containers and are not guarded: what containers send to this host is not filtered",
                listed(&names)
            );
            notes.push(note("container-interface", message));
        }
    }

    /// Notes ports that this server listens on and that no row allows.
    fn listeners(&self, notes: &mut Vec<Note>) {
        let reachable =
            |it: &&Listener| it.address.is_unspecified() || self.policy.local.contains(&it.address);
        let let_in = |it: &Listener| {
            let services = self.policy.rows_in(Direction::Inbound).filter(|row| !row.peers.is_empty());
            services
                .flat_map(|row| &row.services)
                .any(|service| service.protocol == it.protocol && service.ports.contains(it.port))
        };
        let closed: BTreeSet<(u16, u8)> = self
            .machine
            .listeners
            .iter()
            .filter(reachable)
            .filter(|it| !let_in(it))
            .map(|it| (it.port, it.protocol))
            .collect();
        if closed.is_empty() {
            return;
        }
        let ports: Vec<String> = closed
            .iter()
            .map(|(port, protocol)| format!("{port}/{}", if *protocol == 6 { "tcp" } else { "udp" }))
            .collect();
        let message = format!("this server listens on {}, and no row lets anybody in there", listed(&ports));
        notes.push(note("unlisted-listener", message));
    }
}

/// A card, or what stands on cards, that leads here though the site file gives this host no address there:
/// what comes in by it reaches every address of this host.
fn open(device: &Device, notes: &mut Vec<Note>) {
    let others: Vec<_> = device.addresses.iter().filter(|it| !is_link_local(**it)).collect();
    let is_card = matches!(device.kind.as_str(), "" | "veth" | "vlan" | "bond" | "team");
    if others.is_empty() || !is_card {
        return;
    }
    let message = format!(
        "{} is up, has {}, and is not guarded: whoever is there reaches every address of this host unfiltered; add \
         it to `interfaces`",
        device.name,
        listed(&others)
    );
    notes.push(note("open-interface", message));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::plain;

    fn device(index: u32, name: &str) -> Device {
        Device { index, name: name.to_owned(), up: true, ethernet: true, ..Device::default() }
    }

    /// Returns the kinds of the remarks about pom1, with these guarded interfaces, on a machine with these
    /// devices.
    fn said(interfaces: &str, vlans: &str, machine: &Machine) -> Vec<(&'static str, String)> {
        let text = format!("site = \"s\"\ninterfaces = [{interfaces}]\n[packets]\nvlans = [{vlans}]\n");
        let settings = Settings::parse("pomguard.toml", &text).unwrap();
        let draft = crate::input::Draft { settings, ..plain() };
        let policy = crate::policy::resolve(&draft, &["10.20.0.11".parse().unwrap()]).unwrap();
        let notes = compare(&draft.settings, &policy, machine);
        notes.into_iter().map(|note| (note.kind, note.message)).collect()
    }

    fn own() -> Vec<IpAddr> {
        vec!["10.20.0.11".parse().unwrap()]
    }

    #[test]
    fn machine_like_the_settings_says_nothing() {
        let eth0 = Device { addresses: own(), default_route: true, ..device(2, "eth0") };
        let machine = Machine { devices: vec![eth0, device(3, "eth1")], ..Machine::default() };
        assert_eq!(said("\"eth0\"", "", &machine), []);
    }

    #[test]
    fn interface_that_leads_here_unguarded_is_named() {
        let eth1 = Device { addresses: own(), ..device(3, "eth1") };
        let wg0 = Device { default_route: true, ethernet: false, ..device(4, "wg0") };
        let machine = Machine { devices: vec![device(2, "eth0"), eth1, wg0], ..Machine::default() };
        let found = said("\"eth0\", \"eth7\"", "", &machine);
        let kinds: Vec<&str> = found.iter().map(|(kind, _)| *kind).collect();
        let other = "192.0.2.7".parse().unwrap();
        let eth2 = Device { addresses: vec![other, "fe80::1".parse().unwrap()], ..device(5, "eth2") };
        let silent = Device { addresses: vec!["fe80::2".parse().unwrap()], ..device(6, "eth3") };
        let staging = Machine { devices: vec![device(2, "eth0"), eth2, silent], ..Machine::default() };
        let open = said("\"eth0\"", "", &staging);
        assert!(open.len() == 1 && open[0].0 == "open-interface", "{open:?}");
        assert!(open[0].1.starts_with("eth2 is up, has 192.0.2.7, and is not guarded"), "{open:?}");
        assert_eq!(kinds, ["interface-missing", "unguarded-interface", "unguarded-interface"], "{found:?}");
        assert!(
            found[0].1.contains("eth7") && found[1].1.contains("eth1 is up, has 10.20.0.11"),
            "{found:?}"
        );
        assert!(found[2].1.contains("wg0") && found[2].1.contains("none of Ethernet"), "{found:?}");
    }

    #[test]
    fn device_on_guarded_cards_is_covered_by_them() {
        let bridge = Device { addresses: own(), kind: "bridge".to_owned(), ..device(4, "br0") };
        let port = |index, name| Device { controller: Some(4), ..device(index, name) };
        let machine =
            Machine { devices: vec![port(2, "eth0"), port(3, "eth1"), bridge], ..Machine::default() };
        let kinds = |interfaces: &str| -> Vec<&str> {
            said(interfaces, "", &machine).into_iter().map(|(kind, _)| kind).collect()
        };
        assert_eq!(kinds("\"eth0\", \"eth1\""), ["stacked-interface"; 2]);
        assert_eq!(kinds("\"eth0\""), ["unguarded-interface", "stacked-interface"], "eth1 is open");
        assert_eq!(kinds("\"br0\""), ["bridge-ports"]);
    }

    #[test]
    fn vlan_that_the_guard_drops_or_cannot_see_is_named() {
        let vlan =
            |id| Device { below: Some(2), vlan: Some(id), kind: "vlan".to_owned(), ..device(3, "eth0.7") };
        let card = |strips| Device { strips_vlan_tags: strips, ..device(2, "eth0") };
        let machine = |id, strips| Machine { devices: vec![card(strips), vlan(id)], ..Machine::default() };
        let kinds = |vlans: &str, machine: &Machine| -> Vec<&str> {
            said("\"eth0\"", vlans, machine).into_iter().map(|(kind, _)| kind).collect()
        };
        assert_eq!(kinds("", &machine(7, true)), ["vlan-unserved"]);
        assert_eq!(kinds("7", &machine(7, true)), ["vlan-offload"]);
        assert!(kinds("7", &machine(7, false)).is_empty());
    }

    #[test]
    fn vlans_of_guarded_devices_beyond_the_room_are_named() {
        let above = |id: u16| Device {
            below: Some(2),
            vlan: Some(id),
            kind: "vlan".to_owned(),
            ..device(100 + u32::from(id), &format!("eth0.{id}"))
        };
        let of = |last| Machine {
            devices: std::iter::once(device(2, "eth0")).chain((1..=last).map(above)).collect(),
            ..Machine::default()
        };
        let unserved = |last: u16, vlans: &str| {
            let names: Vec<String> = (1..=last).map(|id| format!("\"eth0.{id}\"")).collect();
            let said = said(&format!("\"eth0\", {}", names.join(", ")), vlans, &of(last));
            said.into_iter()
                .filter(|(kind, _)| *kind == "vlan-unserved")
                .map(|(_, message)| message)
                .collect()
        };
        let none: Vec<String> = unserved(32, "");
        assert!(none.is_empty(), "{none:?}");
        let two: Vec<String> = unserved(33, "40");
        assert!(two.len() == 2 && two[0].contains("VLAN 32") && two[1].contains("VLAN 33"), "{two:?}");
    }

    #[test]
    fn container_listener_and_answer_path_are_named_in_a_line_each() {
        let veth =
            |index, name| Device { leaves_namespace: true, kind: "veth".to_owned(), ..device(index, name) };
        let listener = |port| Listener { protocol: 6, address: "0.0.0.0".parse().unwrap(), port };
        let machine = Machine {
            devices: vec![device(2, "eth0"), device(3, "eth1"), veth(4, "vetha"), veth(5, "vethb")],
            // Row 1 allows pom2 at port 9999, whatever port that row has.
            listeners: vec![listener(5_000), listener(5_001)],
            paths: vec![("10.20.0.12".parse().unwrap(), 3)],
        };
        let found = said("\"eth0\"", "", &machine);
        let kinds: Vec<&str> = found.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, ["answer-path", "container-interface", "unlisted-listener"], "{found:?}");
        assert!(
            found[1].1.contains("vetha, vethb") && found[2].1.contains("5000/tcp, 5001/tcp"),
            "{found:?}"
        );
    }
}
