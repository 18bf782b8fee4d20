//! Other firewalls, which may drop packets that pomguard passed, and sockets that bypass both.

use super::{Finding, Severity};
use crate::kernel::doctor::{MachineFacts, Rules};

/// Returns findings about other software that decides over packets.
pub(super) fn judge(machine: &MachineFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &machine.rules {
        Some(rules) => judge_rules(rules, &mut findings),
        None if machine.root => findings.push(Finding::new(
            Severity::Note,
            "firewalls",
            "The rules of nftables could not be read: they may drop what pomguard passes.",
            "nft list ruleset",
        )),
        None => {}
    }
    for index in machine.xdp_sockets.iter().flatten() {
        let name = machine.links.iter().find(|link| link.index == *index).map(|link| link.name.as_str());
        let Some(name) = name else { continue };
        findings.push(Finding::new(
            Severity::Attention,
            name,
            "A process has an AF_XDP socket here: what it sends passes no filter of this host.",
            "ss --xdp --processes",
        ));
    }
    findings
}

fn judge_rules(rules: &Rules, findings: &mut Vec<Finding>) {
    if rules.firewalld {
        findings.push(Finding::new(
            Severity::Attention,
            "firewalld",
            "firewalld runs: what its zones do not allow is dropped after pomguard passed it.",
            "firewall-cmd --list-all-zones",
        ));
    }
    for chain in &rules.chains {
        // The chains of firewalld have a finding of their own already.
        if rules.firewalld && chain.table == "firewalld" {
            continue;
        }
        let why = if chain.drops_by_default {
            "drops what no rule of it accepts".to_owned()
        } else {
            format!("belongs to a table with {} rules that drop or reject", chain.dropping_rules)
        };
        findings.push(Finding::new(
            Severity::Attention,
            "nftables",
            format!(
                "Chain {} of {} {} ({}) {why}, even if pomguard passed it.",
                chain.name, chain.family, chain.table, chain.hook
            ),
            format!("nft list table {} {}", chain.family, chain.table),
        ));
    }
    if !rules.legacy.is_empty() {
        findings.push(Finding::new(
            Severity::Attention,
            "iptables",
            format!(
                "The older iptables has tables in use ({}): their rules come after pomguard.",
                rules.legacy.join(", ")
            ),
            "iptables-legacy-save",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::new(
            Severity::Good,
            "firewalls",
            "No other firewall drops what comes in or leaves.",
            "nft list ruleset",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::doctor::{Chain, Link};

    #[test]
    fn each_firewall_that_drops_is_named_once() {
        let chain = |table: &str, drops_by_default| Chain {
            family: "inet".to_owned(),
            table: table.to_owned(),
            name: "in".to_owned(),
            hook: "input".to_owned(),
            drops_by_default,
            dropping_rules: 2,
        };
        let rules = Rules {
            chains: vec![chain("filter", true), chain("firewalld", false), chain("own", false)],
            legacy: vec!["filter".to_owned()],
            firewalld: true,
        };
        let machine = MachineFacts { root: true, rules: Some(rules), ..MachineFacts::default() };
        let subjects: Vec<_> = judge(&machine).into_iter().map(|finding| finding.subject).collect();
        assert_eq!(subjects, ["firewalld", "nftables", "nftables", "iptables"]);
        let none = MachineFacts { root: true, rules: Some(Rules::default()), ..MachineFacts::default() };
        assert_eq!(judge(&none)[0].severity, Severity::Good);
        let unread = MachineFacts { root: true, ..MachineFacts::default() };
        assert_eq!(judge(&unread)[0].severity, Severity::Note);
        assert!(judge(&MachineFacts::default()).is_empty(), "others are told once that root is needed");
    }

    #[test]
    fn socket_past_the_filters_is_told_of_its_interface() {
        let link = Link { name: "eth1".to_owned(), index: 7, ..Link::default() };
        let machine =
            MachineFacts { links: vec![link], xdp_sockets: Some(vec![7, 9]), ..MachineFacts::default() };
        let findings = judge(&machine);
        assert_eq!(findings.len(), 1, "an interface of another namespace is not ours to judge");
        assert_eq!((findings[0].subject.as_str(), findings[0].severity), ("eth1", Severity::Attention));
    }
}
