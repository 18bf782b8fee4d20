//! Named states: what is not as it should be, for as long as it is so, and what was put right.

/// Something that is not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// The kernel refuses the programs, and nothing of ours was attached: the host is closed, or open.
    NotEnforcing,
    /// The files are refused; the last confirmed policy is in force.
    FilesRefused,
    /// An interface of the settings does not exist.
    InterfaceMissing,
    /// An interface of the settings cannot be attached to.
    InterfaceRefused,
    /// An interface was given another name; it is enforced on, and the settings do not name it.
    InterfaceRenamed,
    /// A card takes packets and the guard sees none of them.
    Unseen,
    /// In native mode the guard saw less than nine tenths of what a card took in a minute.
    PartlyUnseen,
    /// Somebody else's program runs before ours on the way out, and may let out what ours would drop.
    EgressPreceded,
    /// What is kept on disk could not be used.
    StateUnreadable,
    /// The policy in force could not be saved for the next boot.
    StateUnsaved,
    /// The disk does not take the history of drops.
    DropsUnsaved,
    /// What is in the kernel could not be compared with what was installed.
    SelfCheckFailed,
    /// `pomguard detach` opened the host while the daemon ran.
    Detached,
    /// The policy in force is taken back unless it is confirmed.
    Unconfirmed,
    /// A change was taken back because nobody confirmed it.
    NotConfirmed,
    /// An interface is guarded that the settings do not name.
    GuardKept,
    /// A panic suspends the policy.
    Panic,
    /// Nobody can scrape the metrics: the address is taken, say.
    MetricsUnserved,
    /// An address that the site file gives this host is on no guarded interface.
    AddressMissing,
    /// A guarded interface has an address that the site file gives to nobody.
    AddressUnlisted,
    /// A guarded interface has an address that the site file gives to somebody else.
    AddressConflict,
    /// The files could not be taken for want of descriptors or memory; the policy before them is in force.
    ResourcesExhausted,
}

impl Condition {
    /// Every one.
    pub const ALL: [Self; 22] = [
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
        Self::Panic,
        Self::MetricsUnserved,
        Self::AddressMissing,
        Self::AddressUnlisted,
        Self::AddressConflict,
        Self::ResourcesExhausted,
    ];

    /// The word used in the status line, metric labels and documentation.
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
            Self::Panic => "suspended",
            Self::MetricsUnserved => "metrics-unserved",
            Self::AddressMissing => "address-missing",
            Self::AddressUnlisted => "address-unlisted",
            Self::AddressConflict => "address-conflict",
            Self::ResourcesExhausted => "resources-exhausted",
        }
    }
}

/// What was found changed from outside and put right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Repair {
    /// An interface came back and was attached to again.
    Interface,
    /// The XDP program was off its hook.
    Xdp,
    /// The TC program was off its hook.
    Tc,
    /// A pin was missing, or somebody else's.
    Pin,
    /// Another image hung in a slot of the policy.
    Policy,
    /// A general program was not in its array.
    General,
    /// The words that say what is in force.
    Control,
    /// The labels of the counters, or the record about the host.
    Labels,
}

impl Repair {
    /// Every one.
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

    /// The word used in metric labels and documentation.
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
