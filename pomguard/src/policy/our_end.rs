//! Decides which rows can hold at this host's end of a flow.

use std::net::IpAddr;

use super::{
    Direction, Policy, Row,
    oracle::{Answer, Opening, judge_by},
    own::Owner,
};

/// This host's end of a flow, according to the site file and the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OurEnd<'a> {
    /// An address at which every row holds.
    Own,
    /// The source of an inbound packet is an address from which only this host sends.
    SpoofedSource,
    /// A group, or no address of one host.
    Group,
    /// A floating address that this host does not hold now, as the source of an outbound packet.
    NotHeld,
    /// An address of another machine, by name.
    OfOther(&'a str),
    /// An address that the site file gives to no machine: only failsafe rows and timed exceptions hold there.
    Nobodys,
}

impl OurEnd<'_> {
    /// Returns true if `row` can allow a flow at this end.
    #[must_use]
    pub const fn holds(self, row: &Row) -> bool {
        match self {
            Self::Own => true,
            Self::Nobodys => row.failsafe,
            Self::SpoofedSource | Self::Group | Self::NotHeld | Self::OfOther(_) => false,
        }
    }
}

impl Policy {
    /// Returns this host's end of a flow. The addresses that only the machine knows must be in the policy, see
    /// [`Policy::on`].
    #[must_use]
    pub fn our_end(&self, opening: &Opening) -> OurEnd<'_> {
        let Opening { source, destination, .. } = *opening;
        let (ours, may) = match opening.direction {
            Direction::Inbound if self.may_send(source) => return OurEnd::SpoofedSource,
            Direction::Inbound => (destination, self.is_own(destination)),
            Direction::Outbound => (source, self.may_send(source)),
        };
        let group = ours.is_multicast() || matches!(ours, IpAddr::V4(address) if address.is_broadcast());
        if may {
            OurEnd::Own
        } else if group || ours.is_unspecified() || ours.is_loopback() {
            OurEnd::Group
        } else {
            match self.owner(ours) {
                Owner::Listed | Owner::Shared => OurEnd::NotHeld,
                Owner::Other(name) => OurEnd::OfOther(name),
                Owner::Nobody => OurEnd::Nobodys,
            }
        }
    }

    /// Returns the rows that allow `opening` and that hold at this host's end.
    #[must_use]
    pub fn judge_at_our_end(&self, opening: &Opening) -> Answer {
        let end = self.our_end(opening);
        judge_by(self.rows.iter().filter(|row| end.holds(row)), opening)
    }
}

#[cfg(test)]
mod tests;
