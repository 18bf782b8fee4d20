//! Compiles a policy into the bytes of the image that the programs read, and checks every limit.
//!
//! Pure. The layout is defined in [`pomguard_common::image`]; this module is the only writer.
//!
//! | module | output |
//! | --- | --- |
//! | `head` | modes, local addresses, VLANs, ages |
//! | `ports` | listed ports, and the ports that mean the same |
//! | `classes` | all prefixes, and the rows of each |
//! | `cells` | the matrix class × service |
//! | `levels`, `buckets`, `addresses` | the look-up of an address's class |
//! | [`record`] | counts and digest of the image |
//! | `overrides` | failsafe rows, which hold alongside every image |
//! | [`slots`], [`label`] | the counter slots of the rows, and their labels |

use std::fmt;

use pomguard_common::{
    Direction,
    control::Override,
    counter::RowLabel,
    flow,
    image::{self, HEAD, LEVELS_V4, LEVELS_V6, Line, SECTIONS, cell},
    limits,
};

mod addresses;
mod buckets;
mod cells;
mod classes;
mod error;
mod head;
pub mod label;
mod levels;
mod overrides;
mod ports;
mod prefix;
pub mod record;
pub mod slots;

pub use error::CompileError;
pub use label::labels;
pub use overrides::{lines_of, overrides};
pub use prefix::Family;
pub use record::ImageFacts;
pub use slots::{HeldSlot, SlotTable};

use self::{
    addresses::{Table, lay_out},
    buckets::Shape,
    cells::{Cells, RowCell},
    classes::Classes,
    levels::Levels,
    ports::Services,
};
use crate::policy::Policy;

/// The kernel's clock, as read by the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Ticks in a thousand seconds.
    pub ticks_per_1000s: u32,
    /// Ticks to add to the clock: 0 except in tests that move time.
    pub offset: u32,
}

impl Clock {
    /// Returns the fewest ticks that last at least `seconds`.
    const fn ticks(self, seconds: u32) -> u32 {
        let ticks = (seconds as u64 * self.ticks_per_1000s as u64).div_ceil(1_000);
        if ticks > u32::MAX as u64 { u32::MAX } else { ticks as u32 }
    }
}

/// The state in the kernel that an image must fit: the counter slots that rows have, the clock, and the number of
/// the image's generation.
#[derive(Clone, Debug)]
pub struct ImagePlace {
    held: Vec<HeldSlot>,
    clock: Clock,
    generation: u32,
}

impl ImagePlace {
    /// Describes the place of the image of a generation.
    #[must_use]
    pub const fn new(held: Vec<HeldSlot>, clock: Clock, generation: u32) -> Self {
        Self { held, clock, generation }
    }

    /// Compiles a policy for this place.
    ///
    /// # Errors
    /// If a limit is exceeded.
    pub fn compile(&self, policy: &Policy) -> Result<Image, CompileError> {
        compile(policy, &SlotTable::assign(&self.held, policy)?, self.clock, self.generation)
    }

    /// Turns an image that was compiled before into the image of this place. Returns `None` if the lines are not
    /// as compiled.
    #[must_use]
    pub fn adopt(&self, parts: Parts) -> Option<Image> {
        Image::again(parts, self.clock, self.generation)
    }
}

/// The parts of an image that outlive a generation.
#[derive(Clone, PartialEq, Eq)]
pub struct Parts {
    /// Name of the host in the site file.
    pub host: String,
    /// The id of the matrix.
    pub matrix: String,
    /// The labels of the rows, by counter slot.
    pub labels: Vec<(u16, RowLabel)>,
    /// The tuples of the failsafe rows. Each holds for every slot, until the installation binds the tuple to the
    /// slot of the generation.
    pub failsafe: Vec<Override>,
    /// The lines of the map, from the first one on.
    pub lines: Vec<Line>,
}

/// One compiled policy: exactly as many lines as needed, with the labels and failsafe tuples that go with the
/// lines. The rest of the map is zero.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    parts: Parts,
    record: ImageFacts,
}

impl fmt::Debug for Image {
    /// Leaves out the lines: they are megabytes, and the record has their digest.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image").field("record", &self.record).finish_non_exhaustive()
    }
}

impl Image {
    /// Turns an image that was compiled before into another generation, for this kernel's clock. Returns `None`
    /// if the lines are not as compiled.
    fn again(mut parts: Parts, clock: Clock, generation: u32) -> Option<Self> {
        let lines = &mut parts.lines;
        let mut record = ImageFacts::read(lines).filter(|record| record.holds(lines))?;
        let ages = lines.get_mut(image::AGES as usize)?;
        head::convert(ages, record.ticks_per_1000s, clock);
        head::date(ages, clock, generation);
        record.ticks_per_1000s = clock.ticks_per_1000s;
        record.generation = generation.into();
        record.digest = record::digest(lines);
        record.write(lines);
        Some(Self { parts, record })
    }

    /// Returns the parts that outlive the generation.
    pub const fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Returns the lines, from the first line of the map on.
    pub fn lines(&self) -> &[Line] {
        &self.parts.lines
    }

    /// Returns the number of the generation.
    pub const fn generation(&self) -> u32 {
        self.record.generation as u32
    }

    /// Returns SHA-256 of the image's meaning in hexadecimal: the same for every generation.
    pub fn digest(&self) -> String {
        self.record.hex()
    }

    /// Returns the number of tuples of the policy; the limit is [`limits::TUPLES`].
    pub const fn tuples(&self) -> usize {
        self.record.tuples as usize
    }

    /// Returns the number of rows of a direction; the limit is [`limits::ROWS`].
    pub const fn rows(&self, direction: Direction) -> usize {
        self.record.rows[direction.index()] as usize
    }

    /// Returns the number of used lines; the limit is [`limits::IMAGE_LINES`].
    pub const fn used(&self) -> usize {
        self.parts.lines.len()
    }

    /// Returns the record: counts, generation and digest.
    pub const fn record(&self) -> &ImageFacts {
        &self.record
    }
}

/// Checks that the policy keeps within all limits: compiles the policy for a host that has no policy yet.
///
/// # Errors
/// If a limit is exceeded.
pub fn fits(policy: &Policy) -> Result<(), CompileError> {
    // No limit depends on the clock.
    let clock = Clock { ticks_per_1000s: 1_000, offset: 0 };
    ImagePlace::new(Vec::new(), clock, 1).compile(policy).map(drop)
}

/// Compiles `policy` as generation `generation`. Equal input gives equal bytes.
pub fn compile(
    policy: &Policy,
    slots: &SlotTable,
    clock: Clock,
    generation: u32,
) -> Result<Image, CompileError> {
    if generation == flow::GRANDFATHERED {
        return Err(CompileError::Generation);
    }
    let tuples = policy.rows.iter().map(|row| row.peers.len().saturating_mul(row.services.len()));
    let tuples = tuples.fold(0, usize::saturating_add);
    if tuples > limits::TUPLES {
        return Err(CompileError::Tuples { found: tuples });
    }
    let mut rows = [0; 2];
    for direction in Direction::ALL {
        let found = policy.rows_in(direction).count();
        if found > limits::ROWS {
            return Err(CompileError::Rows { direction, found });
        }
        rows[direction.index()] = found as u32;
    }
    let mut lines = head::fixed(policy, clock, generation)?;
    let services = Services::new(&policy.rows)?;
    let mut classes = Classes::new();
    let levels_v4 = Levels::new(classes.entries(policy, Family::V4)?, Family::V4)?;
    let levels_v6 = Levels::new(classes.entries(policy, Family::V6)?, Family::V6)?;
    let cells = Cells::new(&classes.sets, &services, &policy.rows, &row_cells(policy, slots)?)?;
    let v4 = Table::new(Shape::V4, levels_v4, &cells.offsets);
    let v6 = Table::new(Shape::V6, levels_v6, &cells.offsets);

    let (port_lines, service_lines) = services.lines();
    let (filter_v4, _) = v4.filter();
    let (filter_v6, always_v6) = v6.filter();
    let cell_lines = cell_lines(&cells);
    let audit_lines = record::audit_lines(policy, slots);
    let fixed = [&port_lines, &service_lines, &filter_v4, &filter_v6, &cell_lines, &audit_lines];
    let fixed = SECTIONS as usize + fixed.into_iter().map(Vec::len).sum::<usize>();
    let buckets = lay_out(&v4, &v6, limits::IMAGE_LINES.saturating_sub(fixed))
        .map_err(|buckets| CompileError::Lines { needed: fixed + buckets })?;

    let place = |at: u32, with: &[Line], lines: &mut Vec<Line>| {
        lines[at as usize..at as usize + with.len()].copy_from_slice(with);
    };
    place(LEVELS_V4, &v4.masks(), &mut lines);
    place(LEVELS_V6, &v6.masks(), &mut lines);
    let mut record = ImageFacts {
        tuples: tuples as u32,
        rows,
        lines: 0,
        generation: generation.into(),
        prefixes: [v4.entries() as u32, v6.entries() as u32],
        buckets: [buckets.v4.len() as u32, buckets.v6.len() as u32],
        classes: classes.sets.len() as u32,
        services: services.columns() as u32,
        audit: 0,
        ticks_per_1000s: clock.ticks_per_1000s,
        digest: [0; 32],
    };
    let sections = [
        (image::head::PORTS, port_lines),
        (image::head::SERVICES, service_lines),
        (image::head::FILTER_V4, filter_v4),
        (image::head::FILTER_V6, filter_v6),
        (image::head::BUCKETS_V4, buckets.v4),
        (image::head::BUCKETS_V6, buckets.v6),
        (image::head::CELLS, cell_lines),
    ];
    for (word, section) in sections {
        lines[HEAD as usize].0[word as usize] = lines.len() as u32;
        lines.extend(section);
    }
    if !audit_lines.is_empty() {
        record.audit = lines.len() as u32;
        lines.extend(audit_lines);
    }
    let words = [
        (image::head::MASK_V4, record.buckets[0] - 1),
        (image::head::MASK_V6, record.buckets[1] - 1),
        (image::head::DEFAULT_V4, v4.default(&cells.offsets)),
        (image::head::DEFAULT_V6, v6.default(&cells.offsets)),
        (image::head::SEED, buckets.seed),
        (image::head::ALWAYS_V6, always_v6),
    ];
    for (word, value) in words {
        lines[HEAD as usize].0[word as usize] = value;
    }
    record.lines = lines.len() as u32;
    record.digest = record::digest(&lines);
    record.write(&mut lines);
    let parts = Parts {
        host: policy.host.clone(),
        matrix: policy.matrix.id.clone(),
        labels: labels(policy, slots),
        failsafe: overrides(policy, slots)?,
        lines,
    };
    Ok(Image { parts, record })
}

/// Returns the part of each row that cells hold.
fn row_cells(policy: &Policy, slots: &SlotTable) -> Result<Vec<RowCell>, CompileError> {
    let of_row = policy.rows.iter().map(|row| {
        let slot = slots.of(&row.id, row.direction);
        let slot = slot.ok_or_else(|| CompileError::Slot { row: row.id.0.clone() })?;
        let marks = if row.failsafe { cell::FAILSAFE } else { 0 };
        Ok(RowCell { row: u32::from(slot) | marks, client: row.client_ports })
    });
    of_row.collect()
}

fn cell_lines(cells: &Cells) -> Vec<Line> {
    let line = |four: &[cells::Cell]| {
        let mut line = Line::ZERO;
        line.0.iter_mut().zip(four.iter().flatten()).for_each(|(at, &word)| *at = word);
        line
    };
    cells.cells.chunks(4).map(line).collect()
}

#[cfg(test)]
mod tests;
