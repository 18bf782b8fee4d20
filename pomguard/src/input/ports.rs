//! Parses port numbers as files write them: `22`, `8000-8010`, lists of both, and one port per zone.

use std::fmt;

use super::diagnostic::Fault;
use crate::model::PortRange;

/// Ports of a matrix row: a fixed range, or one port for each zone of the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortSpec {
    /// A fixed range.
    Fixed(PortRange),
    /// One port for each zone, from this port up.
    PerZone(u16),
}

impl PortSpec {
    /// Returns the ports at this number of zones. Returns `None` if they would run past 65535, or there is no
    /// zone.
    pub fn at(self, zones: u16) -> Option<PortRange> {
        match self {
            Self::Fixed(range) => Some(range),
            Self::PerZone(first) => {
                let last = first.checked_add(zones.checked_sub(1)?)?;
                Some(PortRange { first, last })
            }
        }
    }
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(range) => range.fmt(f),
            Self::PerZone(first) => write!(f, "{first}+zones"),
        }
    }
}

/// Parses one port: decimal, no sign, no leading zero, from 1 to 65535.
fn port(written: &str) -> Result<u16, Fault> {
    let plain = !written.is_empty() && written.bytes().all(|byte| byte.is_ascii_digit());
    match written.parse::<u16>() {
        Ok(0) => Err(Fault::new("port 0 is no port", "write a port from 1 to 65535")),
        Ok(port) if plain && !written.starts_with('0') => Ok(port),
        Ok(port) if plain => Err(Fault::new("leading zeros", format!("write \"{port}\""))),
        _ => Err(Fault::new("not a port number", "write a port from 1 to 65535")),
    }
}

/// Parses one item: `22`, `8000-8010` or `9995+zones`.
pub fn spec(written: &str) -> Result<PortSpec, Fault> {
    if let Some(first) = written.strip_suffix("+zones") {
        return Ok(PortSpec::PerZone(port(first)?));
    }
    let Some((first, last)) = written.split_once('-') else {
        return Ok(PortSpec::Fixed(PortRange::one(port(written)?)));
    };
    let range = PortRange { first: port(first)?, last: port(last)? };
    if range.first > range.last {
        let remedy = format!("write \"{}-{}\"", range.last, range.first);
        return Err(Fault::new("the range runs backwards", remedy));
    }
    Ok(PortSpec::Fixed(range))
}

/// Parses a list: items between commas, a blank after a comma allowed.
pub fn specs(written: &str) -> Result<Vec<PortSpec>, Fault> {
    let mut specs: Vec<PortSpec> = Vec::new();
    for item in written.split(',') {
        let item = if specs.is_empty() { item } else { item.strip_prefix(' ').unwrap_or(item) };
        if item.is_empty() {
            return Err(Fault::new(
                "an empty item in the list of ports",
                "write ports between single commas",
            ));
        }
        let spec = spec(item).map_err(|error| {
            if item == written {
                error
            } else {
                Fault::new(format!("{item}: {}", error.problem), error.remedy)
            }
        })?;
        if let Some(other) = specs.iter().find(|other| meet(**other, spec)) {
            return Err(Fault::new(
                format!("{item} is listed twice, {other} has it too"),
                "write each port once",
            ));
        }
        specs.push(spec);
    }
    Ok(specs)
}

/// Returns true if two items of one list have a port in common with one zone already.
fn meet(a: PortSpec, b: PortSpec) -> bool {
    match (a.at(1), b.at(1)) {
        (Some(a), Some(b)) => a.first <= b.last && b.first <= a.last,
        _ => false,
    }
}

/// Parses a list without ports per zone.
pub fn ranges(written: &str) -> Result<Vec<PortRange>, Fault> {
    let fixed = |spec| match spec {
        PortSpec::Fixed(range) => Ok(range),
        PortSpec::PerZone(first) => Err(Fault::new(
            "ports per zone are for matrix rows",
            format!("write \"{first}-…\" with the last port"),
        )),
    };
    specs(written)?.into_iter().map(fixed).collect()
}

/// Parses exactly one port or range, without ports per zone.
pub fn range(written: &str) -> Result<PortRange, Fault> {
    match ranges(written)?.as_slice() {
        &[range] => Ok(range),
        _ => Err(Fault::new("several ranges", "write one port or one range")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cf_06_everything_but_plain_ports_ranges_and_lists_is_refused() {
        for written in [
            "0",
            "-1",
            "65536",
            "99999999999",
            "22-20",
            "22,,80",
            "80 443",
            "ssh",
            "any",
            "",
            ",",
            "22,",
            ",22",
            "+22",
            "022",
            "22-",
            "-22",
            "22 -80",
            "0-65535",
            "22,22",
            "20-30,25",
            "２２",
            "0x16",
            "9995+zone",
            "+zones",
            " 22",
        ] {
            assert!(specs(written).is_err(), "{written:?} was accepted");
        }
        assert!(ranges("9995+zones").is_err());
        assert!(range("1,2").is_err());
    }

    #[test]
    fn range_ends_are_included() {
        assert_eq!(
            ranges("8000-8010, 22"),
            Ok(vec![PortRange { first: 8000, last: 8010 }, PortRange::one(22)])
        );
    }

    #[test]
    fn three_zones_are_three_ports() {
        assert_eq!(PortSpec::PerZone(9995).at(3), Some(PortRange { first: 9995, last: 9997 }));
        assert_eq!(PortSpec::PerZone(65535).at(1), Some(PortRange::one(65535)));
        assert_eq!(PortSpec::PerZone(65535).at(2), None);
        assert_eq!(PortSpec::PerZone(9995).at(0), None);
    }

    proptest! {
        #[test]
        fn what_is_accepted_prints_as_it_was_written(first in 1_u16.., more in 0_u16..) {
            let last = first.saturating_add(more);
            let text = if first == last { first.to_string() } else { format!("{first}-{last}") };
            prop_assert_eq!(spec(&text).expect("a range").to_string(), text);
        }

        #[test]
        fn no_text_makes_the_reader_panic(written in "[0-9+zones, -]{0,40}") {
            let _ = specs(&written);
        }
    }
}
