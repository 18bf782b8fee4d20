//! The matrix class × service: sparse rows, overlaid in one array.
//!
//! The number of a class is the offset of its matrix row in the array. Each cell carries the number of the
//! class that owns the cell. Numbers are distinct and begin at 1: the class without rows has number 0.

use std::collections::HashMap;

use pomguard_common::{image::cell, limits};

use super::{classes::EMPTY, error::CompileError, ports::Services};
use crate::policy::{PortRange, Row};

/// Number of cells in an image that holds nothing else.
const CELLS: usize = limits::IMAGE_LINES * 4;
/// Limit of the (row, service) pairs of all classes together: bounds the work if rows overlap everywhere.
const PAIRS: usize = 1 << 25;
/// Distance behind the last place found at which the search for the next place begins. The cells before that
/// point are nearly full.
const BACK: usize = 1 << 14;

/// The words of one cell, in the form that the programs read.
pub(super) type Cell = [u32; cell::WORDS as usize];

/// The part of a row that cells hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowCell {
    /// Slot and marks, see [`cell::ROW`].
    pub(super) row: u32,
    /// Client ports of the row.
    pub(super) client: PortRange,
}

/// All cells, and the offset of each class.
#[derive(Debug)]
pub(super) struct Cells {
    pub(super) cells: Vec<Cell>,
    pub(super) offsets: Vec<u32>,
}

/// A matrix row of one class: columns, ascending, each with the rows to try, in order.
type Sparse = Vec<(u16, Vec<RowCell>)>;

impl Cells {
    pub(super) fn new(
        sets: &[Vec<u32>],
        services: &Services,
        rows: &[Row],
        of_row: &[RowCell],
    ) -> Result<Self, CompileError> {
        let mut sparse: Vec<Sparse> = Vec::with_capacity(sets.len());
        let (mut pairs, mut found) = (0, 0);
        for set in sets {
            pairs += set.iter().map(|&row| services.of_row[row as usize].len()).sum::<usize>();
            if pairs > PAIRS {
                return Err(CompileError::Overlap { what: "rows of one peer", limit: PAIRS });
            }
            let row = matrix_row(set, services, rows, of_row)?;
            found += row.len();
            if found > CELLS {
                return Err(CompileError::Cells { found, limit: CELLS });
            }
            sparse.push(row);
        }
        let offsets = displace(&sparse);
        let columns = services.columns();
        let chains = offsets.iter().max().map_or(0, |&last| last as usize) + columns.max(1);
        let mut cells = vec![[0; 4]; chains];
        for (row, &offset) in sparse.iter().zip(&offsets) {
            for (column, links) in row {
                let mut at = offset as usize + usize::from(*column);
                for (number, link) in links.iter().enumerate() {
                    if number > 0 {
                        // Chains continue beyond the reach of every class: within that reach, a cell of this
                        // class would be mistaken for the answer to another service.
                        let next = cells.len();
                        cells[at][cell::NEXT as usize] = next as u32;
                        cells.push([0; 4]);
                        at = next;
                    }
                    let client = u32::from(link.client.first) | u32::from(link.client.last) << 16;
                    cells[at] = [offset + 1, link.row, client, 0];
                }
            }
        }
        Ok(Self { cells, offsets })
    }
}

/// Returns the rows that decide in each column, in the order of the policy: the first row whose client ports
/// fit wins. A row whose client ports are covered by earlier rows is left out.
fn matrix_row(
    set: &[u32],
    services: &Services,
    rows: &[Row],
    of_row: &[RowCell],
) -> Result<Sparse, CompileError> {
    let mut named: Vec<(u16, u32)> = set
        .iter()
        .flat_map(|&row| services.of_row[row as usize].iter().map(move |&column| (column, row)))
        .collect();
    // Rows ascend within a column: the order of the policy.
    named.sort_unstable();
    let mut sparse = Sparse::new();
    let mut deciding: Vec<u32> = Vec::new();
    for group in named.chunk_by(|one, next| one.0 == next.0) {
        let column = group[0].0;
        let mut links: Vec<RowCell> = Vec::new();
        deciding.clear();
        for &(_, number) in group {
            let mut link = of_row[number as usize];
            if services.portless[usize::from(column)] {
                link.client = PortRange::ANY;
            }
            if !covered(link.client, &links) {
                links.push(link);
                deciding.push(number);
            }
        }
        if links.len() > limits::CELL_CHAIN {
            let ids: Vec<&str> = deciding.iter().map(|&row| rows[row as usize].id.0.as_str()).collect();
            return Err(CompileError::ClientRanges { found: links.len(), rows: ids.join(", ") });
        }
        sparse.push((column, links));
    }
    Ok(sparse)
}

/// Returns true if the ranges of `links` together cover `range`.
fn covered(range: PortRange, links: &[RowCell]) -> bool {
    let mut next = u32::from(range.first);
    while next <= u32::from(range.last) {
        let reach = links
            .iter()
            .filter(|link| u32::from(link.client.first) <= next && next <= u32::from(link.client.last))
            .map(|link| u32::from(link.client.last))
            .max();
        let Some(reach) = reach else { return false };
        next = reach + 1;
    }
    true
}

/// Finds an offset for each row of the matrix, the fullest row first.
fn displace(sparse: &[Sparse]) -> Vec<u32> {
    let mut offsets = vec![0; sparse.len()];
    let mut order: Vec<usize> = (0..sparse.len()).filter(|&class| class != EMPTY as usize).collect();
    order.sort_by_key(|&class| std::cmp::Reverse(sparse[class].len()));
    let mut taken = Bits::default();
    let mut numbers = Bits::default();
    // Number 0 belongs to the empty class.
    numbers.set(0);
    // The earliest possible place of the next row of the same shape: cells are never freed.
    let mut earliest: HashMap<Vec<u16>, usize> = HashMap::new();
    let (mut last_found, mut fullness) = (0_usize, 0);
    for class in order {
        let columns: Vec<u16> = sparse[class].iter().map(|&(column, _)| column).collect();
        if columns.len() != fullness {
            // Emptier rows fit into the gaps between fuller rows.
            (last_found, fullness) = (0, columns.len());
        }
        let begin = earliest.get(&columns).copied().unwrap_or(0).max(last_found.saturating_sub(BACK));
        let mut word = begin / 64;
        let offset = loop {
            let mut busy = numbers.word(word * 64);
            for &column in &columns {
                if busy == u64::MAX {
                    break;
                }
                busy |= taken.word(word * 64 + usize::from(column));
            }
            if busy != u64::MAX {
                break word * 64 + busy.trailing_ones() as usize;
            }
            word += 1;
        };
        numbers.set(offset);
        for &column in &columns {
            taken.set(offset + usize::from(column));
        }
        offsets[class] = offset as u32;
        last_found = last_found.max(offset);
        earliest.insert(columns, offset + 1);
    }
    offsets
}

/// A set of numbers that grows as needed.
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn set(&mut self, at: usize) {
        if at / 64 >= self.0.len() {
            self.0.resize((at / 64 + 1).next_power_of_two(), 0);
        }
        self.0[at / 64] |= 1 << (at % 64);
    }

    /// Returns the 64 numbers from `at` on as one word.
    fn word(&self, at: usize) -> u64 {
        let part = |index: usize| self.0.get(index).copied().unwrap_or(0);
        let (index, shift) = (at / 64, at % 64);
        if shift == 0 { part(index) } else { part(index) >> shift | part(index + 1) << (64 - shift) }
    }
}
