//! The metrics page: a reading of the maps and the daemon's own state, as OpenMetrics text.
//!
//! The policy bounds the cardinality: reasons are a fixed list, rows are the rows of the matrix and the site.
//! No address from a packet ever becomes a label.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use pomguard_common::{
    Direction,
    reason::{Reason, Verdict},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};

use crate::observe::{
    condition::{Condition, Repair},
    drops::peers::RecentPeers,
    family::{self, MetricFamily, MetricKind},
    printable::printable,
    snapshot::{AttachInfo, Disposition, ImageInForce, RowStats, Snapshot},
};

/// The state of the daemon that is not in the maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaemonState {
    /// Version of the daemon.
    pub version: String,
    /// The attach mode of the settings: `auto`, `native` or `generic`.
    pub attach_wanted: String,
    /// The image that the daemon installed last; `None` before the first one.
    pub installed: Option<ImageInForce>,
    /// The interfaces that the settings name.
    pub interfaces: Vec<String>,
    /// Seconds since 1970 of the last reload that succeeded.
    pub last_reload_success: Option<u64>,
    /// True if the last reload succeeded.
    pub last_reload_successful: bool,
    /// Seconds since 1970 at which the policy in force is rolled back unless somebody confirms it.
    pub rollback_at: Option<u64>,
    /// The number of reloads that failed.
    pub reload_failures: u64,
    /// The number of times that maps or attachments differed from the recorded baseline.
    pub self_check_mismatches: u64,
    /// The number of flows that were freed because their socket was gone.
    pub flows_freed: u64,
    /// Packets of known systems that were dropped or audited, by the name of the system, direction and verdict.
    pub system_drops: BTreeMap<(String, Direction, &'static str), u64>,
    /// Peers of known systems whose openings were dropped or audited lately, by direction and verdict.
    pub known_peers: BTreeMap<(Direction, &'static str), u64>,
    /// The conditions that hold.
    pub conditions: BTreeSet<Condition>,
    /// The number of repairs of each kind.
    pub repairs: BTreeMap<Repair, u64>,
}

/// Returns the page, in OpenMetrics text; [`super::exposition::classic`] converts the page to the older
/// format.
pub fn page(snapshot: Snapshot, daemon: DaemonState) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page { snapshot, daemon }));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

/// Returns the page of a daemon whose kernel refuses the programs: there are no maps to read.
pub fn page_without_maps(daemon: DaemonState, attach: Vec<AttachInfo>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Bare { daemon, attach }));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

#[derive(Debug)]
struct Bare {
    daemon: DaemonState,
    attach: Vec<AttachInfo>,
}

impl Collector for Bare {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut writer = Writer { encoder };
        writer.family(&family::BUILD, [(vec![self.daemon.version.as_str()], 1)])?;
        writer.attached(&self.attach)?;
        writer.states(&self.daemon)
    }
}

#[derive(Debug)]
struct Page {
    snapshot: Snapshot,
    daemon: DaemonState,
}

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self { snapshot, daemon } = self;
        let mut writer = Writer { encoder };
        writer.identity(snapshot, daemon)?;
        writer.packets(snapshot)?;
        writer.systems(daemon)?;
        writer.rows(&snapshot.rows)?;
        writer.room(snapshot)?;
        writer.daemon(daemon)
    }
}

/// Label values, in the order of [`MetricFamily::labels`], and the value.
type Sample<'a> = (Vec<&'a str>, i128);

struct Writer<'e> {
    encoder: DescriptorEncoder<'e>,
}

impl Writer<'_> {
    /// Writes one family. A family without samples is left out: a header alone carries no information.
    fn family<'a>(
        &mut self,
        family: &MetricFamily,
        samples: impl IntoIterator<Item = Sample<'a>>,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let kind = match family.kind {
            MetricKind::Counter => MetricType::Counter,
            MetricKind::Gauge => MetricType::Gauge,
            MetricKind::Info => MetricType::Info,
        };
        let mut metric = self.encoder.encode_descriptor(family.base(), family.help, None, kind)?;
        for (values, value) in samples {
            debug_assert_eq!(values.len(), family.labels.len(), "{} has its labels", family.name);
            let labels: Vec<(&str, _)> =
                family.labels.iter().copied().zip(values.into_iter().map(printable)).collect();
            // The encoder writes `{}` for an empty set, which is legal and ugly.
            match family.kind {
                MetricKind::Info => metric.encode_info(&labels)?,
                MetricKind::Counter => {
                    let value = u64::try_from(value).unwrap_or(0);
                    if labels.is_empty() {
                        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
                    } else {
                        metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
                    }
                }
                MetricKind::Gauge => {
                    let value = i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX });
                    if labels.is_empty() {
                        metric.encode_gauge(&value)?;
                    } else {
                        metric.encode_family(&labels)?.encode_gauge(&value)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes a family without labels.
    fn single(&mut self, family: &MetricFamily, value: impl Into<i128>) -> fmt::Result {
        self.family(family, [(Vec::new(), value.into())])
    }

    fn identity(&mut self, snapshot: &Snapshot, daemon: &DaemonState) -> fmt::Result {
        self.family(&family::BUILD, [(vec![daemon.version.as_str()], 1)])?;
        let generation = snapshot.generation.to_string();
        let policy: Vec<&str> = vec![&snapshot.host, &snapshot.matrix, &generation, &snapshot.image];
        self.family(&family::POLICY, [(policy, 1)])?;
        self.single(&family::POLICY_GENERATION, snapshot.generation)?;
        self.single(&family::POLICY_INSTALLED, snapshot.installed_at)?;
        if let Some(installed) = &daemon.installed {
            let same = installed.image == snapshot.image && installed.generation == snapshot.generation;
            self.single(&family::POLICY_IN_SYNC, same)?;
        }
        self.single(&family::POLICY_CONFIRMED, daemon.rollback_at.is_none())?;
        if let Some(at) = daemon.rollback_at {
            self.single(&family::ROLLBACK_DEADLINE, at)?;
        }
        self.single(&family::COUNTING_SINCE, snapshot.counting_since)?;
        self.family(
            &family::MODE,
            [
                (vec![Direction::Inbound.name(), snapshot.inbound.name()], 1),
                (vec![Direction::Outbound.name(), snapshot.outbound.name()], 1),
            ],
        )?;
        self.attached(&snapshot.attach)?;
        self.family(&family::ATTACH_WANTED, [(vec![daemon.attach_wanted.as_str()], 1)])
    }

    fn attached(&mut self, attach: &[AttachInfo]) -> fmt::Result {
        self.family(
            &family::ATTACH,
            attach.iter().map(|on| {
                let labels: Vec<&str> = vec![&on.interface, &on.xdp, &on.tc];
                (labels, 1)
            }),
        )
    }

    fn packets(&mut self, snapshot: &Snapshot) -> fmt::Result {
        let judged = judged(snapshot);
        self.family(&family::PACKETS, judged.iter().map(|j| (j.labels(), j.packets.into())))?;
        self.family(&family::BYTES, judged.iter().map(|j| (j.labels(), j.bytes.into())))?;

        let totals = &snapshot.totals;
        self.family(&family::SEEN, totals.iter().map(|t| (vec![t.direction.name()], t.seen.into())))?;
        self.family(
            &family::SEEN_BYTES,
            totals.iter().map(|t| (vec![t.direction.name()], t.seen_bytes.into())),
        )?;
        self.family(
            &family::INTERFACE_SEEN,
            snapshot.attach.iter().map(|info| (vec![info.interface.as_str()], info.seen.into())),
        )?;
        self.family(
            &family::MISMATCH,
            totals.iter().map(|t| (vec![t.direction.name()], t.accounting_mismatch())),
        )?;

        let mut known = Vec::new();
        for direction in Direction::ALL {
            for outcome in [Disposition::Drop, Disposition::Audit] {
                let packets = snapshot.known_system_drops(direction, outcome);
                known.push((vec![direction.name(), outcome.name()], packets.into()));
            }
        }
        self.family(&family::KNOWN_SYSTEM_DROPS, known)
    }

    fn systems(&mut self, daemon: &DaemonState) -> fmt::Result {
        let drops = daemon.system_drops.iter().map(|((system, direction, verdict), packets)| {
            let labels: Vec<&str> = vec![system, direction.name(), verdict];
            (labels, (*packets).into())
        });
        self.family(&family::SYSTEM_DROPS, drops)?;
        self.family(
            &family::KNOWN_PEERS,
            RecentPeers::SIDES.map(|(direction, verdict)| {
                let peers = daemon.known_peers.get(&(direction, verdict.name())).copied().unwrap_or(0);
                (vec![direction.name(), verdict.name()], peers.into())
            }),
        )
    }

    fn rows(&mut self, rows: &[RowStats]) -> fmt::Result {
        fn labels(row: &RowStats) -> Vec<&str> {
            vec![&row.id.0, row.direction.name(), &row.source, &row.destination, row.mode.name()]
        }
        fn short(row: &RowStats) -> Vec<&str> {
            vec![&row.id.0, row.direction.name()]
        }
        self.family(&family::ROW_PACKETS, rows.iter().map(|row| (labels(row), row.packets.into())))?;
        self.family(&family::ROW_BYTES, rows.iter().map(|row| (labels(row), row.bytes.into())))?;
        self.family(&family::ROW_CONNECTIONS, rows.iter().map(|row| (labels(row), row.connections.into())))?;
        self.family(
            &family::ROW_LAST_HIT,
            rows.iter().filter_map(|row| Some((short(row), row.last_hit?.into()))),
        )?;
        self.family(&family::ROW_IN_FORCE, rows.iter().map(|row| (short(row), row.live.into())))
    }

    fn room(&mut self, snapshot: &Snapshot) -> fmt::Result {
        let flows = snapshot.flows;
        self.single(&family::FLOW_ENTRIES, flows.entries)?;
        let kinds = flows.kinds.each();
        self.family(
            &family::FLOW_KINDS,
            kinds.iter().map(|(class, state, entries)| (vec![*class, *state], (*entries).into())),
        )?;
        self.single(&family::FLOW_CAPACITY, flows.capacity)?;
        self.single(&family::FLOWS_OPENED, flows.opened)?;
        self.single(&family::FLOWS_EVICTED, flows.evicted)?;
        let capacity = &snapshot.capacity;
        self.family(&family::CAPACITY_USED, capacity.iter().map(|c| (vec![c.name.as_str()], c.used.into())))?;
        self.family(&family::CAPACITY_LIMIT, capacity.iter().map(|c| (vec![c.name.as_str()], c.limit.into())))
    }

    fn daemon(&mut self, daemon: &DaemonState) -> fmt::Result {
        if let Some(at) = daemon.last_reload_success {
            self.single(&family::RELOAD_SUCCESS, at)?;
        }
        self.single(&family::FLOWS_FREED, daemon.flows_freed)?;
        self.single(&family::RELOAD_OK, daemon.last_reload_successful)?;
        self.single(&family::RELOAD_FAILURES, daemon.reload_failures)?;
        self.single(&family::SELF_CHECK_MISMATCHES, daemon.self_check_mismatches)?;
        let repaired = |repair| daemon.repairs.get(&repair).copied().unwrap_or(0).into();
        self.family(&family::REPAIRS, Repair::ALL.map(|repair| (vec![repair.name()], repaired(repair))))?;
        self.states(daemon)
    }

    fn states(&mut self, daemon: &DaemonState) -> fmt::Result {
        let holds = |condition| daemon.conditions.contains(&condition).into();
        self.family(&family::STATE, Condition::ALL.map(|it| (vec![it.name()], holds(it))))
    }
}

/// The counters of one reason in one direction with one outcome.
struct Judged<'a> {
    direction: Direction,
    outcome: Disposition,
    reason: &'a str,
    packets: u64,
    bytes: u64,
}

impl<'a> Judged<'a> {
    fn labels(&self) -> Vec<&'a str> {
        vec![self.direction.name(), self.outcome.name(), self.reason]
    }
}

/// Returns every possible reason, direction and outcome, also those at zero: an alert on a counter that
/// appears only with the first increment misses that increment. Reasons of a newer kernel side that this list
/// does not name follow at the end.
fn judged(snapshot: &Snapshot) -> Vec<Judged<'_>> {
    let mut all = Vec::new();
    for direction in Direction::ALL {
        for reason in Reason::ALL {
            let outcomes: &[Disposition] = match reason.verdict() {
                Verdict::Pass => &[Disposition::Pass],
                Verdict::Drop => &[Disposition::Drop, Disposition::Audit],
            };
            for &outcome in outcomes {
                let (packets, bytes) = snapshot
                    .reasons
                    .iter()
                    .filter(|r| r.direction == direction && r.verdict == outcome && r.name == reason.name())
                    .fold((0, 0), |(packets, bytes), r| (packets + r.packets, bytes + r.bytes));
                all.push(Judged { direction, outcome, reason: reason.name(), packets, bytes });
            }
        }
    }
    let unnamed = |name: &str| Reason::ALL.iter().all(|reason| reason.name() != name);
    all.extend(snapshot.reasons.iter().filter(|r| unnamed(&r.name)).map(|r| Judged {
        direction: r.direction,
        outcome: r.verdict,
        reason: &r.name,
        packets: r.packets,
        bytes: r.bytes,
    }));
    all
}

#[cfg(test)]
mod tests;
