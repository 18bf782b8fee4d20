//! The style of tables: aligned columns, no frame, so that lines can be cut out and searched.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// Returns a table with these column heads.
pub fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heads);
    table
}

/// Aligns the numbers of a column to the right.
pub fn align_right(table: &mut Table, column: usize) {
    if let Some(column) = table.column_mut(column) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// Returns the table's lines without blanks at the ends.
pub fn lines(table: &Table) -> impl Iterator<Item = String> + use<> {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().into_iter()
}
