//! Local ports that serve.
//!
//! A row, an exception, audit or a bypass lets a peer in without an entry in the flow table. The replies of
//! this host must not enter a flow either: as a flow of this host, the exchange would outlive the permission.
//! No packet says which side opened, so each local port keeps the time at which a packet other than an answer
//! was last let in. While the port serves, packets from the port enter a flow only if an outbound row allows
//! them.
//!
//! A stranger costs no memory here: each port has a single time, whoever the peer is.

pub use crate::served::Served;
use crate::{control::ControlView, protocol, ticks};

/// Ticks for which a TCP port serves: about a day. A connection that carries a packet now and then keeps the
/// port serving.
const TCP: u32 = 4 * 86_400;
/// Ticks for which a port or protocol of datagrams serves: about two minutes. With a longer time, a stranger
/// who probes every port in audit would block the answers to this host's own queries for that time.
const DATAGRAM: u32 = 4 * 120;
/// A time is renewed when it is behind by this fraction of its age (1/64). Until then the cache line stays
/// shared.
const BEHIND: u32 = 64;

/// Returns the index of a port's element, and the ticks for which the port serves. `port` is the protocol's
/// number for a protocol without ports.
#[inline(always)]
const fn element(protocol: u8, port: u16) -> (u32, u32) {
    match protocol {
        protocol::TCP => (port as u32, TCP),
        protocol::UDP => (port as u32, DATAGRAM),
        _ => (65_536 + protocol as u32, DATAGRAM),
    }
}

/// Returns the time to store: 0 is replaced, because 0 means never.
#[inline(always)]
const fn timestamp(now: u32) -> u32 {
    if now == 0 { 1 } else { now }
}

/// Returns the ticks since the stored time, or `None` if the port does not serve any more.
#[inline(always)]
fn idle(seen: u32, age: u32, now: u32) -> Option<u32> {
    let idle = ticks::since(seen, timestamp(now), u32::MAX);
    if seen == 0 || idle > age { None } else { Some(idle) }
}

/// Records that ingress let in a packet other than an answer. `opens` is false for TCP without SYN, which
/// renews a port that serves but does not make a port serve.
#[inline(always)]
pub fn note<S: ControlView + ?Sized>(view: &S, protocol: u8, port: u16, opens: bool, now: u32) {
    let (index, age) = element(protocol, port);
    let Some(served) = view.served(index) else { return };
    let seen = served.last_served(protocol);
    let due = match idle(seen.load(), age, now) {
        Some(idle) => idle > age / BEHIND,
        None => opens,
    };
    if due {
        seen.store(timestamp(now));
    }
}

/// Returns true if a local port serves.
#[inline(always)]
pub fn serves<S: ControlView + ?Sized>(view: &S, protocol: u8, port: u16, now: u32) -> bool {
    let (index, age) = element(protocol, port);
    match view.served(index) {
        Some(served) => idle(served.last_served(protocol).load(), age, now).is_some(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    struct Table(std::vec::Vec<Served>);

    impl ControlView for Table {
        fn served(&self, index: u32) -> Option<&Served> {
            self.0.get(index as usize)
        }
    }

    fn table() -> Table {
        Table(core::iter::repeat_with(Served::default).take(Served::COUNT).collect())
    }

    #[test]
    fn a_port_serves_from_an_opening_until_its_age() {
        let table = table();
        assert!({
            note(&table, protocol::TCP, 80, true, 0);
            serves(&table, protocol::TCP, 80, 0)
        });
        for (protocol, port, age) in
            [(protocol::TCP, 443, TCP), (protocol::UDP, 443, DATAGRAM), (47, 47, DATAGRAM)]
        {
            assert!(!serves(&table, protocol, port, 9), "{protocol} before anything came in");
            note(&table, protocol, port, true, 9);
            assert!(serves(&table, protocol, port, 9 + age), "{protocol}");
            assert!(!serves(&table, protocol, port, 10 + age), "{protocol}");
            assert!(!serves(&table, protocol ^ 1, port ^ 1, 9), "{protocol}: another one");
        }
    }

    #[test]
    fn segments_keep_a_port_that_serves_and_make_none() {
        let table = table();
        note(&table, protocol::TCP, 22, false, 7);
        assert!(!serves(&table, protocol::TCP, 22, 7));
        note(&table, protocol::TCP, 22, true, 7);
        note(&table, protocol::TCP, 22, false, 7 + TCP);
        assert!(serves(&table, protocol::TCP, 22, 8 + TCP));
        note(&table, protocol::TCP, 22, false, 9 + 3 * TCP);
        assert!(!serves(&table, protocol::TCP, 22, 9 + 3 * TCP), "it had ended before");
    }

    #[test]
    fn a_port_that_served_under_a_later_clock_serves() {
        for (now, behind) in [(9_000, 1), (9_000, 200), (3, 4), (u32::MAX, 1)] {
            for protocol in [protocol::TCP, protocol::UDP, 47] {
                let table = table();
                note(&table, protocol, 80, true, now);
                assert!(
                    serves(&table, protocol, 80, now.wrapping_sub(behind)),
                    "{protocol}, {behind} at {now}"
                );
            }
        }
    }

    #[test]
    fn no_stamp_comes_back_within_ten_years() {
        let table = table();
        note(&table, protocol::TCP, 22, true, u32::MAX - 5);
        assert!(serves(&table, protocol::TCP, 22, 20), "across the wrap of the clock");
        let ten_years = 4 * 86_400 * 3_653;
        for day in 2..3_653 {
            assert!(
                !serves(&table, protocol::TCP, 22, (u32::MAX - 5).wrapping_add(day * 4 * 86_400)),
                "{day}"
            );
        }
        assert!(!serves(&table, protocol::TCP, 22, (u32::MAX - 5).wrapping_add(ten_years)));
    }
}
