//! Reads a question of `explain` as people write it: names of the site, prefixes, ports by name.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use pomguard_common::protocol::{ICMP, ICMPV6, TCP, UDP};
use serde::Serialize;

use super::{
    Direction, Policy,
    oracle::Opening,
    precedence::{Alongside, Ruling, judge},
    services::Services,
};
use crate::input::{Draft, address, diagnostic::Fault};

/// Client port for questions that name none, from the usual ephemeral range.
const SOME_CLIENT_PORT: u16 = 50_000;
/// The most packets that one question stands for.
const MOST: usize = 20_000;

/// A question, with its names resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    sources: Vec<IpNet>,
    source_port: u16,
    destinations: Vec<IpNet>,
    /// Destination port and protocol.
    services: Vec<(u16, u8)>,
}

/// Packets with the same answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AnswerGroup {
    /// The answer.
    pub ruling: Ruling,
    /// One of the packets.
    pub opening: Opening,
    /// The sources, as ranges, first and last address.
    pub sources: Vec<(IpAddr, IpAddr)>,
    /// The destinations, likewise.
    pub destinations: Vec<(IpAddr, IpAddr)>,
}

const FORM: &str = "write it as SRC[:PORT] to DST:PORT/PROTO, such as 10.50.3.7 to 10.20.0.11:9970/tcp, \
                    \"Agent Desktop\" to pom1:https, [fd00::7]:40000 to [fd00::1]:9970/tcp";

fn wrong(problem: impl Into<String>) -> Fault {
    Fault::new(problem, FORM)
}

impl Question {
    /// Reads `SRC [to] DST`. The names are those of the site file.
    ///
    /// # Errors
    /// If the words are no question; the fault says how to write one.
    pub fn read(draft: &Draft, services: &Services, words: &[String]) -> Result<Self, Fault> {
        let (source, destination) = match words {
            [source, destination] => (source.as_str(), destination.as_str()),
            [source, to, destination] if to.eq_ignore_ascii_case("to") => {
                (source.as_str(), destination.as_str())
            }
            [both] => both.split_once(" to ").ok_or_else(|| wrong("the destination is missing"))?,
            _ => return Err(wrong("a question has two ends, with or without `to` between them")),
        };
        let (source, destination) = (source.trim(), destination.trim());
        let (target, protocol) = split_protocol(destination)?;
        let (sources, from) = endpoint(draft, source)?;
        let (destinations, to) = endpoint(draft, target)?;
        let ported = protocol.is_none_or(|protocol| matches!(protocol, TCP | UDP));
        let source_port = match from {
            None => SOME_CLIENT_PORT,
            Some(port) => port.parse().map_err(|_| wrong(format!("{port} is no client port")))?,
        };
        let services = match (to, protocol) {
            (_, Some(protocol)) if !ported => vec![(0, protocol)],
            (None, _) => return Err(wrong("the destination port is missing")),
            (Some(port), _) => served(draft, services, port, protocol)?,
        };
        let question =
            Self { sources, source_port: if ported { source_port } else { 0 }, destinations, services };
        if question.pairs().next().is_none() {
            return Err(wrong("one end is IPv4, the other IPv6"));
        }
        let extension = |&(_, protocol): &(u16, u8)| matches!(protocol, 0 | 43 | 44 | 60);
        if question.services.iter().any(extension) && question.sources.iter().any(|net| net.addr().is_ipv6())
        {
            return Err(Fault::new(
                "in IPv6 this number is an extension header, no protocol",
                "name the protocol that follows the header",
            ));
        }
        Ok(question)
    }

    fn pairs(&self) -> impl Iterator<Item = (IpNet, IpNet)> + '_ {
        let all = |source: &IpNet| {
            let source = *source;
            self.destinations.iter().map(move |destination| (source, *destination))
        };
        self.sources
            .iter()
            .flat_map(all)
            .filter(|(one, other)| one.addr().is_ipv4() == other.addr().is_ipv4())
    }

    /// Returns the answers of a policy, each with all packets that get it, in the order of the question.
    ///
    /// # Errors
    /// If the question stands for too many packets that may get different answers.
    pub fn answers(&self, policy: &Policy, alongside: &Alongside) -> Result<Vec<AnswerGroup>, Fault> {
        let edges = edges(policy, alongside);
        let mut groups: Vec<AnswerGroup> = Vec::new();
        let mut packets = 0;
        for (sources, destinations) in self.pairs() {
            let (sources, destinations) = (parts(sources, &edges), parts(destinations, &edges));
            packets += sources.len() * destinations.len() * self.services.len();
            if packets > MOST {
                return Err(Fault::new(
                    format!("the policy has more than {MOST} different cases in there"),
                    "ask about a narrower prefix, or about one system",
                ));
            }
            for &(destination_port, protocol) in &self.services {
                for to in &destinations {
                    for from in &sources {
                        let opening = self.opening(policy, (from.0, to.0), destination_port, protocol);
                        let ruling = judge(policy, alongside, &opening);
                        add(&mut groups, ruling, opening, (*from, *to));
                    }
                }
            }
        }
        Ok(merged(groups))
    }

    /// Returns the packet, if the question is about one packet alone.
    #[must_use]
    pub fn packet(&self, policy: &Policy) -> Option<Opening> {
        let mut pairs = self.pairs();
        let (Some((source, destination)), None) = (pairs.next(), pairs.next()) else { return None };
        let single = |net: IpNet| net.prefix_len() == net.max_prefix_len();
        let [(port, protocol)] = *self.services.as_slice() else { return None };
        let ends = (source.addr(), destination.addr());
        (single(source) && single(destination)).then(|| self.opening(policy, ends, port, protocol))
    }

    fn opening(
        &self,
        policy: &Policy,
        ends: (IpAddr, IpAddr),
        destination_port: u16,
        protocol: u8,
    ) -> Opening {
        let (source, destination) = ends;
        let direction = direction(policy, source, destination);
        Opening { direction, source, source_port: self.source_port, destination, destination_port, protocol }
    }
}

/// Returns the direction of a packet. If neither end is this host, the question is about an inbound packet.
fn direction(policy: &Policy, source: IpAddr, destination: IpAddr) -> Direction {
    // A host that does not hold a floating address connects to that address as to any other host's.
    match (policy.is_own(source), policy.is_own(destination)) {
        (true, true) if policy.may_send(source) && !policy.may_send(destination) => Direction::Outbound,
        (true, false) => Direction::Outbound,
        (false, false) if policy.machine.held.contains(&source) => Direction::Outbound,
        (_, true) | (false, false) => Direction::Inbound,
    }
}

fn add(groups: &mut Vec<AnswerGroup>, ruling: Ruling, opening: Opening, (from, to): (Part, Part)) {
    let same = |group: &&mut AnswerGroup| {
        group.ruling == ruling
            && group.opening.direction == opening.direction
            && group.opening.destination_port == opening.destination_port
            && group.opening.protocol == opening.protocol
            && group.destinations == [to]
    };
    match groups.iter_mut().find(same) {
        Some(group) => join(&mut group.sources, from),
        None => groups.push(AnswerGroup { ruling, opening, sources: vec![from], destinations: vec![to] }),
    }
}

/// Joins the destinations of groups with the same answer to the same sources.
fn merged(groups: Vec<AnswerGroup>) -> Vec<AnswerGroup> {
    let mut all: Vec<AnswerGroup> = Vec::new();
    for group in groups {
        let same = |other: &&mut AnswerGroup| {
            other.ruling == group.ruling
                && other.sources == group.sources
                && other.opening.direction == group.opening.direction
                && other.opening.destination_port == group.opening.destination_port
                && other.opening.protocol == group.opening.protocol
        };
        match all.iter_mut().find(same) {
            Some(other) => {
                group.destinations.into_iter().for_each(|part| join(&mut other.destinations, part));
            }
            None => all.push(group),
        }
    }
    all
}

/// First and last address of a part of a prefix.
type Part = (IpAddr, IpAddr);

/// Adds a part to a list, joined to the last part if there is no gap between.
fn join(parts: &mut Vec<Part>, part: Part) {
    if parts.contains(&part) {
        return;
    }
    match parts.last_mut() {
        Some(last) if following(last.1) == Some(part.0) => last.1 = part.1,
        _ => parts.push(part),
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// Returns the address with this number in the family of `like`.
fn numbered(number: u128, like: IpAddr) -> Option<IpAddr> {
    match like {
        IpAddr::V4(_) => u32::try_from(number).ok().map(|number| Ipv4Addr::from(number).into()),
        IpAddr::V6(_) => Some(Ipv6Addr::from(number).into()),
    }
}

fn following(address: IpAddr) -> Option<IpAddr> {
    numbered(number(address).checked_add(1)?, address)
}

fn preceding(address: IpAddr) -> Option<IpAddr> {
    numbered(number(address).checked_sub(1)?, address)
}

/// Returns the addresses at which the answer may change: the first of each prefix that the policy or the
/// programs distinguish, and the first behind it.
fn edges(policy: &Policy, alongside: &Alongside) -> BTreeSet<IpAddr> {
    let rows = policy.rows.iter().chain(&alongside.exceptions);
    let single = |address: &IpAddr| IpNet::from(*address);
    let nets = rows
        .flat_map(|row| row.peers.iter().map(|peer| peer.prefix))
        .chain(policy.known.iter().map(|known| known.prefix))
        .chain(policy.local.iter().map(single))
        .chain(policy.shared.iter().copied())
        .chain(policy.machine.taken.iter().map(single))
        .chain(policy.machine.held.iter().map(single))
        .chain(special());
    nets.flat_map(|net| [Some(net.network()), following(net.broadcast())]).flatten().collect()
}

/// Returns the prefixes whose addresses are no ordinary sources or destinations.
fn special() -> Vec<IpNet> {
    const V4: [(u32, u8); 9] = [
        (0x0000_0000, 8),
        (0x0a00_0000, 8),
        (0x7f00_0000, 8),
        (0xa9fe_0000, 16),
        (0xac10_0000, 12),
        (0xc0a8_0000, 16),
        (0xe000_0000, 3),
        (0xe000_0012, 32),
        (0xffff_ffff, 32),
    ];
    const V6: [(u128, u8); 6] = [
        (0, 96),
        (0, 128),
        (0xffff_0000_0000, 96),
        (0xfe80 << 112, 10),
        (0xff << 120, 8),
        ((0xff02 << 112) | 0x12, 128),
    ];
    let mut nets = Vec::new();
    let v6 = |address: u128, length: u8| Ipv6Net::new(address.into(), length).ok().map(IpNet::from);
    for (address, length) in V4 {
        nets.extend(Ipv4Net::new(address.into(), length).ok().map(IpNet::from));
        // The same address inside 6to4 and NAT64 addresses.
        nets.extend(v6((0x2002 << 112) | u128::from(address) << 80, 16 + length));
        nets.extend(v6((0x64_ff9b << 96) | u128::from(address), 96 + length));
    }
    nets.extend(V6.into_iter().filter_map(|(address, length)| v6(address, length)));
    nets
}

/// Splits a prefix at the edges.
fn parts(net: IpNet, edges: &BTreeSet<IpAddr>) -> Vec<Part> {
    let (first, last) = (net.network(), net.broadcast());
    let mut starts = vec![first];
    starts.extend(edges.range(first..=last).copied().filter(|&edge| edge != first));
    let ends = starts.iter().skip(1).filter_map(|&start| preceding(start)).chain([last]);
    let ends: Vec<IpAddr> = ends.collect();
    starts.into_iter().zip(ends).collect()
}

/// Splits `DST/PROTO`. Without a known protocol behind the last slash, the slash belongs to the destination.
fn split_protocol(written: &str) -> Result<(&str, Option<u8>), Fault> {
    let Some((target, protocol)) = written.rsplit_once('/') else { return Ok((written, None)) };
    let number = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => TCP,
        "udp" => UDP,
        "icmp" => ICMP,
        "icmpv6" | "ipv6-icmp" => ICMPV6,
        number => match number.parse() {
            Ok(number) => number,
            Err(_) if protocol.contains(':') => return Ok((written, None)),
            Err(_) => return Err(wrong(format!("{protocol} is no known protocol"))),
        },
    };
    Ok((target, Some(number)))
}

/// Resolves a place, and returns the text of the port behind it.
fn endpoint<'a>(draft: &Draft, written: &'a str) -> Result<(Vec<IpNet>, Option<&'a str>), Fault> {
    if let Some(nets) = named(draft, written) {
        return Ok((nets?, None));
    }
    if let Ok(socket) = written.parse::<SocketAddr>() {
        let port = written.rsplit_once(':').map(|(_, port)| port);
        return Ok((vec![address::address(&socket.ip().to_string())?.into()], port));
    }
    if let Some((bare, rest)) = written.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(port),
            None if rest.is_empty() => None,
            None => return Err(wrong(format!("{rest} behind the bracket is no port"))),
        };
        return Ok((address::prefixes(bare)?.to_vec(), port));
    }
    let (place, port) = match written.rsplit_once(':') {
        Some((place, port)) if !place.contains(':') => (place, Some(port)),
        _ => (written, None),
    };
    if let Some(nets) = named(draft, place) {
        return Ok((nets?, port));
    }
    if address::is_meant(place) {
        return Ok((address::prefixes(place)?.to_vec(), port));
    }
    let names = names(draft);
    let remedy = match crate::input::nearest_name(place, names.iter().map(String::as_str)) {
        Some(name) => format!("write \"{name}\", if that was meant"),
        None => "write an address, or the name of a host, a system or a peer of the site file".to_owned(),
    };
    Err(Fault::new(format!("{place} is neither an address nor a name of the site"), remedy))
}

/// Returns the names of hosts, systems and peers.
fn names(draft: &Draft) -> Vec<String> {
    let hosts = draft.site.hosts.iter();
    let hosts = hosts.flat_map(|host| std::iter::once(&host.name).chain(&host.systems));
    let peers = draft.site.peers.iter().flat_map(|peer| peer.name.iter().chain(&peer.systems));
    hosts.chain(peers).map(|at| at.value.clone()).collect()
}

/// Returns the addresses of a name, in any case; `None` if the site file has no such name.
fn named(draft: &Draft, name: &str) -> Option<Result<Vec<IpNet>, Fault>> {
    let is = |at: &crate::input::At<String>| at.value.eq_ignore_ascii_case(name);
    let mut nets: Vec<IpNet> = Vec::new();
    let mut found = false;
    for host in &draft.site.hosts {
        if is(&host.name) || host.systems.iter().any(is) {
            found = true;
            nets.extend(host.addresses.iter().map(|at| at.value));
            let floating = draft.site.floating.iter().filter(|floating| floating.names(host));
            nets.extend(
                floating.flat_map(|floating| floating.addresses.iter().map(|at| IpNet::from(at.value))),
            );
        }
    }
    for peer in &draft.site.peers {
        if peer.name.as_ref().is_some_and(is) || peer.systems.iter().any(is) {
            found = true;
            nets.extend(peer.addresses.iter().flat_map(|at| at.value.iter().copied()));
        }
    }
    nets.sort_unstable();
    nets.dedup();
    match (found, nets.is_empty()) {
        (false, _) => None,
        (true, true) => Some(Err(Fault::new(
            format!("the site file has no address for {name}"),
            "write the addresses of its machines into a [[peer]] or [[host]]",
        ))),
        (true, false) => Some(Ok(nets)),
    }
}

/// Returns the ports and protocols behind the text of a port: a number, the name of a service, or a system of
/// the matrix, which means the ports at which the matrix lets others reach that system.
fn served(
    draft: &Draft,
    services: &Services,
    port: &str,
    protocol: Option<u8>,
) -> Result<Vec<(u16, u8)>, Fault> {
    if let Ok(number) = port.parse::<u16>() {
        let protocol = protocol.ok_or_else(|| wrong("the protocol is missing"))?;
        return Ok(vec![(number, protocol)]);
    }
    let mut found = services.named(port);
    let rows = super::effective(draft);
    let of_system =
        rows.iter().filter(|row| row.row.destination.iter().any(|system| system.eq_ignore_ascii_case(port)));
    found.extend(of_system.flat_map(|row| {
        let ports = row.ports.iter().filter_map(|spec| spec.at(draft.site.zones)).map(|range| range.first);
        ports
            .flat_map(|port| row.row.transport.iter().map(move |protocol| (port, *protocol)))
            .collect::<Vec<_>>()
    }));
    found.retain(|(_, number)| protocol.is_none_or(|protocol| protocol == *number));
    found.sort_unstable();
    found.dedup();
    if found.is_empty() && port.chars().all(|letter| letter.is_ascii_digit()) {
        return Err(Fault::new(format!("{port} is no port"), "write a port from 0 to 65535"));
    }
    if found.is_empty() {
        return Err(Fault::new(
            format!("no service is named {port}"),
            "write the number of the port, a name of /etc/services, or a system of the matrix",
        ));
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
