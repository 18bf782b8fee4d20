//! Reads the site file.

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;

use super::{Floating, Host, Override, PeerGroup, Place, Site};
use crate::{
    input::{
        address::{self, Prefixes},
        diagnostic::{Diagnostics, Fault},
        matrix::Matrix,
        ports::{self, PortSpec},
        sources::Source,
        text::{At, Text},
        walk::{self, Table, Value},
    },
    model::Mode,
};

/// Name for all servers of the site in `from` and `to`.
pub(super) const EVERY_HOST: &str = "every-host";
/// Longest name of a host or row, in bytes: the name becomes a label in tables and metrics.
const NAME: usize = 63;
pub(super) const ROW_MODES: [(&str, Mode); 2] = [("audit", Mode::Audit), ("enforce", Mode::Enforce)];

pub(super) fn read(
    text: &Text,
    matrix: impl FnOnce(&At<String>) -> Result<Matrix, Diagnostics>,
) -> Result<(Site, Matrix), Diagnostics> {
    let parsed = walk::parse(text)?;
    let mut faults = Diagnostics::default();
    let mut top = Table::new(text, "the file", &parsed);
    let whole = end_mark(&mut top, text, &mut faults);
    let matrix = top
        .need("matrix", "\"pom-4.0\"", &mut faults)
        .and_then(|value| value.string(&mut faults))
        .and_then(|name| matrix(&name).map_err(|found| faults.extend([found])).ok());
    // Without its matrix no system name and no row id of the file can be checked.
    let Some(matrix) = matrix else { return Err(faults.sorted()) };

    let zones = if matrix.uses_zones() { top.need("zones", "1", &mut faults) } else { top.get("zones") };
    let zones = zones.and_then(|value| value.number(1, u32::from(u16::MAX), &mut faults));
    let zones = zones.and_then(|at| u16::try_from(at.value).ok()).unwrap_or(1);

    let mut site = Site {
        file: text.name.clone(),
        source: Source::of(text),
        end_marked: whole,
        zones,
        hosts: Vec::new(),
        floating: Vec::new(),
        peers: Vec::new(),
        overrides: Vec::new(),
        allows: Vec::new(),
    };
    let mut reader = Reader { matrix: &matrix, faults: &mut faults, seen: Seen::default() };
    for table in top.tables("host", "[[host]]", reader.faults) {
        let host = reader.host(table);
        site.hosts.extend(host);
    }
    if site.hosts.is_empty() && reader.faults.is_empty() {
        let problem = "has no [[host]]";
        reader.faults.add(top.origin(), "the file", problem, "add one for each server that runs pomguard");
    }
    for table in top.tables("floating", "[[floating]]", reader.faults) {
        let floating = reader.floating(table);
        site.floating.push(floating);
    }
    for table in top.tables("peer", "[[peer]]", reader.faults) {
        let peer = reader.peer(table);
        site.peers.push(peer);
    }
    for table in top.tables("row", "[[row]]", reader.faults) {
        let change = reader.change(table);
        site.overrides.extend(change);
    }
    for table in top.tables("allow", "[[allow]]", reader.faults) {
        let allow = reader.allow(table);
        site.allows.extend(allow);
    }
    top.finish(&mut faults);
    one_address_of_many(&site, &mut faults);
    zone_ranges(&matrix, &site, text, &mut faults);
    faults.into_result((site, matrix))
}

/// Checks the end mark. `end_marker = true` at the top promises an `[end]` table below everything else, so a
/// copy that was truncated at any byte lacks one of the two.
fn end_mark(top: &mut Table<'_>, text: &Text, faults: &mut Diagnostics) -> bool {
    let promised = top.get("end_marker").and_then(|value| value.boolean(faults)).is_some_and(|at| at.value);
    let end = top.get("end").and_then(|value| value.table("[end]", faults));
    let present = end.is_some();
    if let Some(end) = end {
        end.finish(faults);
    }
    let last = text.body.lines().map(str::trim).rfind(|line| !line.is_empty() && !line.starts_with('#'));
    if promised && (!present || last != Some("[end]")) {
        let problem =
            "`end_marker` is true, but the file does not end with [end]: it may have been cut short";
        faults.add(top.origin(), "the file", problem, "copy it again, or write [end] as its last line");
    }
    promised
}

/// Refuses an address of a host in `from` or `to` if the host has other addresses. Such an entry would open all
/// addresses of the host, because a row is about a host.
fn one_address_of_many(site: &Site, faults: &mut Diagnostics) {
    for written in site.allows.iter().flat_map(|allow| allow.from.iter().chain(&allow.to)) {
        let Place::Addresses(nets) = &written.place else { continue };
        let [net] = nets.as_slice() else { continue };
        if net.prefix_len() != net.max_prefix_len() {
            continue;
        }
        let floating = site.floating.iter().find(|it| it.addresses.iter().any(|at| at.value == net.addr()));
        if let Some(floating) = floating {
            let names: Vec<String> = floating.hosts.iter().map(|at| format!("\"{}\"", at.value)).collect();
            let problem = "a floating address: a row is about all addresses of a host";
            faults.add(
                written.origin.clone(),
                &*written.written,
                problem,
                format!("write {}", names.join(", ")),
            );
            continue;
        }
        let Some(host) = site.hosts.iter().find(|host| host.addresses.iter().any(|at| at.value == *net))
        else {
            continue;
        };
        let others = host.addresses.len() - 1 + site.floating_of(host).count();
        if others > 0 {
            let name = &host.name.value;
            let problem =
                format!("one address of {name}, which has {others} more: a row is about all of them");
            faults.add(
                written.origin.clone(),
                &*written.written,
                problem,
                format!(
                    "write \"{name}\" if all are meant; a row for one address of a host cannot be written"
                ),
            );
        }
    }
}

/// Checks that per-zone ports stay below 65536 at this number of zones.
fn zone_ranges(matrix: &Matrix, site: &Site, text: &Text, faults: &mut Diagnostics) {
    for row in &matrix.rows {
        let change = site.overrides.iter().find(|change| change.row.value == row.number);
        let ports =
            change.and_then(|change| change.ports.as_ref()).map_or(&row.ports, |ports| &ports.value.1);
        for spec in ports.iter().filter(|spec| spec.at(site.zones).is_none()) {
            let at = text.body.lines().position(|line| line.trim_start().starts_with("zones"));
            let origin = crate::model::Origin { file: text.name.clone(), line: 1 + at.unwrap_or_default() };
            let problem = format!("{spec} of {} runs past port 65535", matrix.row_id(row.number));
            faults.add(
                origin,
                format!("zones = {}", site.zones),
                problem,
                "write the number of zones in use",
            );
        }
    }
}

pub(super) struct Reader<'m, 'f> {
    pub(super) matrix: &'m Matrix,
    pub(super) faults: &'f mut Diagnostics,
    pub(super) seen: Seen,
}

/// Entries read so far, to find duplicates. Sets, because a file may hold very many entries.
#[derive(Default)]
pub(super) struct Seen {
    /// Names of hosts and peers: each must be unique in `from` and `to`.
    pub(super) places: HashMap<String, Place>,
    /// Owner of each address.
    owners: HashMap<IpNet, String>,
    /// Matrix rows with a change.
    changed: HashSet<u32>,
    /// Names of the site's own rows.
    pub(super) rows: HashSet<String>,
}

impl Reader<'_, '_> {
    fn host(&mut self, mut table: Table<'_>) -> Option<Host> {
        let name =
            table.need("name", "\"pom1\"", self.faults).and_then(|value| self.new_name(value, Place::Host));
        let label = name.as_ref().map_or("another host", |at| &at.value).to_owned();
        let mut addresses: Vec<At<IpNet>> = Vec::new();
        for item in self.need_items(&mut table, "addresses", "[\"10.20.0.11\"]") {
            let Some(address) = item.read(self.faults, address::host_addresses) else { continue };
            self.owned_once(item, address.value, &label);
            addresses.push(address);
        }
        let systems = self.systems(&mut table, true);
        table.finish(self.faults);
        Some(Host { name: name?, addresses, systems })
    }

    /// Records the owner of an address, and refuses an address that has an owner already.
    fn owned_once(&mut self, item: Value<'_>, address: IpNet, label: &str) {
        if let Some(owner) = self.seen.owners.insert(address, label.to_owned()) {
            let problem = format!("{owner} has this address already");
            let remedy = "write each address once, at one host; an address that several hosts may hold belongs in a \
                          [[floating]] with addresses and hosts";
            item.refuse(problem, remedy, self.faults);
        }
    }

    fn floating(&mut self, mut table: Table<'_>) -> Floating {
        let mut addresses = Vec::new();
        for item in self.need_items(&mut table, "addresses", "[\"10.20.0.100\"]") {
            let Some(address) = item.read(self.faults, address::host_address) else { continue };
            self.owned_once(item, address.value.into(), "a [[floating]]");
            addresses.push(address);
        }
        let mut hosts: Vec<At<String>> = Vec::new();
        for item in self.need_items(&mut table, "hosts", "[\"pom1\", \"pom2\"]") {
            let Some(name) = item.string(self.faults) else { continue };
            if !matches!(self.seen.places.get(&name.value), Some(Place::Host(_))) {
                item.refuse("no [[host]] has this name", "write the name of a [[host]]", self.faults);
            } else if hosts.iter().any(|other| other.value == name.value) {
                item.refuse("listed twice", "write each host once", self.faults);
            }
            hosts.push(name);
        }
        table.finish(self.faults);
        Floating { addresses, hosts }
    }

    fn peer(&mut self, mut table: Table<'_>) -> PeerGroup {
        let named = table.get("name");
        let name = named.and_then(|value| self.new_name(value, Place::Peer));
        let systems = self.systems(&mut table, named.is_none());
        let anywhere = self.anywhere(&mut table);
        let items = self.need_items(&mut table, "addresses", "[\"10.50.0.0/16\"]");
        let addresses = items.iter().filter_map(|item| {
            item.read(self.faults, |written| bounded(address::prefixes(written)?, anywhere, written))
        });
        let peer = PeerGroup { name, addresses: addresses.collect(), systems };
        table.finish(self.faults);
        peer
    }

    fn change(&mut self, mut table: Table<'_>) -> Option<Override> {
        let origin = table.origin();
        let id = table.need("id", &format!("\"{}/1\"", self.matrix.id), self.faults);
        let row = id.and_then(|value| value.read(self.faults, |written| self.matrix.number(written)));
        let ports_value = table.get("ports");
        let ports = ports_value.and_then(|value| {
            value.read(self.faults, |written| Ok((written.to_owned(), ports::specs(written)?)))
        });
        let enabled_value = table.get("enabled");
        let enabled = enabled_value.and_then(|value| value.boolean(self.faults));
        let mode_value = table.get("mode");
        let mode = mode_value.and_then(|value| value.word(&ROW_MODES, self.faults));
        let force =
            table.get("force").and_then(|value| value.boolean(self.faults)).is_some_and(|at| at.value);
        table.finish(self.faults);
        if ports_value.or(enabled_value).or(mode_value).is_none() {
            let remedy = "write ports, enabled or mode, or remove the table";
            self.faults.add(origin.clone(), "[[row]]", "changes nothing", remedy);
        }
        let row = row?;
        if let (Some(id), false) = (id, self.seen.changed.insert(row.value)) {
            id.refuse("this row is changed twice", "write one [[row]] with all changes", self.faults);
        }
        let printed = self.matrix.row(row.value)?;
        if let (Some(value), Some(_)) = (ports_value, &ports)
            && printed.configurable.is_empty()
            && !force
        {
            let problem =
                format!("the ports of {} are fixed: no (C) in print", self.matrix.row_id(row.value));
            value.refuse(
                problem,
                "remove it, or add force = true if the product was really changed",
                self.faults,
            );
        }
        if let (Some(value), Some(enabled)) = (enabled_value, &enabled)
            && !enabled.value
            && !printed.optional
            && !force
        {
            let problem = format!("{} is not optional", self.matrix.row_id(row.value));
            value.refuse(problem, "remove it, or add force = true to cut it all the same", self.faults);
        }
        let ports = ports.map(|at| At {
            value: (at.value.0, if force { at.value.1 } else { with_fixed(printed, at.value.1) }),
            origin: at.origin,
        });
        Some(Override { row, ports, enabled, mode, force, origin })
    }

    /// Reads a name that no other host, peer or system has.
    fn new_name(&mut self, value: Value<'_>, place: fn(String) -> Place) -> Option<At<String>> {
        let name = value.read(self.faults, plain_name)?;
        let mut systems = self.matrix.systems.iter();
        let system = systems.any(|system| system.name == name.value || system.aliases.contains(&name.value));
        let earlier = self.seen.places.insert(name.value.clone(), place(name.value.clone()));
        if name.value == EVERY_HOST || system || earlier.is_some() {
            value.refuse("this name is taken", "choose one that no host, peer or system has", self.faults);
        }
        Some(name)
    }

    pub(super) fn need_items<'a>(
        &mut self,
        table: &mut Table<'a>,
        key: &'static str,
        example: &str,
    ) -> Vec<Value<'a>> {
        table.need(key, example, self.faults).map(|value| value.items(self.faults)).unwrap_or_default()
    }

    fn systems(&mut self, table: &mut Table<'_>, needed: bool) -> Vec<At<String>> {
        let items = if needed {
            self.need_items(table, "systems", "[\"…\"]")
        } else {
            table.get("systems").map(|value| value.items(self.faults)).unwrap_or_default()
        };
        let mut systems: Vec<At<String>> = Vec::new();
        for item in items {
            let found = item.read(self.faults, |written| self.matrix.system(written).map(str::to_owned));
            let Some(system) = found else { continue };
            if systems.iter().any(|other| other.value == system.value) {
                item.refuse("listed twice", "write each system once", self.faults);
            } else {
                systems.push(system);
            }
        }
        systems
    }

    /// Returns true if the table explicitly allows a whole address family (`anywhere = true`).
    pub(super) fn anywhere(&mut self, table: &mut Table<'_>) -> bool {
        table.get("anywhere").and_then(|value| value.boolean(self.faults)).is_some_and(|at| at.value)
    }
}

/// Returns the moved ports together with the fixed ports. Without `force` only the ports marked (C) move.
fn with_fixed(row: &crate::input::matrix::MatrixRow, moved: Vec<PortSpec>) -> Vec<PortSpec> {
    let fixed =
        row.ports.iter().copied().filter(|spec| !row.configurable.contains(spec) && !moved.contains(spec));
    let mut ports: Vec<PortSpec> = fixed.collect();
    ports.extend(moved);
    ports
}

/// Refuses a prefix of length 0, which means every address, unless `anywhere` is true.
pub(super) fn bounded(nets: Prefixes, anywhere: bool, written: &str) -> Result<Prefixes, Fault> {
    if !anywhere && nets.iter().any(|net| net.prefix_len() == 0) {
        let problem = format!("{written} is every address there is");
        return Err(Fault::new(
            problem,
            "write the networks that are meant, or add anywhere = true to this table",
        ));
    }
    Ok(nets)
}

/// Parses a name of a host, a peer or a row. The name becomes part of ids, labels and file names.
pub(crate) fn plain_name(written: &str) -> Result<String, Fault> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    let opens_well = written.starts_with(|letter: char| letter.is_ascii_alphanumeric());
    if written.len() > NAME || !opens_well || !written.chars().all(plain) {
        let remedy = format!("write letters, digits, dot, dash and underscore, at most {NAME}");
        return Err(Fault::new("not a plain name", remedy));
    }
    if address::prefixes(written).is_ok() {
        return Err(Fault::new("an address, not a name", "write a name such as \"pom1\""));
    }
    Ok(written.to_owned())
}
