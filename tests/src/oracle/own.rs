//! Whose an address is, from docs/policy.md: the narrowest entry of the site file decides.

use std::net::IpAddr;

use pomguard::policy::Policy;

/// To whom an address belongs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// To this host and nobody else.
    Ours,
    /// To this host, or to one that may hold it in its place.
    Shared,
    /// To somebody else.
    Theirs,
    /// To nobody.
    Nobodys,
}

pub(super) fn whose(policy: &Policy, address: IpAddr) -> Whose {
    if policy.local.contains(&address) || policy.machine.taken.contains(&address) {
        return Whose::Ours;
    }
    // From the narrowest prefix to the widest: this host's own first.
    for length in (0..=128).rev() {
        if policy.shared.iter().any(|net| net.prefix_len() == length && net.contains(&address)) {
            return Whose::Shared;
        }
        let known = |known: &pomguard::policy::Known| {
            known.prefix.prefix_len() == length && known.prefix.contains(&address)
        };
        if policy.known.iter().any(known) {
            return Whose::Theirs;
        }
    }
    Whose::Nobodys
}

/// Returns true if packets to the address are for this host.
pub(super) fn is_own(policy: &Policy, address: IpAddr) -> bool {
    matches!(whose(policy, address), Whose::Ours | Whose::Shared)
}

/// Returns true if this host may send from the address. `fresh` is true if the policy knows the holder of each
/// floating address.
pub(super) fn sends(policy: &Policy, address: IpAddr, fresh: bool) -> bool {
    match whose(policy, address) {
        Whose::Ours => true,
        Whose::Shared => !fresh || policy.machine.held.contains(&address),
        Whose::Theirs | Whose::Nobodys => false,
    }
}

/// Returns true if only this host can send from the address.
pub(super) fn only_we_send(policy: &Policy, address: IpAddr, fresh: bool) -> bool {
    whose(policy, address) == Whose::Ours || fresh && policy.machine.held.contains(&address)
}
