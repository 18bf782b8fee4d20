//! Reads the site's own rows.

use std::collections::{HashMap, HashSet};

use super::{
    Allow, Place, WrittenPlace,
    read::{EVERY_HOST, ROW_MODES, Reader, bounded, plain_name},
};
use crate::{
    input::{
        address,
        diagnostic::Fault,
        matrix::Matrix,
        ports,
        spelling::nearest,
        text::At,
        walk::{Table, Value},
    },
    model::{Mode, PortRange},
};

impl Reader<'_, '_> {
    pub(super) fn allow(&mut self, mut table: Table<'_>) -> Option<Allow> {
        let origin = table.origin();
        let name = table.need("name", "\"ssh-ops\"", self.faults);
        let name = name.and_then(|value| {
            let name = value.read(self.faults, plain_name)?;
            if !self.seen.rows.insert(name.value.clone()) {
                value.refuse("two rows have this name", "give each its own", self.faults);
            }
            Some(name)
        });
        let anywhere = self.anywhere(&mut table);
        let from = self.places(&mut table, "from", anywhere);
        let to = self.places(&mut table, "to", anywhere);
        let protocol = table.need("protocol", "\"tcp\"", self.faults);
        let protocols = protocol.and_then(|value| self.protocols(value));
        let has_ports =
            protocols.as_ref().is_none_or(|found| found.iter().all(|&number| carries_ports(number)));
        let ports_value =
            if has_ports { table.need("ports", "\"22\"", self.faults) } else { table.get("ports") };
        let source_value = table.get("source_ports");
        let mut ports = None;
        let mut source_ports = Some(PortRange::ANY);
        if has_ports {
            ports = ports_value.and_then(|value| {
                value.read(self.faults, |written| Ok((written.to_owned(), ports::ranges(written)?)))
            });
            if let Some(value) = source_value {
                source_ports = value.read(self.faults, ports::range).map(|at| at.value);
            }
        } else {
            for value in ports_value.into_iter().chain(source_value) {
                value.refuse("this protocol has no ports", "remove it", self.faults);
            }
        }
        let failsafe =
            table.get("failsafe").and_then(|value| value.boolean(self.faults)).is_some_and(|at| at.value);
        let mode_value = table.get("mode");
        let mode = mode_value
            .and_then(|value| value.word(&ROW_MODES, self.faults))
            .map_or(Mode::Enforce, |at| at.value);
        if let (Some(value), true, Mode::Audit) = (mode_value, failsafe, mode) {
            value.refuse("a failsafe row holds in every mode", "remove the mode, or failsafe", self.faults);
        }
        let purpose = table.get("purpose").and_then(|value| value.string(self.faults)).map(|at| at.value);
        table.finish(self.faults);
        let (printed, ports) = match ports {
            Some(at) => at.value,
            None if has_ports => return None,
            None => (String::new(), vec![PortRange::ANY]),
        };
        let protocols = protocols?;
        let protocol = protocols.iter().map(|&number| protocol_name(number)).collect::<Vec<_>>().join("/");
        let source_ports = source_ports?;
        let purpose = purpose.unwrap_or_else(|| "The site's own row.".to_owned());
        let name = name?;
        Some(Allow {
            name,
            from,
            to,
            printed,
            ports,
            protocols,
            protocol,
            source_ports,
            failsafe,
            mode,
            purpose,
            origin,
        })
    }

    fn places(&mut self, table: &mut Table<'_>, key: &'static str, anywhere: bool) -> Vec<WrittenPlace> {
        let mut items = self.need_items(table, key, "[\"10.9.0.0/24\"]");
        let mut places = Vec::with_capacity(items.len());
        items.retain(|item| {
            let place = self.written_place(*item, anywhere);
            let understood = place.is_some();
            places.extend(place);
            understood
        });
        let mut seen = HashSet::with_capacity(places.len());
        for (item, _) in items.iter().zip(&places).filter(|(_, at)| !seen.insert(&at.place)) {
            item.refuse("listed twice", "write it once", self.faults);
        }
        places
    }

    fn written_place(&mut self, item: Value<'_>, anywhere: bool) -> Option<WrittenPlace> {
        let (names, matrix) = (&self.seen.places, self.matrix);
        let read = |written: &str| Ok((written.into(), place(written, anywhere, names, matrix)?));
        let At { value: (written, place), origin } = item.read(self.faults, read)?;
        Some(WrittenPlace { written, place, origin })
    }

    fn protocols(&mut self, value: Value<'_>) -> Option<Vec<u8>> {
        if !value.is_list() {
            return Some(vec![self.protocol(value)?]);
        }
        let mut protocols = Vec::new();
        for item in value.items(self.faults) {
            let number = self.protocol(item)?;
            if !carries_ports(number) || protocols.contains(&number) {
                item.refuse("a list is for tcp and udp together", "write a row of its own", self.faults);
            }
            protocols.push(number);
        }
        (!protocols.is_empty()).then_some(protocols)
    }

    fn protocol(&mut self, value: Value<'_>) -> Option<u8> {
        let remedy = "write \"tcp\", \"udp\", \"icmp\", \"icmpv6\" or a protocol number";
        let number = if value.is_string() {
            value.read(self.faults, |written| {
                let number = match written {
                    "tcp" => Some(6),
                    "udp" => Some(17),
                    "icmp" => Some(1),
                    "icmpv6" => Some(58),
                    _ if written.starts_with('0') && written != "0" => None,
                    _ if !written.bytes().all(|byte| byte.is_ascii_digit()) => None,
                    _ => written.parse().ok(),
                };
                number.ok_or_else(|| Fault::new("no protocol", remedy))
            })
        } else {
            let number = value.number(0, 255, self.faults)?;
            u8::try_from(number.value).ok().map(|value| At { value, origin: number.origin })
        }?;
        // These are links of the IPv6 header chain, never the protocol at its end; 255 is reserved.
        if [0, 43, 44, 59, 60, 255].contains(&number.value) {
            value.refuse("this number is no protocol that a packet can carry to a host", remedy, self.faults);
            return None;
        }
        Some(number.value)
    }
}

/// Parses an entry of `from` or `to`.
pub(super) fn place(
    written: &str,
    anywhere: bool,
    names: &HashMap<String, Place>,
    matrix: &Matrix,
) -> Result<Place, Fault> {
    if written == EVERY_HOST {
        return Ok(Place::EveryHost);
    }
    if let Some(place) = names.get(written) {
        return Ok(place.clone());
    }
    if address::is_meant(written) {
        return Ok(Place::Addresses(bounded(address::prefixes(written)?, anywhere, written)?));
    }
    matrix.system(written).map(|name| Place::System(name.to_owned())).map_err(|error| {
        let mut names: Vec<&str> = names.keys().map(String::as_str).chain([EVERY_HOST]).collect();
        names.sort_unstable();
        match nearest(written, names) {
            Some(name) => Fault::new("no host, peer or system has this name", format!("write \"{name}\"")),
            None => error,
        }
    })
}

/// Returns true if rows of this protocol name ports.
fn carries_ports(protocol: u8) -> bool {
    protocol == 6 || protocol == 17
}

fn protocol_name(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        _ => format!("protocol {number}"),
    }
}
