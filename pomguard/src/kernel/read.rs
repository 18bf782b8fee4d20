//! What the pinned maps say, as a [`Snapshot`].

use aya::maps::{MapData, PerCpuArray, PerCpuValues};
use pomguard_common::{
    Direction,
    counter::{Counters, RowLabel, RowTally, Tally, set},
    flow::{Bucket, State, Tag},
    image::{AGES, HEAD, Line, SECTIONS},
    limits, names,
    reason::{Reason, Verdict},
};

use super::{
    KernelError, attach, clock::Ticks, control, install, load, mapping::Mapping, pins::Pins, tally::tallies,
};
use crate::{
    compile::Record,
    observe::snapshot::{Capacity, FlowKinds, FlowStats, Outcome, ReasonStats, RowStats, Snapshot, Totals},
    policy::{Mode, RowId},
};

/// Takes one reading. Not atomic: packets go on being counted meanwhile.
///
/// # Errors
/// [`KernelError::NotInstalled`] when nothing is pinned.
pub fn snapshot(pins: &Pins) -> Result<Snapshot, KernelError> {
    let host = load::host_record(pins)?;
    let ticks = Ticks { shift: host.tick_shift, ..Ticks::probe()? };
    let now = ticks.now()?;
    let active = control::active(pins)?;
    let array = install::inner(pins, active.slot(now as u32) as u8)?;
    let line = |index: u32| array.get(&index, 0).map_err(KernelError::map(names::MAP_POLICY));
    let lines = (HEAD..SECTIONS).map(line).collect::<Result<Vec<_>, _>>()?;
    let record = Record::read(&lines).ok_or(KernelError::Unreadable)?;
    let (head_line, ages) = (lines[HEAD as usize], lines[AGES as usize]);
    let counters = counters(pins)?;
    Ok(Snapshot {
        host: load::unpadded(&host.host),
        matrix: load::unpadded(&host.matrix),
        generation: u64::from(ages.word(pomguard_common::image::GENERATION_WORD)),
        image: record.hex(),
        inbound: Mode::in_head(&head_line, Direction::Inbound),
        outbound: Mode::in_head(&head_line, Direction::Outbound),
        counting_since: host.counting_since,
        installed_at: host.installed_at,
        attach: attach::attached(pins),
        rows: rows(pins, ticks, now, |slot| record.audits(slot, |index| array.get(&index, 0).ok()))?,
        reasons: reasons(&counters),
        totals: totals(&counters),
        flows: flows(pins, &ages, now as u32, &counters)?,
        capacity: capacity(&record),
        events_lost: counters.events_lost,
    })
}

/// The counters, summed over the CPUs.
///
/// # Errors
/// When the map cannot be read.
pub fn counters(pins: &Pins) -> Result<Counters, KernelError> {
    counter_set(pins, set::TRAFFIC)
}

/// The counters of self-tests, which are apart from those of traffic, summed over the CPUs.
///
/// # Errors
/// When the map cannot be read.
pub fn self_tests(pins: &Pins) -> Result<Counters, KernelError> {
    counter_set(pins, set::SELF_TESTS)
}

fn counter_set(pins: &Pins, index: u32) -> Result<Counters, KernelError> {
    let map: PerCpuArray<MapData, Counters> = pins.typed(names::MAP_COUNTERS)?;
    Ok(sum(&map.get(&index, 0).map_err(KernelError::map(names::MAP_COUNTERS))?))
}

/// Adds up the CPUs' counters.
#[must_use]
pub fn sum(values: &PerCpuValues<Counters>) -> Counters {
    let mut total = Counters::ZERO;
    for value in values.iter() {
        for (into, from) in total.direction.iter_mut().zip(&value.direction) {
            add(&mut into.seen, from.seen);
            into.judged.iter_mut().zip(from.judged).for_each(|(into, from)| add(into, from));
            into.audited.iter_mut().zip(from.audited).for_each(|(into, from)| add(into, from));
        }
        total.events_lost += value.events_lost;
        total.flows_opened += value.flows_opened;
        total.flows_evicted += value.flows_evicted;
    }
    total
}

fn add(into: &mut Tally, from: Tally) {
    into.packets += from.packets;
    into.bytes += from.bytes;
}

/// Counter slots that are in use: slot, row, direction.
///
/// # Errors
/// [`KernelError::NotInstalled`] when nothing is pinned.
pub fn row_slots(pins: &Pins) -> Result<Vec<(u16, RowId, Direction)>, KernelError> {
    let labels = pins.mapped::<RowLabel>(names::MAP_LABELS, limits::ROW_SLOTS, false)?;
    let row = |slot: u16| {
        let label = labels.get(usize::from(slot))?;
        Some((slot, RowId(load::unpadded(&label.id)), opened_by(&label)))
    };
    Ok(used(&labels).filter_map(row).collect())
}

/// The counter slots that are in use, in order. A free one is known by its first byte: the others are not
/// even read.
fn used(labels: &Mapping<RowLabel>) -> impl Iterator<Item = u16> + '_ {
    let used = |slot: &usize| labels.first_byte(*slot).is_some_and(|byte| byte != 0);
    (0..labels.len()).filter(used).map(|slot| slot as u16)
}

fn opened_by(label: &RowLabel) -> Direction {
    if label.direction == 0 { Direction::Inbound } else { Direction::Outbound }
}

/// What each row counted. `in_audit` is asked for the counter slots of the rows in force, and says none
/// where the image cannot be read.
fn rows(
    pins: &Pins,
    ticks: Ticks,
    now: u64,
    in_audit: impl Fn(u16) -> Option<bool>,
) -> Result<Vec<RowStats>, KernelError> {
    let labels = pins.mapped::<RowLabel>(names::MAP_LABELS, limits::ROW_SLOTS, false)?;
    let slots: Vec<u16> = used(&labels).collect();
    let tallies = tallies(pins, &slots)?;
    // Those in force first, each part in the order of the slots: failsafe, print order, the site's own.
    let (mut rows, mut past) = (Vec::with_capacity(slots.len()), Vec::new());
    for (slot, tally) in slots.into_iter().zip(tallies) {
        let label = labels.get(usize::from(slot)).ok_or(KernelError::Unreadable)?;
        let RowTally { packets, bytes, connections, first, last } = tally;
        let audit = label.live != 0 && in_audit(slot).ok_or(KernelError::Unreadable)?;
        let hit = |tick: u64| (tick != 0).then(|| ticks.to_unix(tick, now));
        let part = if label.live != 0 { &mut rows } else { &mut past };
        part.push(RowStats {
            id: RowId(load::unpadded(&label.id)),
            direction: opened_by(&label),
            source: load::unpadded(&label.source),
            destination: load::unpadded(&label.destination),
            ports: load::unpadded(&label.ports),
            live: label.live != 0,
            failsafe: label.failsafe != 0,
            mode: if audit { Mode::Audit } else { Mode::Enforce },
            packets,
            bytes,
            connections,
            first_hit: hit(first),
            last_hit: hit(last),
        });
    }
    rows.append(&mut past);
    Ok(rows)
}

fn reasons(counters: &Counters) -> Vec<ReasonStats> {
    let mut found = Vec::new();
    for direction in Direction::ALL {
        let half = &counters.direction[direction.index()];
        for reason in Reason::ALL {
            let outcome = match reason.verdict() {
                Verdict::Pass => Outcome::Pass,
                Verdict::Drop => Outcome::Drop,
            };
            let tallies =
                [(outcome, half.judged[reason.index()]), (Outcome::Audit, half.audited[reason.index()])];
            for (verdict, Tally { packets, bytes }) in
                tallies.into_iter().filter(|(_, tally)| tally.packets != 0)
            {
                found.push(ReasonStats {
                    name: reason.name().to_owned(),
                    direction,
                    verdict,
                    packets,
                    bytes,
                });
            }
        }
    }
    found
}

fn totals(counters: &Counters) -> Vec<Totals> {
    Direction::ALL
        .into_iter()
        .map(|direction| {
            let half = &counters.direction[direction.index()];
            let judged = |verdict| {
                Reason::ALL
                    .iter()
                    .filter(|reason| reason.verdict() == verdict)
                    .map(|reason| half.judged[reason.index()].packets)
                    .sum::<u64>()
            };
            let audited = half.audited.iter().map(|tally| tally.packets).sum();
            Totals {
                direction,
                seen: half.seen.packets,
                seen_bytes: half.seen.bytes,
                passed: judged(Verdict::Pass) + audited,
                dropped: judged(Verdict::Drop),
                audited,
            }
        })
        .collect()
}

fn flows(pins: &Pins, ages: &Line, now: u32, counters: &Counters) -> Result<FlowStats, KernelError> {
    const WORDS: usize = size_of::<Bucket>() / 8;
    // A bucket's tags are its first words: one line of the processor's cache, of seven.
    let words = pins.mapped::<u64>(names::MAP_FLOWS, limits::FLOW_BUCKETS * WORDS, false)?;
    let tags = |bucket: usize| bucket * WORDS..bucket * WORDS + limits::FLOW_WAYS;
    let tags = (0..limits::FLOW_BUCKETS).flat_map(tags).filter_map(|at| words.get(at)).map(Tag);
    let mut kinds = FlowKinds::default();
    for tag in tags.filter(|tag| tag.idle(now) <= ages.word(tag.state() as u32)) {
        let kind = match tag.state() {
            State::Opening | State::Established if tag.suspect() => &mut kinds.tcp_suspect,
            State::Opening => &mut kinds.tcp_opening,
            State::Established => &mut kinds.tcp_established,
            State::Closed => &mut kinds.tcp_closed,
            State::Unanswered => &mut kinds.udp_unanswered,
            State::Udp => &mut kinds.udp_answered,
            State::Icmp => &mut kinds.icmp,
            // Fragments have a table of their own.
            State::Free | State::Fragment => continue,
        };
        *kind += 1;
    }
    Ok(FlowStats {
        entries: kinds.sum(),
        kinds,
        capacity: limits::FLOWS as u64,
        opened: counters.flows_opened,
        evicted: counters.flows_evicted,
    })
}

fn capacity(record: &Record) -> Vec<Capacity> {
    let entry = |name: &str, used: u32, limit: usize| Capacity {
        name: name.to_owned(),
        used: u64::from(used),
        limit: limit as u64,
    };
    vec![
        entry("tuples", record.tuples, limits::TUPLES),
        entry("rows-inbound", record.rows[Direction::Inbound.index()], limits::ROWS),
        entry("rows-outbound", record.rows[Direction::Outbound.index()], limits::ROWS),
        entry("lines", record.lines, limits::IMAGE_LINES),
    ]
}
