//! Removes flows without a socket from the flow table.
//!
//! The programs cannot tell if a connection is still alive: a host that accepts a RST sends no answer, and a
//! peer may vanish silently. The socket table knows. A closed or suspect flow is freed once the socket is gone.
//! An established flow first becomes suspect: if the connection continues after all, the next segment clears
//! the mark.
//!
//! In the opposite case, a flow counts as closed although the socket is alive: a stranger sent a FIN in
//! addition to a FIN of this host. Such a flow is opened again.
//!
//! The sweep only checks flows that a socket of this network namespace sent, with exactly these ends. For
//! forwarded or translated flows the socket table has no entry or another one.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use pomguard_common::{
    flow::{Bucket, Slot, State, Tag, Word, mark},
    image::{AGES, Family, Line},
    limits, names, protocol,
};

use super::{KernelError, clock::Ticks, image_reader, interface, mapping::Mapping, pins::Pins, sockets};

/// Seconds of silence after which the sweep looks up an otherwise normal flow in the socket table.
const SILENT: u64 = 60;
/// Seconds of silence before which no flow is freed: the socket may be younger than the answer of the socket
/// table.
const YOUNG: u64 = 2;

/// The outcome of a sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Number of flows that were freed.
    pub freed: u64,
    /// Number of established flows without a socket, which are suspect from now on.
    pub suspected: u64,
    /// Number of closed flows with a live socket, which are open again.
    pub revived: u64,
}

/// Returns the tag that a live entry gets if the socket is gone, after so many seconds of silence. Returns
/// `None` if the entry needs no lookup in the socket table.
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

/// Opens a flow again that counts as closed although the socket is alive, by clearing the marks that closed the
/// flow. Returns true if the flow was closed and has not changed.
pub fn revive(word: &Word, slot: &Slot, tag: Tag) -> bool {
    if tag.state() != State::Closed {
        return false;
    }
    slot.theirs.store(slot.theirs.load() & !mark::PEER_FIN);
    slot.ours.store(slot.ours.load() & !mark::RST);
    word.replace(tag.0, tag.moved(State::Established).0)
}

/// An entry to look up in the socket table.
struct Candidate {
    bucket: usize,
    way: usize,
    tag: u64,
    next: u64,
    ends: sockets::Endpoints,
}

/// Looks up flows in the socket table and frees those without a socket.
///
/// # Errors
/// If there is no policy yet, or the kernel does not answer.
pub fn sweep(pins: &Pins, ticks: Ticks) -> Result<Swept, KernelError> {
    let table = Table::open(pins, ticks)?;
    let own: HashSet<IpAddr> = interface::addresses()?.into_iter().collect();
    let mut swept = Swept::default();
    let mut candidates = table.candidates(&own);
    // The kernel returns the table in parts, and a socket may be missed between two parts: ask twice.
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

/// Frees every flow that is past the age of the image in force.
///
/// # Errors
/// As [`sweep`].
pub(super) fn expire(pins: &Pins, ticks: Ticks) -> Result<(), KernelError> {
    let table = Table::open(pins, ticks)?;
    for number in 0..limits::FLOW_BUCKETS {
        let Some(bucket) = table.buckets.shared::<Bucket>(number) else { continue };
        for word in &bucket.tags {
            let tag = word.load();
            if table.is_over(Tag(tag)) {
                word.replace(tag, 0);
            }
        }
    }
    Ok(())
}

/// The pinned flow table.
struct Table {
    buckets: Mapping<[u64; size_of::<Bucket>() / 8]>,
    ages: Line,
    now: u32,
    ticks: Ticks,
}

impl Table {
    fn open(pins: &Pins, ticks: Ticks) -> Result<Self, KernelError> {
        let ages = image_reader::line(pins, AGES)?;
        let buckets = pins.mapped(names::MAP_FLOWS, limits::FLOW_BUCKETS, true)?;
        Ok(Self { buckets, ages, now: ticks.now()? as u32, ticks })
    }

    fn candidates(&self, own: &HashSet<IpAddr>) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for number in 0..limits::FLOW_BUCKETS {
            let Some(bucket) = self.buckets.shared::<Bucket>(number) else { continue };
            for (way, (word, slot)) in bucket.tags.iter().zip(&bucket.slots).enumerate() {
                let tag = word.load();
                if self.is_over(Tag(tag)) {
                    // Free the entry now: a clock that wraps after 17 years must not make the entry seem fresh.
                    word.replace(tag, 0);
                    continue;
                }
                let Some(next) = self.without_socket(Tag(tag)) else { continue };
                if slot.ours.load() & mark::SOCKET == 0 {
                    continue;
                }
                let key = [0, 1, 2, 3, 4].map(|at: usize| slot.key[at].load());
                // The key belongs to this entry if the tag did not change during the reading.
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

    fn is_over(&self, tag: Tag) -> bool {
        is_over(tag, &self.ages, self.now)
    }

    fn without_socket(&self, tag: Tag) -> Option<u64> {
        without_socket(tag, self.ticks.seconds(tag.idle(self.now)))
    }

    /// Frees entries or makes them suspect, unless they have changed since the reading.
    fn take_out(&self, candidates: &[Candidate], swept: &mut Swept) {
        for candidate in candidates {
            let Some(bucket) = self.buckets.shared::<Bucket>(candidate.bucket) else { continue };
            let Candidate { tag, next, .. } = *candidate;
            if bucket.tags.get(candidate.way).is_some_and(|word| word.replace(tag, next)) {
                *(if next == 0 { &mut swept.freed } else { &mut swept.suspected }) += 1;
            }
        }
    }

    /// Opens a closed flow again, unless the entry has changed since the reading. Returns true if the flow was
    /// opened.
    fn revive(&self, candidate: &Candidate) -> bool {
        let Some(bucket) = self.buckets.shared::<Bucket>(candidate.bucket) else { return false };
        let (Some(word), Some(slot)) = (bucket.tags.get(candidate.way), bucket.slots.get(candidate.way))
        else {
            return false;
        };
        revive(word, slot, Tag(candidate.tag))
    }
}

/// Returns true if an entry is past its age.
fn is_over(tag: Tag, ages: &Line, now: u32) -> bool {
    tag.state() != State::Free && tag.idle(now) > ages.word(tag.state() as u32)
}

/// Returns the ends of a TCP flow of this host from the key; `None` for another protocol.
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

    /// The sweep reads the clock once, and the table for longer than a tick.
    #[test]
    fn an_entry_renewed_during_the_sweep_is_not_over() {
        let ages = Line([1_000; 16]);
        for now in [5_000, 1, u32::MAX >> 1, u32::MAX] {
            for state in State::ALL {
                let at = |ticks: u32| Tag::new(7, state, now.wrapping_add(ticks));
                for ticks in [0, 1, 200] {
                    assert!(!is_over(at(ticks), &ages, now), "{state:?}, {ticks} after {now}");
                    assert_eq!(without_socket(at(ticks), at(ticks).idle(now).into()), None, "{state:?}");
                }
                assert!(is_over(at(0), &ages, now.wrapping_add(1_001)), "{state:?}");
            }
        }
    }

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
