//! Checks the two addresses of a datagram: both must be possible for this direction. Looks up the class of
//! the peer.

use super::{
    Decision, Env,
    address::{group, impossible_source, is_unclaimed, link_local, mapped, unspecified},
    link::link_service,
};
use crate::{
    Direction,
    control::ControlView as _,
    image::{Barrier as _, Class, Family},
    parse::{Datagram, Kind},
    reason::Reason,
};

/// The result of this module in one word: the class of the peer, or a decision.
#[derive(Clone, Copy)]
pub(super) struct Endpoints(pub(super) u64);

impl Endpoints {
    /// Mark that lies above every bit of a [`Decision`] except [`Decision::QUOTES`].
    const DECIDED: u64 = 1 << 62;

    #[inline(always)]
    const fn decided(decision: Decision) -> Self {
        Self(decision.0 | Self::DECIDED)
    }

    /// Returns the decision, or `None` if the rows must decide.
    #[inline(always)]
    pub(super) const fn decision(self) -> Option<Decision> {
        if self.0 & Self::DECIDED != 0 { Some(Decision(self.0 & !Self::DECIDED)) } else { None }
    }

    /// Returns the class of the peer.
    #[inline(always)]
    pub(super) const fn class(self) -> Class {
        Class(self.0 as u32)
    }
}

/// Checks the addresses of an inbound datagram. The word is an [`Endpoints`]. A separate function in the
/// programs.
#[inline(never)]
pub(super) fn arrives<E: Env>(datagram: &Datagram, env: &E) -> u64 {
    env.image().lines().barrier(ends_inbound(datagram, env).0)
}

#[inline(always)]
fn ends_inbound<E: Env>(datagram: &Datagram, env: &E) -> Endpoints {
    let because = |reason| Endpoints::decided(Decision::because(reason));
    let image = env.image();
    let family = datagram.family;
    let class = image.class(family, &datagram.source);
    image.lines().note_peer(class.note());
    if matches!(family, Family::V6) && (mapped(&datagram.source) || mapped(&datagram.destination)) {
        return because(Reason::MappedAddress);
    }
    // Duplicate address detection and MLD start from the unspecified address.
    let newborn = matches!(family, Family::V6) && unspecified(&datagram.source);
    let impossible = impossible_source(family, &datagram.source) && !newborn;
    if impossible || class.is_sent_by_us_alone(env.knows_holders()) {
        return because(Reason::SpoofedSource);
    }
    let target = image.class(family, &datagram.destination);
    if target.is_own() && !newborn {
        // A broadcast frame has no business with a unicast address (RFC 1122 section 3.3.6).
        return if datagram.group_mac { because(Reason::Broadcast) } else { Endpoints(class.0.into()) };
    }
    let unclaimed = is_unclaimed(target, family, &datagram.destination) && !datagram.group_mac;
    if let Some(reason) = link_service(Direction::Inbound, datagram, image, unclaimed) {
        return because(reason);
    }
    if newborn {
        return because(Reason::SpoofedSource);
    }
    if group(family, &datagram.destination) {
        return because(Reason::Broadcast);
    }
    if unclaimed && matches!(datagram.kind, Kind::Follower) {
        return Endpoints(class.0.into());
    }
    let reason = if target.is_held() && class.known() { Reason::NotLocalKnown } else { Reason::NotLocal };
    Endpoints::decided(Decision::because(reason).unclaimed(unclaimed))
}

/// Checks the addresses of an outbound datagram. The word is an [`Endpoints`]. A separate function in the
/// programs.
#[inline(never)]
pub(super) fn departs<E: Env>(datagram: &Datagram, env: &E) -> u64 {
    env.image().lines().barrier(ends_outbound(datagram, env).0)
}

#[inline(always)]
fn ends_outbound<E: Env>(datagram: &Datagram, env: &E) -> Endpoints {
    let because = |reason| Endpoints::decided(Decision::because(reason));
    let image = env.image();
    let family = datagram.family;
    let class = image.class(family, &datagram.destination);
    image.lines().note_peer(class.note());
    if matches!(family, Family::V6) && (mapped(&datagram.source) || mapped(&datagram.destination)) {
        return because(Reason::MappedAddress);
    }
    let sender = image.class(family, &datagram.source);
    let ours = sender.may_send(env.knows_holders());
    let unclaimed = is_unclaimed(sender, family, &datagram.source);
    // The link's own protocols also send from link-local addresses, and from the unspecified address while
    // the host has none.
    let early = unspecified(&datagram.source) || matches!(family, Family::V6) && link_local(&datagram.source);
    if (ours || unclaimed || early)
        && let Some(reason) = link_service(Direction::Outbound, datagram, image, true)
    {
        return because(reason);
    }
    if !(ours || unclaimed && matches!(datagram.kind, Kind::Follower)) {
        return Endpoints::decided(Decision::because(Reason::SourceNotOurs).unclaimed(unclaimed));
    }
    // A row for "anywhere" means hosts: no groups, and not this machine.
    if group(family, &datagram.destination) || impossible_source(family, &datagram.destination) {
        return Endpoints(Class::NONE.0.into());
    }
    Endpoints(class.0.into())
}
