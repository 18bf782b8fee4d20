//! Conditions: named states that need attention, for as long as they hold. Repairs: foreign changes that were
//! undone.

/// A named state of the daemon that needs attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// The kernel refuses the programs, and no guard was attached: the host is closed, or open.
    NotEnforcing,
    /// The files are refused; the last confirmed policy is in force.
    FilesRefused,
    /// An interface of the settings does not exist.
    InterfaceMissing,
    /// The guard cannot be attached to an interface of the settings.
    InterfaceRefused,
    /// An interface was renamed. The interface stays enforced, and the settings do not name it.
    InterfaceRenamed,
    /// A card takes packets and the guard sees none of them.
    Unseen,
    /// In native mode the guard saw less than nine tenths of the packets that a card took in a minute.
    PartlyUnseen,
    /// A program of another product runs before the guard on the way out, and may let out packets that the
    /// guard would drop.
    EgressPreceded,
    /// The state on disk could not be used.
    StateUnreadable,
    /// The policy in force, or the exceptions that hold, could not be saved for the next boot.
    StateUnsaved,
    /// The history of drops cannot be written to the disk.
    DropsUnsaved,
    /// The contents of the kernel could not be compared with the recorded baseline.
    SelfCheckFailed,
    /// `pomguard detach` opened the host while the daemon ran.
    Detached,
    /// The policy in force is rolled back unless somebody confirms it.
    Unconfirmed,
    /// A change was rolled back because nobody confirmed it.
    NotConfirmed,
    /// An interface is guarded although the settings do not name it.
    GuardKept,
    /// A bypass or lockdown suspends the policy.
    Suspended,
    /// Nobody can scrape the metrics; for example, the address is in use.
    MetricsUnserved,
    /// An address that the site file gives this host is on no guarded interface.
    AddressMissing,
    /// A guarded interface has an address that the site file gives to no system.
    AddressUnlisted,
    /// A guarded interface has an address that the site file gives to another system.
    AddressConflict,
    /// The saved policy belongs to another machine, and no listed address has appeared: only failsafe rows hold.
    IdentityChanged,
    /// The files could not be read for lack of descriptors or memory; the previous policy is in force.
    ResourcesExhausted,
}

impl Condition {
    /// Every condition.
    pub const ALL: [Self; 23] = [
        Self::NotEnforcing,
        Self::FilesRefused,
        Self::InterfaceMissing,
        Self::InterfaceRefused,
        Self::InterfaceRenamed,
        Self::Unseen,
        Self::PartlyUnseen,
        Self::EgressPreceded,
        Self::StateUnreadable,
        Self::StateUnsaved,
        Self::DropsUnsaved,
        Self::SelfCheckFailed,
        Self::Detached,
        Self::Unconfirmed,
        Self::NotConfirmed,
        Self::GuardKept,
        Self::Suspended,
        Self::MetricsUnserved,
        Self::AddressMissing,
        Self::AddressUnlisted,
        Self::AddressConflict,
        Self::IdentityChanged,
        Self::ResourcesExhausted,
    ];

    /// Returns the word used in the status line, metric labels and documentation.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotEnforcing => "not-enforcing",
            Self::FilesRefused => "files-refused",
            Self::InterfaceMissing => "interface-missing",
            Self::InterfaceRefused => "interface-refused",
            Self::InterfaceRenamed => "interface-renamed",
            Self::Unseen => "unseen",
            Self::PartlyUnseen => "partly-unseen",
            Self::EgressPreceded => "egress-preceded",
            Self::StateUnreadable => "state-unreadable",
            Self::StateUnsaved => "state-unsaved",
            Self::DropsUnsaved => "drops-unsaved",
            Self::SelfCheckFailed => "self-check-failed",
            Self::Detached => "detached",
            Self::Unconfirmed => "unconfirmed",
            Self::NotConfirmed => "not-confirmed",
            Self::GuardKept => "guard-kept",
            Self::Suspended => "suspended",
            Self::MetricsUnserved => "metrics-unserved",
            Self::AddressMissing => "address-missing",
            Self::AddressUnlisted => "address-unlisted",
            Self::AddressConflict => "address-conflict",
            Self::IdentityChanged => "identity-changed",
            Self::ResourcesExhausted => "resources-exhausted",
        }
    }
}

/// An object that was changed from outside and restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Repair {
    /// An interface came back, and the guard was attached again.
    Interface,
    /// The XDP program was not on the hook.
    Xdp,
    /// The TC program was not on the hook.
    Tc,
    /// A pin was missing, or belonged to somebody else.
    Pin,
    /// A slot of the policy held another image.
    Policy,
    /// A program of the general path was not in the array of programs.
    General,
    /// The words that name the policy in force were changed.
    Control,
    /// The labels of the counters, or the record about the host, were changed.
    Labels,
}

impl Repair {
    /// Every repair.
    pub const ALL: [Self; 8] = [
        Self::Interface,
        Self::Xdp,
        Self::Tc,
        Self::Pin,
        Self::Policy,
        Self::General,
        Self::Control,
        Self::Labels,
    ];

    /// Returns the word used in metric labels and documentation.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interface => "interface",
            Self::Xdp => "xdp",
            Self::Tc => "tc",
            Self::Pin => "pin",
            Self::Policy => "policy",
            Self::General => "general",
            Self::Control => "control",
            Self::Labels => "labels",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_are_told_what_to_do_about_every_state() {
        let operations = include_str!("../../../docs/operations.md");
        for condition in Condition::ALL {
            let row = format!("| `{}` | ", condition.name());
            // Name, meaning, remedy: the remarks of `check` have rows of two columns.
            let rows =
                operations.lines().filter(|line| line.starts_with(&row) && line.matches(" | ").count() == 2);
            assert_eq!(rows.count(), 1, "{row}");
        }
    }
}
