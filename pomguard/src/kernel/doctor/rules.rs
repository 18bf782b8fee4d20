//! Rules of nftables (which firewalld and today's iptables use, too), and rules of the older iptables.

use std::{fs, path::Path, process::Command};

use serde::Deserialize;

/// Rules that may drop packets that pomguard passes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Chains on hooks that packets to or from this host pass.
    pub chains: Vec<Chain>,
    /// Tables of the older iptables, which nftables does not show.
    pub legacy: Vec<String>,
    /// True if firewalld runs.
    pub firewalld: bool,
}

/// One chain on a hook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Address family, such as `inet`.
    pub family: String,
    /// Name of the table.
    pub table: String,
    /// Name of the chain.
    pub name: String,
    /// The hook, such as `input`.
    pub hook: String,
    /// True if a packet that no rule accepts is dropped.
    pub drops_by_default: bool,
    /// Number of rules of the table that drop or reject.
    pub dropping_rules: usize,
}

/// Hooks that a packet to or from this host passes.
const HOOKS: [&str; 5] = ["ingress", "prerouting", "input", "output", "postrouting"];
/// The table that pomguard creates.
const OURS: &str = "pomguard_closed";

/// Reads the rules. Returns `None` if the rules cannot be read: without root, or if `nft` fails. Without the
/// program `nft` there may still be rules, so the result is `None` then, too.
pub(super) fn read() -> Option<Rules> {
    let legacy: Vec<String> = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let output = Command::new("nft").args(["--json", "list", "ruleset"]).output().ok()?;
    if !output.status.success() {
        return None;
    }
    let chains = chains(&output.stdout)?;
    Some(Rules { chains, legacy, firewalld: Path::new("/run/firewalld").exists() || has_firewalld() })
}

/// Returns true if systemd runs firewalld.
fn has_firewalld() -> bool {
    Command::new("systemctl")
        .args(["--quiet", "is-active", "firewalld"])
        .output()
        .is_ok_and(|output| output.status.success())
}

/// An object of `nft --json`.
#[derive(Deserialize)]
struct Entry {
    chain: Option<ChainEntry>,
    rule: Option<RuleEntry>,
}

#[derive(Deserialize)]
struct ChainEntry {
    family: String,
    table: String,
    name: String,
    hook: Option<String>,
    policy: Option<String>,
}

#[derive(Deserialize)]
struct RuleEntry {
    family: String,
    table: String,
    #[serde(default)]
    expr: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Entry>,
}

/// Returns the chains of a listing that can drop a packet.
fn chains(json: &[u8]) -> Option<Vec<Chain>> {
    let listing: Listing = serde_json::from_slice(json).ok()?;
    let drops = |rule: &RuleEntry| {
        rule.expr.iter().any(|part| part.get("drop").is_some() || part.get("reject").is_some())
    };
    let dropping: Vec<&RuleEntry> =
        listing.nftables.iter().filter_map(|entry| entry.rule.as_ref()).filter(|rule| drops(rule)).collect();
    let chains = listing.nftables.iter().filter_map(|entry| entry.chain.as_ref()).filter_map(|chain| {
        let hook = chain.hook.clone().filter(|hook| HOOKS.contains(&hook.as_str()))?;
        let of_table = |rule: &&&RuleEntry| rule.family == chain.family && rule.table == chain.table;
        let found = Chain {
            family: chain.family.clone(),
            table: chain.table.clone(),
            name: chain.name.clone(),
            hook,
            drops_by_default: chain.policy.as_deref() == Some("drop"),
            dropping_rules: dropping.iter().filter(of_table).count(),
        };
        let harmless = !found.drops_by_default && found.dropping_rules == 0;
        (!harmless && chain.table != OURS).then_some(found)
    });
    Some(chains.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_that_drop_are_found_and_others_not() {
        let listing = br#"{"nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {"table": {"family": "inet", "name": "filter"}},
            {"chain": {"family": "inet", "table": "filter", "name": "in", "hook": "input", "prio": 0, "policy": "drop"}},
            {"chain": {"family": "inet", "table": "filter", "name": "sub"}},
            {"chain": {"family": "ip", "table": "nat", "name": "post", "hook": "postrouting", "policy": "accept"}},
            {"chain": {"family": "ip", "table": "own", "name": "out", "hook": "output", "policy": "accept"}},
            {"rule": {"family": "ip", "table": "own", "chain": "sub", "expr": [{"counter": null}, {"reject": null}]}},
            {"rule": {"family": "ip", "table": "nat", "chain": "post", "expr": [{"masquerade": null}]}},
            {"chain": {"family": "inet", "table": "f", "name": "fwd", "hook": "forward", "policy": "drop"}},
            {"chain": {"family": "netdev", "table": "pomguard_closed", "name": "x", "hook": "ingress", "policy": "drop"}}
        ]}"#;
        let found = chains(listing).unwrap();
        let names: Vec<_> = found.iter().map(|chain| (chain.name.as_str(), chain.dropping_rules)).collect();
        assert_eq!(names, [("in", 0), ("out", 1)]);
        assert!(found[0].drops_by_default && !found[1].drops_by_default);
        assert!(chains(b"no JSON").is_none());
    }
}
