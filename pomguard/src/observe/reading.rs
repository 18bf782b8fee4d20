//! One reading of the pinned maps, as a [`Snapshot`].

use aya::maps::{Array, MapData};
use pomguard_common::{
    Direction,
    counter::{Counters, RowLabel, RowTally, Tally},
    flow::{Bucket, State, Tag},
    image::{AGES, GENERATION_WORD, HEAD, Line, SECTIONS},
    limits, names,
    reason::{Reason, Verdict},
};

use super::snapshot::{
    Capacity, Disposition, FlowKinds, FlowStats, ImageInForce, ReasonStats, RowStats, Snapshot, Totals,
};
use crate::{
    compile::ImageFacts,
    kernel::{
        KernelError, attach,
        clock::Ticks,
        control,
        counters::{counters, opened_by, used},
        generation, load,
        pins::Pins,
        tally::tallies,
    },
    model::{Mode, RowId},
};

/// Reads which image is in force, and no counter.
///
/// # Errors
/// As [`snapshot`].
pub fn image(pins: &Pins) -> Result<ImageInForce, KernelError> {
    let host = load::host_record(pins)?;
    let ticks = Ticks { shift: host.tick_shift, ..Ticks::probe()? };
    let (_, lines) = opening_lines(pins, ticks.now()?)?;
    let record = ImageFacts::read(&lines).ok_or(KernelError::Unreadable)?;
    Ok(ImageInForce { image: record.hex(), generation: lines[AGES as usize].word(GENERATION_WORD).into() })
}

/// Returns the array of the image in force at `now`, and its lines before the sections.
fn opening_lines(pins: &Pins, now: u64) -> Result<(Array<MapData, Line>, Vec<Line>), KernelError> {
    let array = generation::inner(pins, control::active(pins)?.slot(now as u32) as u8)?;
    let line = |index: u32| array.get(&index, 0).map_err(KernelError::map(names::MAP_POLICY));
    let lines = (HEAD..SECTIONS).map(line).collect::<Result<_, _>>()?;
    Ok((array, lines))
}

/// Takes one reading. Not atomic: counting continues meanwhile.
///
/// # Errors
/// [`KernelError::NotInstalled`] if nothing is pinned.
pub fn snapshot(pins: &Pins) -> Result<Snapshot, KernelError> {
    let host = load::host_record(pins)?;
    let ticks = Ticks { shift: host.tick_shift, ..Ticks::probe()? };
    let now = ticks.now()?;
    let (array, lines) = opening_lines(pins, now)?;
    let record = ImageFacts::read(&lines).ok_or(KernelError::Unreadable)?;
    let (head_line, ages) = (lines[HEAD as usize], lines[AGES as usize]);
    let counters = counters(pins)?;
    Ok(Snapshot {
        host: host.host.to_string(),
        matrix: host.matrix.to_string(),
        generation: ages.word(GENERATION_WORD).into(),
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
        differences: Vec::new(),
        since: None,
        since_change: None,
    })
}

/// Returns the counters of each row. `in_audit` gets the counter slot of a row in force, and returns `None`
/// if the image cannot be read.
fn rows(
    pins: &Pins,
    ticks: Ticks,
    now: u64,
    in_audit: impl Fn(u16) -> Option<bool>,
) -> Result<Vec<RowStats>, KernelError> {
    let labels = pins.mapped::<RowLabel>(names::MAP_LABELS, limits::ROW_SLOTS, false)?;
    let slots: Vec<u16> = used(&labels).collect();
    let tallies = tallies(pins, &slots)?;
    // Rows in force first, each part in the order of the slots: failsafe, print order, the site's own.
    let (mut rows, mut past) = (Vec::with_capacity(slots.len()), Vec::new());
    for (slot, tally) in slots.into_iter().zip(tallies) {
        let label = labels.get(usize::from(slot)).ok_or(KernelError::Unreadable)?;
        let RowTally { packets, bytes, connections, first, last } = tally;
        let audit = label.live != 0 && in_audit(slot).ok_or(KernelError::Unreadable)?;
        let hit = |tick: u64| (tick != 0).then(|| ticks.to_unix(tick, now));
        let part = if label.live != 0 { &mut rows } else { &mut past };
        part.push(RowStats {
            id: RowId(label.id.to_string()),
            direction: opened_by(&label),
            source: label.source.to_string(),
            destination: label.destination.to_string(),
            ports: label.ports.to_string(),
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

/// Returns the reasons that were counted.
pub(crate) fn reasons(counters: &Counters) -> Vec<ReasonStats> {
    let mut found = Vec::new();
    for direction in Direction::ALL {
        let half = &counters.direction[direction.index()];
        for reason in Reason::ALL {
            let outcome = match reason.verdict() {
                Verdict::Pass => Disposition::Pass,
                Verdict::Drop => Disposition::Drop,
            };
            let tallies =
                [(outcome, half.judged[reason.index()]), (Disposition::Audit, half.audited[reason.index()])];
            for (verdict, Tally { packets, bytes }) in
                tallies.into_iter().filter(|(_, tally)| tally.packets != 0)
            {
                found.push(ReasonStats {
                    name: reason.name().to_owned(),
                    direction,
                    verdict,
                    packets,
                    bytes,
                    last: None,
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
    // The tags of a bucket are the first words: one line of the processor's cache, of seven.
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

fn capacity(record: &ImageFacts) -> Vec<Capacity> {
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
