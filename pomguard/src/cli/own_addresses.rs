//! Compares this machine with the files, for verbs that work without the daemon.

use std::{fs, path::Path};

use crate::{
    input::{Draft, Settings},
    kernel::{address, interface, pins::Pins},
    policy::{
        self, Policy,
        own::{Addresses, Differences},
    },
};

/// Returns the policy of the files for this machine. Returns `None` if the files are refused or cannot be read.
pub(super) fn policy(config: &Path) -> Option<(Policy, Addresses)> {
    let draft = Draft::load(config).ok()?;
    let policy = policy::resolve(&draft, &interface::addresses().ok()?).ok()?;
    on(&draft.settings, policy)
}

/// Returns the policy for this machine, and the addresses of the machine.
pub(super) fn on(settings: &Settings, policy: Policy) -> Option<(Policy, Addresses)> {
    let addresses = present(settings)?;
    Some((policy.on(&addresses), addresses))
}

/// Returns the addresses of the machine. An interface that the settings no longer name, and that still has a
/// guard, counts as guarded.
pub(super) fn present(settings: &Settings) -> Option<Addresses> {
    let mut names: Vec<String> = settings.interfaces.iter().map(|at| at.value.clone()).collect();
    names.extend(Pins::new(&settings.paths.pins).linked("xdp"));
    address::addresses(&names).ok()
}

/// Returns sentences about addresses on which the site file and this machine differ.
pub(super) fn attention(config: &Path) -> Vec<String> {
    let Some((policy, addresses)) = policy(config) else { return Vec::new() };
    let Differences { missing, unlisted, conflict } = policy.differences(&addresses);
    let named = |condition: &'static str| move |about: String| format!("{condition}: {about}");
    let missing = missing.into_iter().map(named("address-missing"));
    let unlisted = unlisted.into_iter().map(named("address-unlisted"));
    missing.chain(unlisted).chain(conflict.into_iter().map(named("address-conflict"))).collect()
}

/// Returns true if the kernel forwards packets of either family.
pub(super) fn forwards() -> bool {
    ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"]
        .into_iter()
        .any(|path| fs::read_to_string(path).is_ok_and(|text| text.trim() != "0"))
}
