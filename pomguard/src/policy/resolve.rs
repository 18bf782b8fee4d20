//! Applies the site to the matrix, for one host.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{
    Direction, Known, MachineAddresses, MatrixName, Mode, Origin, Peer, Policy, PortRange, Row, RowId,
    Service,
};
use crate::input::{
    Diagnostics, Draft,
    matrix::MatrixRow,
    ports::PortSpec,
    site::{Allow, Host, Place, WrittenPlace},
};

/// ICMP and ICMPv6 exist in one address family each.
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// A matrix row after the site's changes.
#[derive(Clone, Debug)]
pub struct Effective<'a> {
    /// The row as read.
    pub row: &'a MatrixRow,
    /// Ports from the matrix, or from the site.
    pub ports: Vec<PortSpec>,
    /// The ports as printed or as the site wrote them.
    pub printed: String,
    /// True if the row is on.
    pub enabled: bool,
    /// Audit or enforce.
    pub mode: Mode,
}

/// Returns the rows of the matrix after the changes of the site and of this server, in print order.
pub fn effective(draft: &Draft) -> Vec<Effective<'_>> {
    let apply = |row: &'_ MatrixRow| -> (Vec<PortSpec>, String, bool, Mode) {
        let change = draft.site.overrides.iter().find(|change| change.row.value == row.number);
        let written = change.and_then(|change| change.ports.as_ref());
        let (printed, ports) = match written {
            Some(at) => at.value.clone(),
            None => (row.printed.ports.clone(), row.ports.clone()),
        };
        let enabled = change.and_then(|change| change.enabled.as_ref()).map_or(row.open, |at| at.value);
        let in_site = change.and_then(|change| change.mode.as_ref()).map_or(Mode::Enforce, |at| at.value);
        (ports, printed, enabled, mode_here(draft, &draft.matrix.row_id(row.number), in_site))
    };
    let one = |row| {
        let (ports, printed, enabled, mode) = apply(row);
        Effective { row, ports, printed, enabled, mode }
    };
    draft.matrix.rows.iter().map(one).collect()
}

/// Returns the mode of a row on this server. `pomguard.toml` takes precedence over the site file.
fn mode_here(draft: &Draft, id: &RowId, in_site: Mode) -> Mode {
    draft.settings.rows.iter().rfind(|(at, _)| at.value == id.0).map_or(in_site, |&(_, mode)| mode)
}

/// Returns the policy of this host. `interfaces` are the addresses of the machine; they identify the host in
/// the site file if `pomguard.toml` does not name the host.
pub fn resolve(draft: &Draft, interfaces: &[IpAddr]) -> Result<Policy, Diagnostics> {
    let host = this_host(draft, interfaces)?;
    let mut faults = Diagnostics::default();
    for (id, mode) in &draft.settings.rows {
        let Some(name) = id.value.strip_prefix("site/") else { continue };
        match draft.site.allows.iter().find(|allow| allow.name.value == name) {
            None => {
                let remedy = "write the name of an [[allow]]";
                faults.add(id.origin.clone(), &id.value, "the site has no such row", remedy);
            }
            Some(allow) if allow.failsafe && *mode != Mode::Enforce => {
                let problem = "a failsafe row holds in every mode";
                faults.add(id.origin.clone(), &id.value, problem, "remove the [[row]]");
            }
            Some(_) => {}
        }
    }
    let view = View { draft, host };
    let mut rows = Vec::new();
    let (failsafe, others): (Vec<&Allow>, Vec<&Allow>) =
        draft.site.allows.iter().partition(|allow| allow.failsafe);
    rows.extend(failsafe.into_iter().flat_map(|allow| view.site_row(allow)));
    for row in effective(draft).iter().filter(|row| row.enabled) {
        rows.extend(view.matrix_row(row));
    }
    rows.extend(others.into_iter().flat_map(|allow| view.site_row(allow)));
    faults.into_result(Policy {
        host: host.name.value.clone(),
        matrix: MatrixName { id: draft.matrix.id.clone(), title: draft.matrix.title.clone() },
        local: host.addresses.iter().filter(|at| is_single(&at.value)).map(|at| at.value.addr()).collect(),
        shared: view.shared(),
        own_addresses: draft.settings.own_addresses,
        machine: MachineAddresses::default(),
        inbound: draft.settings.inbound,
        outbound: draft.settings.outbound,
        rows,
        known: view.known(),
        packets: draft.settings.packets.clone(),
        flows: draft.settings.flows.clone(),
    })
}

/// Returns the addresses of a place of the site, as this host meets them: its own are left out.
///
/// # Errors
/// If the site does not tell which of its hosts this is; see [`resolve`].
pub fn addresses_of(
    draft: &Draft,
    interfaces: &[IpAddr],
    place: &WrittenPlace,
) -> Result<Vec<IpNet>, Diagnostics> {
    let mut peers = Peers::default();
    View { draft, host: this_host(draft, interfaces)? }.add_place(place, &mut peers);
    Ok(peers.finish().into_iter().map(|peer| peer.prefix).collect())
}

fn this_host<'a>(draft: &'a Draft, interfaces: &[IpAddr]) -> Result<&'a Host, Diagnostics> {
    let hosts = &draft.site.hosts;
    let names = |hosts: &[&Host]| {
        let names: Vec<&str> = hosts.iter().map(|host| host.name.value.as_str()).collect();
        format!("\"{}\"", names.join("\", \""))
    };
    let all = || names(&hosts.iter().collect::<Vec<_>>());
    if let Some(named) = &draft.settings.host {
        return hosts.iter().find(|host| host.name.value == named.value).ok_or_else(|| {
            let remedy = format!("write one of {}", all());
            Diagnostics::one(named.origin.clone(), &named.value, "the site has no such host", &remedy)
        });
    }
    let here = |host: &&Host| interfaces.iter().any(|&address| host.has(address));
    let found: Vec<&Host> = hosts.iter().filter(here).collect();
    let origin = || Origin { file: draft.settings.file.clone(), line: 1 };
    match found.as_slice() {
        [host] => Ok(host),
        [] => {
            let remedy = format!("write host = one of {}, or correct the site file", all());
            let problem = "no host of the site has an address of this server";
            Err(Diagnostics::one(origin(), "host", problem, &remedy))
        }
        several => {
            let remedy = format!("write host = one of {}", names(several));
            Err(Diagnostics::one(origin(), "host", "this server has addresses of several hosts", &remedy))
        }
    }
}

/// The site as one host sees it.
struct View<'a> {
    draft: &'a Draft,
    host: &'a Host,
}

/// Prefixes and their owners, in the order in which they are found.
#[derive(Default)]
struct Peers(Vec<Peer>);

impl Peers {
    fn add(&mut self, prefix: IpNet, name: &Arc<str>, origin: &Origin) {
        self.0.push(Peer { prefix, name: name.clone(), origin: origin.clone() });
    }

    /// Returns each prefix once, sorted by address, with all its names and the place where the prefix was found
    /// first.
    fn finish(mut self) -> Vec<Peer> {
        // Sorts by separate keys: sorting the items themselves would take as much memory again.
        self.0.sort_by_cached_key(|peer| peer.prefix);
        self.0.dedup_by(|next, first| {
            let same = next.prefix == first.prefix;
            if same && !first.name.split(", ").any(|other| other == &*next.name) {
                first.name = format!("{}, {}", first.name, next.name).into();
            }
            same
        });
        self.0
    }
}

impl View<'_> {
    /// Returns own prefixes and floating addresses, sorted.
    fn shared(&self) -> Vec<IpNet> {
        let prefixes = self.host.addresses.iter().map(|at| at.value).filter(|net| !is_single(net));
        let floating = self.draft.site.floating_of(self.host).map(|at| IpNet::from(at.value));
        let mut shared: Vec<IpNet> = prefixes.chain(floating).collect();
        shared.sort_unstable();
        shared
    }

    fn runs(&self, systems: &[String]) -> bool {
        self.host.systems.iter().any(|system| systems.contains(&system.value))
    }

    /// Returns true if this host has an address in the prefix.
    fn inside(&self, prefix: &IpNet) -> bool {
        self.host.addresses.iter().any(|at| prefix.contains(&at.value))
    }

    /// Returns true if these prefixes cover all addresses of this host.
    fn covers(&self, nets: &[IpNet]) -> bool {
        let floating = self.draft.site.floating_of(self.host).map(|at| IpNet::from(at.value));
        let mut own = self.host.addresses.iter().map(|at| at.value).chain(floating);
        own.all(|own| nets.iter().any(|net| net.contains(&own)))
    }

    /// Adds another host. This host is never its own peer: packets to itself stay on `lo`.
    fn add_host(&self, host: &Host, peers: &mut Peers) {
        if host.name.value == self.host.name.value {
            return;
        }
        let name = host.name.value.as_str().into();
        for at in &host.addresses {
            peers.add(at.value, &name, &at.origin);
        }
        for at in self.draft.site.floating_of(host) {
            peers.add(IpNet::from(at.value), &name, &at.origin);
        }
    }

    fn add_prefixes(&self, prefixes: &[IpNet], name: &Arc<str>, origin: &Origin, peers: &mut Peers) {
        let own = |prefix: &&IpNet| self.host.addresses.iter().any(|at| at.value == **prefix);
        for &prefix in prefixes.iter().filter(|prefix| !own(prefix)) {
            peers.add(prefix, name, origin);
        }
    }

    fn add_system(&self, system: &str, peers: &mut Peers) {
        let name = system.into();
        for host in &self.draft.site.hosts {
            if host.systems.iter().any(|at| at.value == system) {
                self.add_host(host, peers);
            }
        }
        for group in &self.draft.site.peers {
            if group.systems.iter().any(|at| at.value == system) {
                for at in &group.addresses {
                    self.add_prefixes(&at.value, &name, &at.origin, peers);
                }
            }
        }
    }

    fn matrix_row(&self, effective: &Effective<'_>) -> Vec<Row> {
        let row = effective.row;
        let mut rows = Vec::new();
        for (direction, here, there) in [
            (Direction::Inbound, &row.destination, &row.source),
            (Direction::Outbound, &row.source, &row.destination),
        ] {
            if !self.runs(here) {
                continue;
            }
            let mut peers = Peers::default();
            for system in there {
                self.add_system(system, &mut peers);
            }
            let ranges: Vec<PortRange> =
                effective.ports.iter().filter_map(|spec| spec.at(self.draft.site.zones)).collect();
            rows.push(Row {
                id: self.draft.matrix.row_id(row.number),
                direction,
                source: shared(&row.source),
                destination: shared(&row.destination),
                printed: effective.printed.clone(),
                protocol: row.printed.protocol.clone(),
                peers: peers.finish(),
                client_ports: row.source_ports,
                services: services(&row.transport, &ranges),
                mode: effective.mode,
                failsafe: false,
                purpose: row.purpose.clone(),
                origin: row.origin.clone(),
            });
        }
        rows
    }

    fn site_row(&self, allow: &Allow) -> Vec<Row> {
        let id = RowId(format!("site/{}", allow.name.value));
        let mut rows = Vec::new();
        for (direction, here, there) in
            [(Direction::Inbound, &allow.to, &allow.from), (Direction::Outbound, &allow.from, &allow.to)]
        {
            if !here.iter().any(|place| self.is_here(&place.place)) {
                continue;
            }
            let mut peers = Peers(Vec::with_capacity(there.len()));
            for place in there {
                self.add_place(place, &mut peers);
            }
            let mut peers = peers.finish();
            // A prefix of the other family could carry the number, but never the protocol.
            match allow.protocols.as_slice() {
                [ICMP] => peers.retain(|peer| peer.prefix.addr().is_ipv4()),
                [ICMPV6] => peers.retain(|peer| peer.prefix.addr().is_ipv6()),
                _ => {}
            }
            // A row is about a host: an address that stands for this host opens all addresses of this host.
            let named = |places: &[WrittenPlace], ours: bool| {
                let name = |place: &WrittenPlace| match &place.place {
                    Place::Addresses(nets) if ours && !self.covers(nets) && self.is_here(&place.place) => {
                        format!("{} ({})", self.host.name.value, place.written).into()
                    }
                    _ => place.written.clone(),
                };
                places.iter().map(name).collect::<Vec<Arc<str>>>()
            };
            rows.push(Row {
                mode: if allow.failsafe { Mode::Enforce } else { mode_here(self.draft, &id, allow.mode) },
                id: id.clone(),
                direction,
                source: named(&allow.from, direction == Direction::Outbound),
                destination: named(&allow.to, direction == Direction::Inbound),
                printed: allow.printed.clone(),
                protocol: allow.protocol.clone(),
                peers,
                client_ports: allow.source_ports,
                services: services(&allow.protocols, &allow.ports),
                failsafe: allow.failsafe,
                purpose: allow.purpose.clone(),
                origin: allow.origin.clone(),
            });
        }
        rows
    }

    /// Returns true if the place means this host, or contains this host.
    fn is_here(&self, place: &Place) -> bool {
        match place {
            Place::EveryHost => true,
            Place::Host(name) => *name == self.host.name.value,
            Place::System(system) => self.host.systems.iter().any(|at| at.value == *system),
            Place::Addresses(nets) => nets.iter().any(|net| self.inside(net)),
            Place::Peer(_) => false,
        }
    }

    fn add_place(&self, place: &WrittenPlace, peers: &mut Peers) {
        let site = &self.draft.site;
        match &place.place {
            Place::EveryHost => site.hosts.iter().for_each(|host| self.add_host(host, peers)),
            Place::Host(name) => {
                site.hosts
                    .iter()
                    .filter(|host| host.name.value == *name)
                    .for_each(|host| self.add_host(host, peers));
            }
            Place::System(system) => self.add_system(system, peers),
            Place::Addresses(nets) => {
                self.add_prefixes(nets, &place.written, &place.origin, peers);
            }
            Place::Peer(name) => {
                let named = |group: &&crate::input::site::PeerGroup| {
                    group.name.as_ref().is_some_and(|at| at.value == *name)
                };
                let name = name.as_str().into();
                for at in site.peers.iter().filter(named).flat_map(|group| &group.addresses) {
                    self.add_prefixes(&at.value, &name, &at.origin, peers);
                }
            }
        }
    }

    fn known(&self) -> Vec<Known> {
        let mut known = Peers::default();
        for host in &self.draft.site.hosts {
            self.add_host(host, &mut known);
        }
        for group in &self.draft.site.peers {
            let label = group.label().into();
            for at in &group.addresses {
                self.add_prefixes(&at.value, &label, &at.origin, &mut known);
            }
        }
        known.finish().into_iter().map(|peer| Known { prefix: peer.prefix, name: peer.name }).collect()
    }
}

/// Returns true if a prefix is a single address.
fn is_single(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

fn shared(names: &[String]) -> Vec<Arc<str>> {
    names.iter().map(|name| name.as_str().into()).collect()
}

/// Returns every protocol with every range, in order. Adjacent ranges are merged.
fn services(protocols: &[u8], ranges: &[PortRange]) -> Vec<Service> {
    let mut ranges = ranges.to_vec();
    ranges.sort_unstable();
    let mut merged: Vec<PortRange> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.first <= last.last.saturating_add(1) => last.last = last.last.max(range.last),
            _ => merged.push(range),
        }
    }
    let at = |&protocol: &u8| merged.iter().map(move |&ports| Service { protocol, ports });
    protocols.iter().flat_map(at).collect()
}
