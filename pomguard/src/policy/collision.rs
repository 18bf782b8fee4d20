//! Finds ports per zone that grow into other rows, and the number of zones from which they do.

use serde::Serialize;

use super::{PortRange, resolve::Effective};
use crate::input::ports::PortSpec;

/// Two rows whose ports meet on one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Collision {
    /// Number of the lower row.
    pub row: u32,
    /// Ports of the lower row.
    #[serde(serialize_with = "as_text")]
    pub ports: PortSpec,
    /// Number of the higher row.
    pub other: u32,
    /// Ports of the higher row.
    #[serde(serialize_with = "as_text")]
    pub other_ports: PortSpec,
    /// Number of zones from which the ports overlap.
    pub from_zones: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn as_text<S: serde::Serializer>(spec: &PortSpec, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(spec)
}

/// Returns every pair of rows that can meet, in row order: at least one has ports per zone, and `together` says
/// that their destinations are on one machine.
pub fn collisions(rows: &[Effective<'_>], together: impl Fn(&str, &str) -> bool) -> Vec<Collision> {
    let mut found = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        for other in rows.iter().skip(index + 1) {
            let one_machine =
                row.row.destination.iter().any(|here| {
                    other.row.destination.iter().any(|there| here == there || together(here, there))
                });
            let one_protocol = row.row.transport.iter().any(|number| other.row.transport.contains(number));
            if one_machine && one_protocol {
                found.extend(first_meeting(row, other));
            }
        }
    }
    found
}

fn first_meeting(row: &Effective<'_>, other: &Effective<'_>) -> Option<Collision> {
    let pairs = row.ports.iter().flat_map(|&ports| other.ports.iter().map(move |&other| (ports, other)));
    let meetings = pairs.filter_map(|(ports, other_ports)| {
        let from_zones = meet_from(ports, other_ports)?;
        Some(Collision { row: row.row.number, ports, other: other.row.number, other_ports, from_zones })
    });
    meetings.min_by_key(|collision| collision.from_zones)
}

/// Returns the number of zones from which the two have a port in common. Returns `None` for two fixed ranges:
/// they are the same at any number of zones.
fn meet_from(a: PortSpec, b: PortSpec) -> Option<u32> {
    match (a, b) {
        (PortSpec::Fixed(_), PortSpec::Fixed(_)) => None,
        (PortSpec::PerZone(a), PortSpec::PerZone(b)) => Some(u32::from(a.abs_diff(b)) + 1),
        (PortSpec::PerZone(first), PortSpec::Fixed(range))
        | (PortSpec::Fixed(range), PortSpec::PerZone(first)) => reach(first, range),
    }
}

fn reach(first: u16, range: PortRange) -> Option<u32> {
    if first > range.last {
        return None;
    }
    Some(u32::from(range.first.saturating_sub(first)) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::plain;

    #[test]
    fn per_zone_ranges_meet_other_rows_from_these_zone_counts() {
        let draft = plain();
        let rows = crate::policy::effective(&draft);
        let found = collisions(&rows, |_, _| true);
        let from = |row, other| {
            found.iter().find(|found| (found.row, found.other) == (row, other)).map(|found| found.from_zones)
        };
        // Against each other.
        assert_eq!(from(1, 4), Some(11));
        assert_eq!(from(1, 14), Some(2218));
        assert_eq!(from(1, 15), Some(25));
        assert_eq!(from(4, 14), Some(2228));
        assert_eq!(from(4, 15), Some(35));
        assert_eq!(from(14, 15), Some(2193), "9970 comes before 9971");
        // Against the fixed rows 16 to 21 and 31.
        let fixed = [16, 17, 18, 19, 20, 21, 31];
        assert_eq!(
            fixed.map(|row| from(1, row)),
            [None, None, None, Some(16), Some(17), Some(18), Some(1006)]
        );
        assert_eq!(fixed.map(|row| from(4, row)), [None, None, None, Some(6), Some(7), Some(8), Some(996)]);
        assert_eq!(
            fixed.map(|row| from(15, row)),
            [None, None, None, Some(40), Some(41), Some(42), Some(1030)]
        );
        let from_14 = [Some(222), Some(221), None, Some(2233), Some(2234), Some(2235), Some(3223)];
        assert_eq!(fixed.map(|row| from(14, row)), from_14);
    }

    #[test]
    fn meeting_begins_where_the_ranges_first_share_a_port() {
        let draft = plain();
        let rows = crate::policy::effective(&draft);
        for found in collisions(&rows, |_, _| true) {
            let zones = u16::try_from(found.from_zones).expect("fewer zones than ports");
            let meets = |zones| match (found.ports.at(zones), found.other_ports.at(zones)) {
                (Some(a), Some(b)) => (1..=u16::MAX).any(|port| a.contains(port) && b.contains(port)),
                _ => false,
            };
            assert!(meets(zones) && !meets(zones - 1), "{found:?}");
        }
    }

    #[test]
    fn rows_of_systems_on_different_machines_do_not_collide() {
        let draft = plain();
        let rows = crate::policy::effective(&draft);
        let found = collisions(&rows, |_, _| false);
        assert!(found.iter().all(|found| found.other != 20 && found.other != 21), "other systems' consoles");
        assert!(found.iter().any(|found| (found.row, found.other) == (4, 19)));
    }
}
