//! Flows whose socket is gone, taken out of the flow table.
//!
//! The programs cannot tell whether a connection still lives: a host that accepts a RST says nothing, and a
//! peer that vanishes neither. The socket table can. A flow that is closed or suspect is freed once its socket
//! is gone. One that still counts as established becomes suspect first: if something goes on after all, it
//! loses the mark with the next segment.
//!
//! The other way round, a flow that counts as closed although its socket goes on was closed by a stranger's FIN
//! alongside one of this host: it is open again.
//!
//! Only flows are judged that a socket of this network namespace sent, with these very ends: of what is
//! forwarded for others, or translated, the socket table knows nothing, or something else.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use pomguard_common::{
    flow::{Bucket, Slot, State, Tag, Word, mark},
    image::{AGES, Family, Line},
    limits, names, protocol,
};

use super::{KernelError, clock::Ticks, install, interface, mapping::Mapping, pins::Pins, sockets};

/// Seconds of silence after which the socket table is asked about a flow that nothing else is wrong with.
const SILENT: u64 = 60;
/// Seconds of silence before which no flow is freed: its socket may be younger than the answer about it.
const YOUNG: u64 = 2;

/// The outcome of a sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Flows that were freed.
    pub freed: u64,
    /// Established flows without a socket, which are suspect from now on.
    pub suspected: u64,
    /// Closed flows whose socket goes on, which are open again.
    pub revived: u64,
}

/// The tag that a live entry gets if its socket is gone, after so many seconds of silence; `None` if the socket
/// table is not to be asked about it.
#[must_use]
pub fn without_socket(tag: Tag, silent: u64) -> Option<u64> {
    let (doubtful, next) = match tag.state() {
        State::Closed => (silent > YOUNG, 0),
        State::Opening | State::Established if tag.suspect() => (silent > YOUNG, 0),
        State::Established => (silent > SILENT, tag.0 | Tag::SUSPECT),
        _ => (false, 0),
    };
    doubtful.then_some(next)
}

/// Opens a flow again that counts as closed although its socket goes on: takes the marks back that closed it.
/// Returns true if it was closed and has not changed.
pub fn revive(word: &Word, slot: &Slot, tag: Tag) -> bool {
    if tag.state() != State::Closed {
        return false;
    }
    slot.theirs.store(slot.theirs.load() & !mark::PEER_FIN);
    slot.ours.store(slot.ours.load() & !mark::RST);
    word.replace(tag.0, tag.moved(State::Established).0)
}

/// An entry whose socket is asked for.
struct Candidate {
    bucket: usize,
    way: usize,
    tag: u64,
    next: u64,
    ends: sockets::Endpoints,
}

/// Looks flows up in the socket table, and frees those whose socket is gone.
///
/// # Errors
/// When there is no policy yet, or the kernel does not answer.
pub fn sweep(pins: &Pins, ticks: Ticks) -> Result<Swept, KernelError> {
    let ages = install::line(pins, AGES)?;
    let buckets = pins.mapped(names::MAP_FLOWS, limits::FLOW_BUCKETS, true)?;
    let table = Table { buckets, ages, now: ticks.now()? as u32, ticks };
    let own: HashSet<IpAddr> = interface::addresses()?.into_iter().collect();
    let mut swept = Swept::default();
    let mut candidates = table.candidates(&own);
    // The kernel hands the table out in parts, and a socket may slip through between two of them.
    for _ in 0..2 {
        if candidates.is_empty() {
            break;
        }
        let Some(open) = sockets::tcp()? else { return Ok(Swept::default()) };
        candidates.retain(|candidate| match open.get(&candidate.ends) {
            Some(goes_on) => {
                swept.revived += u64::from(*goes_on && table.revive(candidate));
                false
            }
            None => true,
        });
    }
    table.take_out(&candidates, &mut swept);
    Ok(swept)
}

/// The pinned flow table.
struct Table {
    buckets: Mapping<[u64; size_of::<Bucket>() / 8]>,
    ages: Line,
    now: u32,
    ticks: Ticks,
}

impl Table {
    fn candidates(&self, own: &HashSet<IpAddr>) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for number in 0..limits::FLOW_BUCKETS {
            let Some(bucket) = self.buckets.shared::<Bucket>(number) else { continue };
            for (way, (word, slot)) in bucket.tags.iter().zip(&bucket.slots).enumerate() {
                let tag = word.load();
                if self.is_over(Tag(tag)) {
                    // So that no clock that wraps, in 17 years, makes it seem fresh.
                    word.replace(tag, 0);
                    continue;
                }
                let Some(next) = self.without_socket(Tag(tag)) else { continue };
                if slot.ours.load() & mark::SOCKET == 0 {
                    continue;
                }
                let key = [0, 1, 2, 3, 4].map(|at: usize| slot.key[at].load());
                // The key is this entry's if the tag did not change while it was read.
                if let Some(ends) = ends(key)
                    && own.contains(&ends.0.ip())
                    && word.load() == tag
                {
                    candidates.push(Candidate { bucket: number, way, tag, next, ends });
                }
            }
        }
        candidates
    }

    /// Returns true if an entry is past its age.
    fn is_over(&self, tag: Tag) -> bool {
        tag.state() != State::Free && tag.idle(self.now) > self.ages.word(tag.state() as u32)
    }

    fn without_socket(&self, tag: Tag) -> Option<u64> {
        without_socket(tag, self.ticks.seconds(tag.idle(self.now)))
    }

    /// Frees entries, or makes them suspect, unless they have changed since they were read.
    fn take_out(&self, candidates: &[Candidate], swept: &mut Swept) {
        for candidate in candidates {
            let Some(bucket) = self.buckets.shared::<Bucket>(candidate.bucket) else { continue };
            let Candidate { tag, next, .. } = *candidate;
            if bucket.tags.get(candidate.way).is_some_and(|word| word.replace(tag, next)) {
                *(if next == 0 { &mut swept.freed } else { &mut swept.suspected }) += 1;
            }
        }
    }

    /// Opens a closed flow again, unless it has changed since it was read. Returns true if it did.
    fn revive(&self, candidate: &Candidate) -> bool {
        let Some(bucket) = self.buckets.shared::<Bucket>(candidate.bucket) else { return false };
        let (Some(word), Some(slot)) = (bucket.tags.get(candidate.way), bucket.slots.get(candidate.way))
        else {
            return false;
        };
        revive(word, slot, Tag(candidate.tag))
    }
}

/// The ends of a TCP flow of the host, from its key; `None` of another protocol.
fn ends(key: [u64; 5]) -> Option<sockets::Endpoints> {
    let [local_high, local_low, peer_high, peer_low, rest] = key;
    if (rest >> 8) as u8 != protocol::TCP {
        return None;
    }
    let address = |high: u64, low: u64| {
        if rest as u8 == Family::V4 as u8 {
            IpAddr::V4(Ipv4Addr::from_bits((high >> 32) as u32))
        } else {
            IpAddr::V6(Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)))
        }
    };
    let local = SocketAddr::new(address(local_high, local_low), (rest >> 48) as u16);
    let peer = SocketAddr::new(address(peer_high, peer_low), (rest >> 32) as u16);
    Some((local, peer))
}

#[cfg(test)]
mod tests {
    use pomguard_common::flow::Key;

    use super::*;

    #[test]
    fn ends_are_those_of_the_key_that_the_programs_make() {
        let key = |family, protocol| {
            Key::new(family, protocol, &[0xfd00_0077, 0, 0, 1], 40_000, &[0xfd00_0077, 0, 5, 2], 443).0
        };
        let of = |key| ends(key).map(|(local, peer)| (local.to_string(), peer.to_string()));
        let pair = |local: &str, peer: &str| Some((local.to_owned(), peer.to_owned()));
        assert_eq!(of(key(Family::V6, protocol::TCP)), pair("[fd00:77::1]:40000", "[fd00:77::5:0:2]:443"));
        let v4 = Key::new(Family::V4, protocol::TCP, &[0x0a4d_0001, 0, 0, 0], 1, &[0x0a4d_0002, 0, 0, 0], 2);
        assert_eq!(of(v4.0), pair("10.77.0.1:1", "10.77.0.2:2"));
        assert_eq!(of(key(Family::V6, protocol::UDP)), None);
    }
}
