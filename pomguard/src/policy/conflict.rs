//! Remarks about a policy that an operator should read before the policy is in force.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use pomguard_common::protocol;
use serde::Serialize;

mod peers;

use super::{
    Direction, Mode, Policy, PortRange, Row, Service,
    collision::collisions,
    resolve::{Effective, effective},
};
use crate::input::{Draft, matrix::RunsOn, ports::PortSpec, site::Host};

/// The importance of a remark, the most important first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// Something is open, cut, or can never work as written.
    Warning,
    /// For information.
    Note,
}

/// One remark.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Note {
    /// Kind of the remark, stable for programs.
    pub kind: &'static str,
    /// Message of one sentence.
    pub message: String,
    /// Ids of the rows in question.
    pub rows: Vec<String>,
}

impl Note {
    /// Returns the importance of the remark.
    #[must_use]
    pub fn weight(&self) -> Weight {
        match self.kind {
            "switched-off"
            | "grants-nothing"
            | "same-host"
            | "shadowed"
            | "repeated"
            | "in-audit"
            | "unplaced-system"
            | "no-end-mark"
            | "bridge-ports"
            | "container-interface"
            | "unlisted-listener"
            | "not-looked-at"
            | "group-missing" => Weight::Note,
            _ => Weight::Warning,
        }
    }
}

/// Returns all remarks about the site and about this host's part of the site.
pub fn notes(draft: &Draft, policy: &Policy) -> Vec<Note> {
    let rows = effective(draft);
    let mut notes = Vec::new();
    port_collisions(draft, &rows, &mut notes);
    too_few_ports(draft, &rows, &mut notes);
    metrics_port(draft, &rows, &mut notes);
    switched_off(draft, &rows, &mut notes);
    granting_nothing(draft, policy, &mut notes);
    one_host_both_ends(draft, policy, &mut notes);
    covered(policy, &mut notes);
    notes.extend(in_audit(policy));
    unplaced(draft, &mut notes);
    misplaced(draft, &mut notes);
    peers::notes(draft, &mut notes);
    no_way_in(policy, &mut notes);
    if !draft.site.end_marked {
        let message = "the site file has no end mark: a copy cut short between two tables would not be noticed; \
                       write end_marker = true at its top and [end] as its last line";
        notes.push(Note { kind: "no-end-mark", message: message.to_owned(), rows: Vec::new() });
    }
    notes
}

/// Notes a policy without an inbound failsafe row, which would keep the operator's access if the rest is wrong.
fn no_way_in(policy: &Policy, notes: &mut Vec<Note>) {
    let held = policy.rows_in(Direction::Inbound).any(|row| row.failsafe && !row.peers.is_empty());
    if !held {
        let message = format!(
            "inbound is in {}, and no failsafe row holds the way in when the rest is wrong; add an [[allow]] for SSH \
             from the management network with failsafe = true",
            policy.inbound.name()
        );
        notes.push(Note { kind: "no-failsafe", message, rows: Vec::new() });
    }
}

/// Notes ports per zone that overlap another row's ports, at this site's number of zones.
fn port_collisions(draft: &Draft, rows: &[Effective<'_>], notes: &mut Vec<Note>) {
    let enabled: Vec<Effective<'_>> = rows.iter().filter(|row| row.enabled).cloned().collect();
    let runs = |host: &Host, system: &str| host.systems.iter().any(|at| at.value == system);
    let together = |a: &str, b: &str| draft.site.hosts.iter().any(|host| runs(host, a) && runs(host, b));
    let zones = draft.site.zones;
    for found in
        collisions(&enabled, together).into_iter().filter(|found| found.from_zones <= u32::from(zones))
    {
        let (id, other) = (draft.matrix.row_id(found.row), draft.matrix.row_id(found.other));
        let message = format!(
            "ports {} of {id} and {} of {other} meet on one machine from {} zones on; the site has {zones}",
            found.ports, found.other_ports, found.from_zones
        );
        notes.push(Note { kind: "collision", message, rows: vec![id.0, other.0] });
    }
}

/// Notes a row with ports per zone to which the site gave fewer ports than zones.
fn too_few_ports(draft: &Draft, rows: &[Effective<'_>], notes: &mut Vec<Note>) {
    let zones = usize::from(draft.site.zones);
    let count = |ports: &[PortSpec]| -> usize {
        let ranges = ports.iter().filter_map(|spec| spec.at(draft.site.zones));
        ranges.map(|range| usize::from(range.last - range.first) + 1).sum()
    };
    for row in rows.iter().filter(|row| row.enabled) {
        let (needed, given) = (count(&row.row.ports), count(&row.ports));
        let per_zone = row.row.ports.iter().any(|spec| matches!(spec, PortSpec::PerZone(_)));
        if per_zone && given < needed {
            let id = draft.matrix.row_id(row.row.number).0;
            let message = format!("{id} has {given} ports, but needs {needed} for {zones} zones");
            notes.push(Note { kind: "too-few-ports", message, rows: vec![id] });
        }
    }
}

fn metrics_port(draft: &Draft, rows: &[Effective<'_>], notes: &mut Vec<Note>) {
    let Some(listen) = &draft.settings.metrics else { return };
    let port = listen.value.port();
    let taken = |row: &&Effective<'_>| {
        row.enabled
            && row.ports.iter().filter_map(|spec| spec.at(draft.site.zones)).any(|range| range.contains(port))
    };
    let ids: Vec<String> =
        rows.iter().filter(taken).map(|row| draft.matrix.row_id(row.row.number).0).collect();
    if !ids.is_empty() {
        let message = format!("port {port} of our own metrics listener belongs to {}", ids.join(", "));
        notes.push(Note { kind: "metrics-port", message, rows: ids });
    }
}

fn switched_off(draft: &Draft, rows: &[Effective<'_>], notes: &mut Vec<Note>) {
    for (optional, how) in [(true, "optional"), (false, "not optional: forced")] {
        let off = rows.iter().filter(|row| !row.enabled && row.row.optional == optional);
        let ids: Vec<String> = off.map(|row| draft.matrix.row_id(row.row.number).0).collect();
        if !ids.is_empty() {
            let verb = if ids.len() == 1 { "is" } else { "are" };
            let message = format!("{} {verb} switched off ({how})", ids.join(", "));
            notes.push(Note { kind: "switched-off", message, rows: ids });
        }
    }
}

/// Notes rows without a peer. A system that no machine runs has a line of its own, and is not repeated here.
fn granting_nothing(draft: &Draft, policy: &Policy, notes: &mut Vec<Note>) {
    let placed = placed(draft);
    let is_system = |name: &str| draft.matrix.systems.iter().any(|system| system.name == name);
    let mut by_side: BTreeMap<(Direction, String), Vec<String>> = BTreeMap::new();
    for row in policy.rows.iter().filter(|row| row.peers.is_empty()) {
        let other = match row.direction {
            Direction::Inbound => &row.source,
            Direction::Outbound => &row.destination,
        };
        if other.iter().any(|name| placed.contains(&**name) || !is_system(name)) {
            by_side.entry((row.direction, other.join(", "))).or_default().push(row.id.0.clone());
        }
    }
    for ((direction, other), rows) in by_side {
        let (verb, direction) = (if rows.len() == 1 { "grants" } else { "grant" }, direction.name());
        let message = format!("{} {verb} nothing {direction}: no other machine is {other}", rows.join(", "));
        notes.push(Note { kind: "grants-nothing", message, rows });
    }
}

/// Notes rows with both ends on this host: that part of their traffic stays on `lo`.
fn one_host_both_ends(draft: &Draft, policy: &Policy, notes: &mut Vec<Note>) {
    let inbound: BTreeSet<_> = policy.rows_in(Direction::Inbound).map(|row| &row.id).collect();
    let both = policy.rows_in(Direction::Outbound).filter(|row| inbound.contains(&row.id));
    let in_matrix = |row: &&Row| row.id.0.starts_with(&format!("{}/", draft.matrix.id));
    let ids: Vec<String> = both.filter(in_matrix).map(|row| row.id.0.clone()).collect();
    if !ids.is_empty() {
        let message = format!(
            "both ends are on {}: what it sends itself stays on lo and is neither judged nor counted",
            policy.host
        );
        notes.push(Note { kind: "same-host", message, rows: ids });
    }
}

/// Notes rows whose every tuple is allowed by earlier rows: they are never counted.
fn covered(policy: &Policy, notes: &mut Vec<Note>) {
    // One line for each kind, with all its rows.
    let mut found: BTreeMap<&'static str, (Vec<String>, Vec<String>)> = BTreeMap::new();
    for direction in Direction::ALL {
        let rows: Vec<&Row> = policy.rows_in(direction).collect();
        let mut before: BTreeMap<IpNet, Vec<usize>> = BTreeMap::new();
        for (index, row) in rows.iter().enumerate() {
            if let Some(covering) = covering(row, &rows, &before) {
                let by: Vec<String> =
                    covering.iter().filter_map(|&at| rows.get(at)).map(|row| row.id.0.clone()).collect();
                let same = covering
                    .iter()
                    .filter_map(|&at| rows.get(at))
                    .any(|other| other.services == row.services && other.peers == row.peers);
                let kind = if same { "repeated" } else { "shadowed" };
                let (said, rows) = found.entry(kind).or_default();
                said.push(format!("{} {} by {}", row.id, direction.name(), by.join(", ")));
                rows.extend(std::iter::once(row.id.0.clone()).chain(by));
            }
            for peer in &row.peers {
                before.entry(peer.prefix).or_default().push(index);
            }
        }
    }
    for (kind, (said, mut rows)) in found {
        rows.sort();
        rows.dedup();
        let message = format!("{}: the other row allows all of it and is counted instead", said.join("; "));
        notes.push(Note { kind, message, rows });
    }
}

/// Returns the earlier rows that together allow every tuple of `row`. Returns `None` if some tuple is left.
fn covering(row: &Row, rows: &[&Row], before: &BTreeMap<IpNet, Vec<usize>>) -> Option<BTreeSet<usize>> {
    if row.peers.is_empty() || row.services.is_empty() {
        return None;
    }
    let holds = |other: &Row, service: &Service| {
        other.client_ports.first <= row.client_ports.first
            && other.client_ports.last >= row.client_ports.last
            && other.services.iter().any(|wider| {
                wider.protocol == service.protocol
                    && wider.ports.first <= service.ports.first
                    && wider.ports.last >= service.ports.last
            })
    };
    let mut covering = BTreeSet::new();
    for peer in &row.peers {
        let wider = std::iter::successors(Some(peer.prefix), IpNet::supernet);
        let candidates: Vec<usize> = wider.filter_map(|net| before.get(&net)).flatten().copied().collect();
        for service in &row.services {
            let fits = |&&at: &&usize| rows.get(at).is_some_and(|other| holds(other, service));
            covering.insert(*candidates.iter().filter(fits).min()?);
        }
    }
    Some(covering)
}

/// Returns a note for each row in audit, with the rows in enforce whose ports are in audit because of that row.
pub fn in_audit(policy: &Policy) -> Vec<Note> {
    let mut notes = Vec::new();
    for row in policy.rows.iter().filter(|row| row.mode == Mode::Audit) {
        let direction = row.direction.name();
        let mut message = format!(
            "{} is in audit {direction}: whoever no row allows on its ports is counted, and passes in enforce too",
            row.id
        );
        let enforced = policy.rows_in(row.direction).filter(|other| other.mode == Mode::Enforce);
        let drawn_in: Vec<(&str, String)> = enforced
            .map(|other| (other.id.0.as_str(), shared(row, other)))
            .filter(|(_, ports)| !ports.is_empty())
            .collect();
        if !drawn_in.is_empty() {
            let named = drawn_in.iter().map(|(id, ports)| format!("{id} ({ports})"));
            message.push_str("; so are ports that rows in enforce name too: ");
            message.push_str(&named.collect::<Vec<_>>().join(", "));
        }
        let others = drawn_in.iter().map(|(id, _)| (*id).to_owned());
        let rows = std::iter::once(row.id.0.clone()).chain(others).collect();
        notes.push(Note { kind: "in-audit", message, rows });
    }
    notes
}

/// Returns the ports that both rows name, for people. Returns an empty text if there are none.
fn shared(row: &Row, other: &Row) -> String {
    let mut found = BTreeSet::new();
    for (a, b) in row.services.iter().flat_map(|a| other.services.iter().map(move |b| (a, b))) {
        let (first, last) = (a.ports.first.max(b.ports.first), a.ports.last.min(b.ports.last));
        if a.protocol == b.protocol && first <= last {
            found.insert((a.protocol, PortRange { first, last }));
        }
    }
    let named = found.into_iter().map(|(protocol, ports)| match protocol {
        protocol::TCP => format!("{ports}/tcp"),
        protocol::UDP => format!("{ports}/udp"),
        other => format!("protocol {other}"),
    });
    named.collect::<Vec<_>>().join(" ")
}

/// Returns the systems that some machine of the site runs.
fn placed(draft: &Draft) -> BTreeSet<&str> {
    let hosts = draft.site.hosts.iter().flat_map(|host| &host.systems);
    let peers = draft.site.peers.iter().flat_map(|peer| &peer.systems);
    hosts.chain(peers).map(|at| at.value.as_str()).collect()
}

/// Notes systems that no machine of the site runs, with the rows that need them.
fn unplaced(draft: &Draft, notes: &mut Vec<Note>) {
    let placed = placed(draft);
    for system in draft.matrix.systems.iter().filter(|system| !placed.contains(system.name.as_str())) {
        let uses = draft
            .matrix
            .rows
            .iter()
            .filter(|row| row.source.contains(&system.name) || row.destination.contains(&system.name));
        let ids = uses.map(|row| draft.matrix.row_id(row.number).0).collect();
        let message =
            format!("no machine of the site runs {}: it has no address and grants nothing", system.name);
        notes.push(Note { kind: "unplaced-system", message, rows: ids });
    }
}

/// Notes systems on machines where the matrix does not expect them, and servers that are listed twice.
fn misplaced(draft: &Draft, notes: &mut Vec<Note>) {
    let runs_on =
        |name: &str| draft.matrix.systems.iter().find(|system| system.name == name).map(|it| it.runs_on);
    let note = |kind, message| Note { kind, message, rows: Vec::new() };
    for host in &draft.site.hosts {
        for at in host.systems.iter().filter(|at| runs_on(&at.value) == Some(RunsOn::Peer)) {
            let message =
                format!("{} runs {}, which belongs on a machine of its own", host.name.value, at.value);
            notes.push(note("misplaced-system", message));
        }
    }
    for peer in &draft.site.peers {
        let label = peer.label();
        for at in peer.systems.iter().filter(|at| runs_on(&at.value) == Some(RunsOn::Pom)) {
            let message = format!("peer {label} runs {}, which belongs on a server of the product", at.value);
            notes.push(note("misplaced-system", message));
        }
        for prefix in peer.addresses.iter().flat_map(|at| &at.value) {
            let same = |host: &&Host| host.addresses.iter().any(|at| at.value == *prefix);
            if let Some(host) = draft.site.hosts.iter().find(same) {
                let name = &host.name.value;
                let message = format!(
                    "peer {label} has the address {} of {name}: list its systems at [[host]] {name}, or {name} \
                     will not know that it runs them",
                    prefix.addr()
                );
                notes.push(note("peer-is-host", message));
            }
        }
    }
}
