//! Services: ports that mean the same to every row share one column of the matrix.

use std::collections::{BTreeSet, HashMap};

use pomguard_common::{
    Direction,
    image::{self, Line, PORT_LINES, Service as Listed, port_position},
    protocol,
};

use super::error::CompileError;
use crate::policy::{Mode, PortRange, Row, Service};

/// Number of columns: the bits of a 16-bit word that the mark leaves free.
const COLUMNS: usize = Listed::COLUMN as usize + 1;
/// Limit of the rows of all cuts together: keeps rows that overlap everywhere from taking minutes.
const MEMBERS: usize = 1 << 24;

/// Positions in the port section, both included, that share a column.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    first: u32,
    last: u32,
    column: u16,
    /// True if a row in audit names the ports.
    audit: bool,
}

/// The listed ports and their columns.
#[derive(Debug, Default)]
pub(super) struct Services {
    stretches: Vec<Stretch>,
    /// Columns of each row, ascending.
    pub(super) of_row: Vec<Vec<u16>>,
    /// Per column: true if the protocol has no ports, and so no client ports either.
    pub(super) portless: Vec<bool>,
    numbers: HashMap<(bool, Vec<u32>), u16>,
    members: usize,
}

/// Returns true if rows of this protocol name ports.
pub(super) const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP)
}

/// Returns the first and last position of a service in the port section.
fn positions(direction: Direction, service: &Service) -> (u32, u32) {
    let PortRange { first, last } =
        if has_ports(service.protocol) { service.ports } else { PortRange::one(0) };
    let at = |port| port_position(direction, service.protocol, port);
    (at(first), at(last))
}

impl Services {
    pub(super) fn new(rows: &[Row]) -> Result<Self, CompileError> {
        let mut services = Self { of_row: vec![Vec::new(); rows.len()], ..Self::default() };
        // The positions where rows begin (true) and end; a row's own stretches are joined first.
        let mut marks: Vec<(u32, bool, u32)> = Vec::new();
        for (row, number) in rows.iter().zip(0_u32..) {
            let mut own: Vec<(u32, u32)> =
                row.services.iter().map(|service| positions(row.direction, service)).collect();
            own.sort_unstable();
            let mut open: Option<(u32, u32)> = None;
            for (first, last) in own {
                match &mut open {
                    Some(open) if first <= open.1 => open.1 = open.1.max(last),
                    _ => {
                        marks.extend(open.into_iter().flat_map(|it| stretch_marks(it, number)));
                        open = Some((first, last));
                    }
                }
            }
            marks.extend(open.into_iter().flat_map(|it| stretch_marks(it, number)));
        }
        marks.sort_unstable();
        let mut here: BTreeSet<u32> = BTreeSet::new();
        let mut marks = marks.into_iter().peekable();
        while let Some((at, begins, row)) = marks.next() {
            if begins {
                here.insert(row);
            } else {
                here.remove(&row);
            }
            let next = marks.peek().map(|mark| mark.0);
            if let Some(next) = next.filter(|&next| next > at && !here.is_empty()) {
                services.cut(rows, at, next - 1, &here)?;
            }
        }
        Ok(services)
    }

    /// Adds the stretch from `first` to `last`, whose rows are `here`.
    fn cut(&mut self, rows: &[Row], first: u32, last: u32, here: &BTreeSet<u32>) -> Result<(), CompileError> {
        self.members += here.len();
        if self.members > MEMBERS {
            return Err(CompileError::Overlap { what: "rows of one port", limit: MEMBERS });
        }
        // A row without peers lists its ports, but allows nothing.
        let set: Vec<u32> =
            here.iter().copied().filter(|&row| !rows[row as usize].peers.is_empty()).collect();
        // Rows distinguish the directions, and TCP from UDP; a protocol without ports needs the flag.
        let portless = is_portless(first);
        let key = (portless, set);
        let column = if let Some(&column) = self.numbers.get(&key) {
            column
        } else {
            let found = self.portless.len() + 1;
            if found > COLUMNS {
                return Err(CompileError::Services { found, limit: COLUMNS });
            }
            let column = (found - 1) as u16;
            for &row in &key.1 {
                self.of_row[row as usize].push(column);
            }
            self.portless.push(portless);
            self.numbers.insert(key, column);
            column
        };
        // A row in audit marks its ports as not yet enforced, even without peers.
        let audit = here.iter().any(|&row| rows[row as usize].mode == Mode::Audit);
        self.stretches.push(Stretch { first, last, column, audit });
        Ok(())
    }

    /// Returns the number of columns.
    pub(super) fn columns(&self) -> usize {
        self.portless.len()
    }

    /// Returns the port section and the service section.
    pub(super) fn lines(&self) -> (Vec<Line>, Vec<Line>) {
        let mut ports = vec![Line::ZERO; PORT_LINES as usize];
        let mut listed: u32 = 0;
        let mut columns: Vec<Line> = Vec::new();
        for stretch in &self.stretches {
            for position in stretch.first..=stretch.last {
                let word = position >> 5;
                ports[(word >> 3) as usize].0[((word & 7) * 2) as usize] |= 1 << (position & 31);
                if listed.is_multiple_of(32) {
                    columns.push(Line::ZERO);
                }
                let mark = if stretch.audit { Listed::AUDIT } else { 0 };
                let half = u32::from(stretch.column | mark) << ((listed & 1) * 16);
                columns[(listed >> 5) as usize].0[(listed >> 1 & 15) as usize] |= half;
                listed += 1;
            }
        }
        let mut rank = 0;
        for line in &mut ports {
            for pair in line.0.chunks_exact_mut(2) {
                pair[1] = rank;
                rank += pair[0].count_ones();
            }
        }
        (ports, columns)
    }
}

/// Returns true for a position in the third part of a direction: protocols by number.
const fn is_portless(position: u32) -> bool {
    position % (image::PORT_WORDS * 32) >= 2 * 65_536
}

/// Returns the two marks of a row's stretch: at the begin, and one position behind the end.
fn stretch_marks((first, last): (u32, u32), row: u32) -> [(u32, bool, u32); 2] {
    [(first, true, row), (last + 1, false, row)]
}
