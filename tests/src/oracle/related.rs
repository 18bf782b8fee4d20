//! ICMP errors about flows.

use pomguard::policy::{
    Direction,
    oracle::{self, Opening},
};
use pomguard_common::{
    protocol::{TCP, UDP},
    reason::Reason,
};

use super::{
    Host, Ruling,
    memory::Talk,
    read::{self, Seen},
};
use crate::operator_state::Suspension;

impl Host {
    /// Judges an ICMP error, which must quote a flow of this host or a flow that an inbound row allows.
    pub(super) fn related(&mut self, direction: Direction, seen: &Seen, kind: u8, rest: &[u8]) -> Ruling {
        let v6 = seen.source.is_ipv6();
        let Some(quote) = rest.get(4..).and_then(|bytes| read::quote(bytes, v6, seen.before + 8)) else {
            return Ruling::of(Reason::IcmpUnrelated);
        };
        // The MTU of an IPv6 link is at least 1,280 bytes.
        let narrow = v6 && kind == 2 && rest[..2] == [0, 0] && rest[2] < 5;
        let (sender, receiver) = ((quote.source, quote.from), (quote.destination, quote.to));
        let (host, peer, ours) = match direction {
            Direction::Inbound => (sender, receiver, quote.source == seen.destination),
            Direction::Outbound => {
                (receiver, sender, receiver.0 == seen.source && sender.0 == seen.destination)
            }
        };
        if narrow || !ours {
            return Ruling::of(Reason::IcmpUnrelated);
        }
        let talk = Talk { protocol: quote.protocol, host, peer };
        let isolated = self.is_suspended(Suspension::Lockdown);
        let by_policy = self.is_still_allowed(&talk) || self.row_by_prefix(&talk);
        if by_policy && !isolated || self.related_alongside(direction, &talk) {
            Ruling::of(Reason::IcmpRelated)
        } else {
            let audit = !isolated && self.in_audit(Direction::Inbound, &talk);
            Ruling::of(Reason::IcmpUnrelated).in_audit(audit)
        }
    }

    /// Returns true if an inbound row allows a flow with a peer. The quoted address of the peer may be any
    /// address.
    fn row_by_prefix(&self, talk: &Talk) -> bool {
        let ported = matches!(talk.protocol, TCP | UDP);
        let (source_port, destination_port) = if ported { (talk.peer.1, talk.host.1) } else { (0, 0) };
        let opening = Opening {
            direction: Direction::Inbound,
            source: talk.peer.0,
            source_port,
            destination: talk.host.0,
            destination_port,
            protocol: talk.protocol,
        };
        oracle::judge(&self.policy, &opening).first.is_some()
    }
}
