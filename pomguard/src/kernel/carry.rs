//! Carries the counters over a change of layout: the new maps continue from the counts of the former maps.
//!
//! The counters are read twice, both times before a new program judges a packet. The first reading copies the
//! labels, so that each row keeps the same slot, as over a restart. The second reading comes immediately before
//! the exchange of the programs and brings the counts up to date. A packet that a former program judges between
//! the second reading and the exchange (a few milliseconds) is judged but not counted.

use std::{
    ops::{Range, RangeInclusive},
    os::fd::AsFd as _,
};

use aya::{
    maps::{MapData, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use pomguard_common::{
    counter::{Counters, DirectionCounters, HostRecord, LABEL_ID, RowLabel, RowTally, Tally},
    limits, names,
    reason::REASONS,
    text::{FixedText, unpadded},
};

use super::{KernelError, clock::Ticks, pins::Pins, raw};

/// Bytes of a word. All counters are words.
const WORD: usize = size_of::<u64>();

/// The layouts of the counters in all versions, oldest first. A change of one of these maps raises
/// [`pomguard_common::ABI_VERSION`] and adds a line; a test compares the last line with the types of this
/// version.
///
/// The number of a reason never changes, so the number of reasons follows from the size of the map.
const FORMS: &[Form] = &[Form {
    versions: 1..=5,
    seen: 2,
    after: &[Other::EventsLost, Other::FlowsOpened, Other::FlowsEvicted],
    tally: &[TallyWord::Packets, TallyWord::Bytes, TallyWord::Connections, TallyWord::First, TallyWord::Last],
    label: LabelForm {
        size: 256,
        id: 0..64,
        source: 64..136,
        destination: 136..208,
        ports: 208..252,
        direction: 252,
        failsafe: 254,
    },
    host: HostForm { size: 192, tick_shift: 4, counting_since: 16 },
}];

/// The layout of the counting maps in a range of versions.
#[derive(Debug)]
struct Form {
    versions: RangeInclusive<u32>,
    /// Number of words of a direction before the counters of the reasons: packets and bytes seen.
    seen: usize,
    /// The words after both directions.
    after: &'static [Other],
    /// The words of a row's counters.
    tally: &'static [TallyWord],
    label: LabelForm,
    host: HostForm,
}

/// A counter that belongs to no direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Other {
    EventsLost,
    FlowsOpened,
    FlowsEvicted,
}

/// A word of a row's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TallyWord {
    Packets,
    Bytes,
    Connections,
    First,
    Last,
}

/// Offsets in bytes of the fields of a label.
#[derive(Debug)]
struct LabelForm {
    size: usize,
    id: Range<usize>,
    source: Range<usize>,
    destination: Range<usize>,
    ports: Range<usize>,
    direction: usize,
    failsafe: usize,
}

/// Offsets in bytes of the fields of the host record.
#[derive(Debug)]
struct HostForm {
    size: usize,
    tick_shift: usize,
    counting_since: usize,
}

/// Returns true if the counters of this layout version can be carried over.
#[must_use]
pub fn knows(version: u32) -> bool {
    form(version).is_some()
}

fn form(version: u32) -> Option<&'static Form> {
    FORMS.iter().find(|form| form.versions.contains(&version))
}

/// A transfer of the former maps' counters into the new maps.
pub struct Carry {
    form: &'static Form,
    former: Pins,
    /// Number of bits by which the former programs shift the kernel's tick counter to the right.
    shift: u32,
    /// Slots that had a row, with the id and direction of the row.
    rows: Vec<(u16, FixedText<LABEL_ID>, u8)>,
}

impl Carry {
    /// Makes the first reading: labels, counters, and the start time of the counts. Returns `None` if this
    /// version does not know the layout of the former maps.
    ///
    /// # Errors
    /// If a map does not have the layout of the version, or cannot be read or written.
    pub fn begin(former: &Pins, version: u32, new: &Pins, ticks: Ticks) -> Result<Option<Self>, KernelError> {
        let Some(form) = form(version) else { return Ok(None) };
        let host = Former::open(former, names::MAP_HOST)?;
        host.has(form.host.size)?;
        let host = host.bytes(0)?;
        let mut carry = Self {
            form,
            former: former.clone(),
            shift: number(&host, form.host.tick_shift),
            rows: Vec::new(),
        };
        let mut mapping = new.mapped::<HostRecord>(names::MAP_HOST, 1, true)?;
        let record = mapping.get(0).ok_or(KernelError::Unreadable)?;
        let counting_since = long(&host, form.host.counting_since);
        if counting_since != 0 {
            mapping.set(0, HostRecord { counting_since, ..record });
        }
        carry.labels(new)?;
        carry.counters(new, ticks)?;
        Ok(Some(carry))
    }

    /// Copies the labels into the new map as labels of past rows. The policy that is put in force later finds
    /// its rows there and gives each row the same slot.
    fn labels(&mut self, new: &Pins) -> Result<(), KernelError> {
        let form = &self.form.label;
        let labels = Former::open(&self.former, names::MAP_LABELS)?;
        labels.has(form.size)?;
        let mut mapping = new.mapped::<RowLabel>(names::MAP_LABELS, limits::ROW_SLOTS, true)?;
        for slot in 0..labels.entries.min(limits::ROW_SLOTS as u32) {
            let bytes = labels.bytes(slot)?;
            let label = form.read(&bytes);
            if label.id[0] != 0 {
                mapping.set(slot as usize, label);
                self.rows.push((slot as u16, label.id, label.direction));
            }
        }
        Ok(())
    }

    /// Reads the counters and writes them into the new maps, over the present values. No new program judges
    /// packets yet.
    ///
    /// # Errors
    /// If a map does not have the layout of the version, or cannot be read or written.
    pub fn counters(&self, new: &Pins, ticks: Ticks) -> Result<(), KernelError> {
        let counters = Former::open(&self.former, names::MAP_COUNTERS)?;
        let total =
            self.form.sum(&counters.per_cpu(0)?, counters.value_size).ok_or(KernelError::Unreadable)?;
        let mut map: PerCpuArray<MapData, Counters> = new.typed(names::MAP_COUNTERS)?;
        map.set(0, on_first(total, Counters::ZERO)?, 0).map_err(KernelError::map(names::MAP_COUNTERS))?;

        let tallies = Former::open(&self.former, names::MAP_ROWS)?;
        tallies.has(self.form.tally.len() * WORD)?;
        let labels = new.mapped::<RowLabel>(names::MAP_LABELS, limits::ROW_SLOTS, false)?;
        let mut map: PerCpuArray<MapData, RowTally> = new.typed(names::MAP_ROWS)?;
        for (slot, id, direction) in &self.rows {
            // If another row took the slot, the slot has that row's counters.
            let same = |label: RowLabel| label.id == *id && label.direction == *direction;
            if !labels.get(usize::from(*slot)).is_some_and(same) {
                continue;
            }
            let words = tallies.per_cpu(u32::from(*slot))?;
            let tally = self.form.tally(&words, |tick| (tick << self.shift) >> ticks.shift);
            if tally.packets == 0 && tally.connections == 0 {
                continue;
            }
            map.set(u32::from(*slot), on_first(tally, RowTally::default())?, 0)
                .map_err(KernelError::map(names::MAP_ROWS))?;
        }
        Ok(())
    }
}

impl LabelForm {
    /// Returns the label as that of a past row.
    fn read(&self, bytes: &[u8]) -> RowLabel {
        let byte = |at: usize| bytes.get(at).copied().unwrap_or_default();
        RowLabel {
            id: text(bytes, &self.id),
            source: text(bytes, &self.source),
            destination: text(bytes, &self.destination),
            ports: text(bytes, &self.ports),
            direction: byte(self.direction),
            live: 0,
            failsafe: byte(self.failsafe),
            reserved: 0,
        }
    }
}

/// Returns a text of a label, which another layout may have given more or less room.
fn text<const N: usize>(bytes: &[u8], at: &Range<usize>) -> FixedText<N> {
    let from = unpadded(bytes.get(at.clone()).unwrap_or_default());
    FixedText::new(&String::from_utf8_lossy(from))
}

/// Returns the 32-bit number at a byte offset of a record; 0 beyond the end.
fn number(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..at + size_of::<u32>()).and_then(|word| word.try_into().ok());
    word.map_or(0, u32::from_ne_bytes)
}

/// Returns the 64-bit number at a byte offset of a record; 0 beyond the end.
fn long(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..at + WORD).and_then(|word| word.try_into().ok());
    word.map_or(0, u64::from_ne_bytes)
}

impl Form {
    /// Adds up the counters of all CPUs. A packet that a program is judging at this moment is seen but not
    /// judged: `seen` leaves the packet out, so that the sums agree. Returns `None` if the size does not match
    /// the layout.
    fn sum(&self, words: &[u64], value_size: usize) -> Option<Counters> {
        let of_direction =
            (value_size / WORD).checked_sub(self.after.len()).filter(|words| words % 2 == 0)? / 2;
        let reasons = of_direction.checked_sub(self.seen).filter(|words| words % 4 == 0)? / 4;
        if reasons > REASONS || !value_size.is_multiple_of(WORD) {
            return None;
        }
        let mut total = Counters::ZERO;
        for value in words.chunks_exact(value_size / WORD) {
            for (direction, into) in total.direction.iter_mut().enumerate() {
                let at = direction * of_direction + self.seen;
                let (judged, audited) = value.get(at..at + 4 * reasons)?.split_at(2 * reasons);
                add(&mut into.judged, judged);
                add(&mut into.audited, audited);
            }
            for (other, word) in self.after.iter().zip(value.get(2 * of_direction..)?) {
                match other {
                    Other::EventsLost => total.events_lost += word,
                    Other::FlowsOpened => total.flows_opened += word,
                    Other::FlowsEvicted => total.flows_evicted += word,
                }
            }
        }
        for DirectionCounters { seen, judged, audited } in &mut total.direction {
            for tally in judged.iter().chain(audited.iter()) {
                seen.packets += tally.packets;
                seen.bytes += tally.bytes;
            }
        }
        Some(total)
    }

    /// Adds up a row's counters of all CPUs; `tick` converts a tick of the former programs to the clock of the
    /// new ones.
    fn tally(&self, words: &[u64], tick: impl Fn(u64) -> u64) -> RowTally {
        let value = |words: &[u64]| {
            let mut tally = RowTally::default();
            for (hit, &word) in self.tally.iter().zip(words) {
                match hit {
                    TallyWord::Packets => tally.packets = word,
                    TallyWord::Bytes => tally.bytes = word,
                    TallyWord::Connections => tally.connections = word,
                    TallyWord::First => tally.first = tick(word),
                    TallyWord::Last => tally.last = tick(word),
                }
            }
            tally
        };
        let values: Vec<RowTally> = words.chunks_exact(self.tally.len()).map(value).collect();
        super::tally::sum_row(&values)
    }
}

/// Adds tallies, a pair of words each.
fn add(into: &mut [Tally; REASONS], from: &[u64]) {
    for (tally, pair) in into.iter_mut().zip(from.chunks_exact(2)) {
        tally.packets += pair.first().copied().unwrap_or_default();
        tally.bytes += pair.last().copied().unwrap_or_default();
    }
}

/// A map of the former version.
struct Former {
    map: MapData,
    value_size: usize,
    entries: u32,
    cpus: usize,
}

impl Former {
    fn open(pins: &Pins, name: &'static str) -> Result<Self, KernelError> {
        let map = MapData::from_pin(pins.map(name)).map_err(KernelError::map(name))?;
        let info = map.info().map_err(KernelError::map(name))?;
        let (value_size, entries) = (info.value_size() as usize, info.max_entries());
        let cpus = nr_cpus().map_err(|(path, source)| KernelError::system("read", path)(source))?;
        Ok(Self { map, value_size, entries, cpus })
    }

    /// Returns an error if the values have another size.
    fn has(&self, size: usize) -> Result<(), KernelError> {
        if self.value_size == size { Ok(()) } else { Err(KernelError::Unreadable) }
    }

    fn words(&self, key: u32, cpus: usize) -> Result<Vec<u64>, KernelError> {
        let mut words = vec![0; self.value_size.div_ceil(WORD) * cpus];
        raw::lookup_words(self.map.fd().as_fd(), key, &mut words)
            .map_err(KernelError::system("BPF_MAP_LOOKUP_ELEM", "of the former maps"))?;
        Ok(words)
    }

    /// Returns the value of an element of a per-CPU map, the CPUs in order.
    fn per_cpu(&self, key: u32) -> Result<Vec<u64>, KernelError> {
        self.words(key, self.cpus)
    }

    /// Returns the value of an element of a map that is not per-CPU.
    fn bytes(&self, key: u32) -> Result<Vec<u8>, KernelError> {
        Ok(self.words(key, 1)?.into_iter().flat_map(u64::to_ne_bytes).collect())
    }
}

/// Returns per-CPU values with `value` on the first CPU and `zero` on the others: readers add them up.
fn on_first<T: aya::Pod>(value: T, zero: T) -> Result<PerCpuValues<T>, KernelError> {
    let cpus = nr_cpus().map_err(|(path, source)| KernelError::system("read", path)(source))?;
    let values: Vec<T> =
        std::iter::once(value).chain(std::iter::repeat_n(zero, cpus.saturating_sub(1))).collect();
    PerCpuValues::try_from(values).map_err(KernelError::system("allocate", "counters"))
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use pomguard_common::ABI_VERSION;

    use super::*;

    /// A change of a counting map adds a form for the versions before the change.
    #[test]
    fn last_form_is_that_of_this_version() {
        for version in 1..=ABI_VERSION {
            assert!(knows(version), "layout {version} has a form");
        }
        assert!(!knows(0) && !knows(ABI_VERSION + 1));
        let form = FORMS.last().unwrap();
        assert_eq!(*form.versions.end(), ABI_VERSION);
        let words = 2 * (form.seen + 4 * REASONS) + form.after.len();
        assert_eq!(words * WORD, size_of::<Counters>());
        let after = [
            offset_of!(Counters, events_lost),
            offset_of!(Counters, flows_opened),
            offset_of!(Counters, flows_evicted),
        ];
        assert_eq!(form.after, [Other::EventsLost, Other::FlowsOpened, Other::FlowsEvicted]);
        assert_eq!(after, [0, 1, 2].map(|word| size_of::<Counters>() - (3 - word) * WORD));
        assert_eq!(offset_of!(DirectionCounters, judged), form.seen * WORD);
        let hits = [
            (TallyWord::Packets, offset_of!(RowTally, packets)),
            (TallyWord::Bytes, offset_of!(RowTally, bytes)),
            (TallyWord::Connections, offset_of!(RowTally, connections)),
            (TallyWord::First, offset_of!(RowTally, first)),
            (TallyWord::Last, offset_of!(RowTally, last)),
        ];
        assert_eq!(form.tally.len() * WORD, size_of::<RowTally>());
        for (hit, at) in hits {
            assert_eq!(form.tally[at / WORD], hit);
        }
        let label = &form.label;
        assert_eq!(label.size, size_of::<RowLabel>());
        let starts = [&label.id, &label.source, &label.destination, &label.ports].map(|range| range.start);
        let fields = [
            offset_of!(RowLabel, id),
            offset_of!(RowLabel, source),
            offset_of!(RowLabel, destination),
            offset_of!(RowLabel, ports),
        ];
        assert_eq!(starts, fields);
        assert_eq!(label.ports.end, offset_of!(RowLabel, direction));
        assert_eq!(
            (label.direction, label.failsafe),
            (offset_of!(RowLabel, direction), offset_of!(RowLabel, failsafe))
        );
        let host = &form.host;
        assert_eq!(host.size, size_of::<HostRecord>());
        assert_eq!(host.tick_shift, offset_of!(HostRecord, tick_shift));
        assert_eq!(host.counting_since, offset_of!(HostRecord, counting_since));
    }

    /// Returns the words of one CPU under a form, all different.
    fn numbered(form: &Form, reasons: usize, from: u64) -> Vec<u64> {
        let words = 2 * (form.seen + 4 * reasons) + form.after.len();
        (from..from + words as u64).collect()
    }

    #[test]
    fn reasons_keep_their_numbers_whatever_their_count_was() {
        let form = &FORMS[0];
        for reasons in [1, 7, REASONS] {
            let (one, two) = (numbered(form, reasons, 1_000), numbered(form, reasons, 5_000));
            let size = one.len() * WORD;
            let total = form.sum(&[one.clone(), two.clone()].concat(), size).unwrap();
            let at = |word: usize| one[word] + two[word];
            for direction in 0..2 {
                let base = direction * (form.seen + 4 * reasons) + form.seen;
                let (mut packets, mut bytes) = (0, 0);
                for reason in 0..REASONS {
                    let half = &total.direction[direction];
                    let of = |kind: usize| {
                        let word = base + 2 * (kind * reasons + reason);
                        if reason < reasons { (at(word), at(word + 1)) } else { (0, 0) }
                    };
                    assert_eq!((half.judged[reason].packets, half.judged[reason].bytes), of(0), "{reason}");
                    assert_eq!((half.audited[reason].packets, half.audited[reason].bytes), of(1), "{reason}");
                    packets += of(0).0 + of(1).0;
                    bytes += of(0).1 + of(1).1;
                }
                let seen = total.direction[direction].seen;
                assert_eq!((seen.packets, seen.bytes), (packets, bytes), "seen is what was judged");
            }
            let end = one.len();
            assert_eq!(total.events_lost, at(end - 3));
            assert_eq!(total.flows_opened, at(end - 2));
            assert_eq!(total.flows_evicted, at(end - 1));
        }
    }

    #[test]
    fn size_that_no_version_had_is_refused() {
        let form = &FORMS[0];
        let good = 2 * (form.seen + 4 * 7) + form.after.len();
        for words in [0, 2, good - 1, good + 1, good + 2, good + 4] {
            assert!(form.sum(&vec![1; words], words * WORD).is_none(), "{words}");
        }
        assert!(form.sum(&vec![1; good], good * WORD + 4).is_none());
        let beyond = 2 * (form.seen + 4 * (REASONS + 1)) + form.after.len();
        assert!(form.sum(&vec![1; beyond], beyond * WORD).is_none(), "more reasons than this version has");
    }

    #[test]
    fn hits_are_brought_to_the_clock_of_the_new_programs() {
        let tally = FORMS[0].tally(&[1, 60, 1, 40, 44, 2, 120, 0, 20, 24], |tick| tick << 1);
        assert_eq!(tally, RowTally { packets: 3, bytes: 180, connections: 1, first: 40, last: 88 });
    }
}
