//! Interfaces: drivers, offloads, relations, and programs of others.

use super::{Finding, Severity};
use crate::kernel::doctor::{Link, MachineFacts};

/// MTU in bytes that every driver with native XDP was seen to accept in one page (virtio_net 3506, igb above
/// 3000).
const NATIVE_MTU: u32 = 3_000;
/// Drivers without native XDP in any kernel up to 6.12, for kernels that do not report the feature (before
/// 6.3).
const WITHOUT_NATIVE: [&str; 9] =
    ["tg3", "bnx2x", "be2net", "e1000", "e1000e", "iavf", "idpf", "team", "macvlan"];
/// Drivers whose native mode loses the program (docs/kernel-support.md).
const LOSES_NATIVE: &str = "vmxnet3";
/// The number of frames in a receive ring below which bursts are lost.
const SMALL_RING: u32 = 256;

/// Returns findings about the interfaces.
pub(super) fn judge(machine: &MachineFacts, interfaces: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in interfaces {
        if !machine.links.iter().any(|link| link.name == *name) {
            findings.push(Finding::new(
                Severity::Attention,
                name,
                "The settings name this interface, and there is none: pomguard waits for it.",
                "ip link",
            ));
        }
    }
    for link in &machine.links {
        let guarded = interfaces.contains(&link.name);
        if guarded || interfaces.is_empty() {
            whole(link, machine, &mut findings);
        } else {
            outside(link, interfaces, &mut findings);
        }
    }
    findings
}

/// Adds findings about an interface that pomguard guards, or could guard.
fn whole(link: &Link, machine: &MachineFacts, findings: &mut Vec<Finding>) {
    if !link.ethernet {
        findings.push(Finding::new(
            Severity::Note,
            &link.name,
            "Its frames are no Ethernet, so pomguard cannot guard it: guard the interface that carries it.",
            format!("ip -details link show {}", link.name),
        ));
        return;
    }
    native(link, findings);
    offloads(link, findings);
    relations(link, machine, findings);
    foreign(link, findings);
}

/// Adds findings about an interface that the settings do not name.
fn outside(link: &Link, interfaces: &[String], findings: &mut Vec<Finding>) {
    let covered = |name: &String| interfaces.contains(name);
    let by_relation = link.controller.iter().any(covered) || link.below.iter().any(covered);
    if link.up && link.ethernet && !by_relation && !link.container && !link.above.iter().any(covered) {
        findings.push(Finding::new(
            Severity::Attention,
            &link.name,
            "It is up, and the settings do not name it: nothing is enforced here.",
            "grep interfaces /etc/pomguard/pomguard.toml",
        ));
    }
}

fn native(link: &Link, findings: &mut Vec<Finding>) {
    let driver = link.driver.as_deref().unwrap_or("unknown");
    let show = format!("ethtool -i {}", link.name);
    let mode = |severity, sentence: String| Finding::new(severity, &link.name, sentence, show.clone());
    let lro = link.features.is_some_and(|features| features.lro);
    findings.push(if driver == LOSES_NATIVE {
        mode(
            Severity::Note,
            format!("Driver {driver} loses a native program when the card resets, so generic mode is used."),
        )
    } else if link.native == Some(false) || (link.native.is_none() && WITHOUT_NATIVE.contains(&driver)) {
        mode(Severity::Note, format!("Driver {driver} has no native XDP: generic mode costs more for each packet."))
    } else if link.mtu > NATIVE_MTU && link.driver.is_some() {
        Finding::new(
            Severity::Attention,
            &link.name,
            format!(
                "An MTU of {} bytes may be more than driver {driver} takes in native mode (about {NATIVE_MTU}).",
                link.mtu
            ),
            format!("ip link set dev {} mtu 1500", link.name),
        )
    } else if lro {
        Finding::new(
            Severity::Attention,
            &link.name,
            format!("Driver {driver} merges segments (LRO), and refuses native XDP meanwhile."),
            format!("ethtool -K {} lro off", link.name),
        )
    } else if link.native == Some(true) {
        mode(Severity::Good, format!("Driver {driver} takes native XDP programs."))
    } else {
        mode(Severity::Note, format!("This kernel does not tell whether driver {driver} takes native XDP: a start tries."))
    });
}

fn offloads(link: &Link, findings: &mut Vec<Finding>) {
    if link.features.is_some_and(|features| features.strips_vlan) && link.kind.is_none() {
        findings.push(Finding::new(
            Severity::Note,
            &link.name,
            "The card takes VLAN tags out before pomguard sees them, so `vlans` has no effect on tagged frames.",
            format!("ethtool -K {} rxvlan off", link.name),
        ));
    }
    if let Some(queues) = link.queues {
        let (now, most) = queues.ring;
        if now > 0 && now < SMALL_RING && most > now {
            findings.push(Finding::new(
                Severity::Note,
                &link.name,
                format!("A receive ring holds {now} frames, of {most} at most: the card may lose bursts."),
                format!("ethtool -G {} rx {most}", link.name),
            ));
        }
        let (now, most) = queues.receive;
        if now == 1 && most > 1 {
            findings.push(Finding::new(
                Severity::Note,
                &link.name,
                format!("One queue receives, of {most} at most: one processor judges all packets."),
                format!("ethtool -L {} combined {most}", link.name),
            ));
        }
    }
}

fn relations(link: &Link, machine: &MachineFacts, findings: &mut Vec<Finding>) {
    let show = format!("ip -details link show {}", link.name);
    let note = |sentence: String| Finding::new(Severity::Note, &link.name, sentence, show.clone());
    let kind = link.kind.as_deref();
    if let Some(controller) = &link.controller {
        let above = machine.links.iter().find(|other| other.name == *controller);
        let sort = above.and_then(|link| link.kind.as_deref()).unwrap_or("device");
        findings.push(note(format!(
            "It is a member of the {sort} {controller}: name either the {sort} or all its members, not both."
        )));
    }
    if let Some(below) = &link.below {
        let sort = kind.unwrap_or("device");
        findings.push(note(format!(
            "It is a {sort} on {below}: packets pass {below} first, and a guard there sees them too."
        )));
    }
    if !link.above.is_empty() {
        let sort = kind.unwrap_or("interface");
        findings.push(note(format!("This {sort} carries {}.", link.above.join(", "))));
    }
    if link.container {
        findings.push(note(
            "Its other end is in another network namespace: it belongs to a container.".to_owned(),
        ));
    }
    if kind == Some("team") {
        findings.push(Finding::new(
            Severity::Note,
            &link.name,
            "The team driver takes no native XDP: name the team, in generic mode, or use a bond.",
            show,
        ));
    }
}

fn foreign(link: &Link, findings: &mut Vec<Finding>) {
    let Some(foreign) = &link.foreign else { return };
    if let Some(id) = foreign.xdp {
        findings.push(Finding::new(
            Severity::Attention,
            &link.name,
            format!("XDP program {id} of somebody else is attached: pomguard refuses this interface."),
            format!("bpftool prog show id {id}"),
        ));
    }
    if !foreign.tcx.is_empty() {
        let ids: Vec<String> = foreign.tcx.iter().map(u32::to_string).collect();
        findings.push(Finding::new(
            Severity::Attention,
            &link.name,
            format!("TCX programs of somebody else ({}) see what leaves as well.", ids.join(", ")),
            format!("bpftool net show dev {}", link.name),
        ));
    }
    let (inward, outward) = foreign.clsact;
    if inward + outward > 0 {
        let hook = if outward > 0 { "egress" } else { "ingress" };
        findings.push(Finding::new(
            Severity::Attention,
            &link.name,
            format!("TC filters of somebody else: {inward} on the way in, {outward} on the way out."),
            format!("tc filter show dev {} {hook}", link.name),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::doctor::{CardQueues, Features, ForeignPrograms};

    fn card(name: &str) -> Link {
        Link {
            name: name.to_owned(),
            index: 2,
            ethernet: true,
            up: true,
            mtu: 1500,
            driver: Some("igb".to_owned()),
            native: Some(true),
            ..Link::default()
        }
    }

    fn judged(link: Link) -> Vec<Finding> {
        judge(&MachineFacts { root: true, links: vec![link], ..MachineFacts::default() }, &[])
    }

    #[test]
    fn plain_card_is_good() {
        let findings = judged(card("eth0"));
        assert_eq!(findings.len(), 1, "{findings:#?}");
        assert_eq!(findings[0].severity, Severity::Good);
    }

    #[test]
    fn each_obstacle_to_native_mode_is_told_with_a_command() {
        let lro = Some(Features { lro: true, strips_vlan: false });
        for (link, severity, words, command) in [
            (
                Link { driver: Some("vmxnet3".to_owned()), ..card("a") },
                Severity::Note,
                "loses",
                "ethtool -i a",
            ),
            (Link { native: Some(false), ..card("b") }, Severity::Note, "no native", "ethtool -i b"),
            (
                Link { native: None, driver: Some("e1000e".to_owned()), ..card("c") },
                Severity::Note,
                "no native",
                "ethtool -i c",
            ),
            (Link { mtu: 9000, ..card("d") }, Severity::Attention, "9000", "ip link set dev d mtu 1500"),
            (Link { features: lro, ..card("e") }, Severity::Attention, "LRO", "ethtool -K e lro off"),
            (Link { native: None, ..card("f") }, Severity::Note, "does not tell", "ethtool -i f"),
        ] {
            let findings = judged(link);
            assert_eq!(findings[0].severity, severity, "{findings:#?}");
            assert!(findings[0].sentence.contains(words), "{words}: {findings:#?}");
            assert_eq!(findings[0].command, command);
        }
    }

    #[test]
    fn everything_of_somebody_else_is_told() {
        let foreign = ForeignPrograms { xdp: Some(5), tcx: vec![6, 7], clsact: (1, 0) };
        let features = Some(Features { lro: false, strips_vlan: true });
        let queues = Some(CardQueues { receive: (1, 8), ring: (128, 4096) });
        let findings = judged(Link { foreign: Some(foreign), features, queues, ..card("eth0") });
        for words in ["XDP program 5", "(6, 7)", "1 on the way in", "VLAN tags", "128 frames", "One queue"] {
            assert!(findings.iter().any(|it| it.sentence.contains(words)), "{words}: {findings:#?}");
        }
    }

    #[test]
    fn interfaces_alongside_those_of_the_settings_are_open() {
        let member = Link { controller: Some("bond0".to_owned()), ..card("eth0") };
        let bond = Link { kind: Some("bond".to_owned()), above: vec!["eth0".to_owned()], ..card("bond0") };
        let machine = MachineFacts { links: vec![member, bond, card("eth9")], ..MachineFacts::default() };
        let findings = judge(&machine, &["bond0".to_owned(), "gone0".to_owned()]);
        let open: Vec<_> = findings
            .iter()
            .filter(|it| it.severity == Severity::Attention)
            .map(|it| it.subject.as_str())
            .collect();
        assert_eq!(open, ["gone0", "eth9"], "{findings:#?}");
    }
}
