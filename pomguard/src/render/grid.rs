//! Tables that fit a width: columns are narrowed, then left out by rank, until a row fits.

use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, LineStyle, Table,
    TableStyle, Width,
};

use crate::observe::printable::printable;

/// The space between columns: one from the table's own joint, the rest as padding.
const GAP: u16 = 2;
/// The longest word that a wrapped column always keeps whole, in characters.
const WORD: usize = 20;

#[derive(Clone, Copy)]
pub(crate) struct Column {
    title: &'static str,
    /// True for numbers, which are aligned to the right.
    right: bool,
    /// The width down to which text may be wrapped; `None` for text that is never wrapped.
    narrowest: Option<u16>,
    /// The rank: the column with the lowest rank is left out first; `None` for a column that always stays.
    rank: Option<u8>,
}

impl Column {
    pub(crate) const fn text(title: &'static str) -> Self {
        Self { title, right: false, narrowest: None, rank: None }
    }

    pub(crate) const fn number(title: &'static str) -> Self {
        Self { title, right: true, narrowest: None, rank: None }
    }

    pub(crate) const fn wraps_from(self, narrowest: u16) -> Self {
        Self { narrowest: Some(narrowest), ..self }
    }

    pub(crate) const fn rank(self, rank: u8) -> Self {
        Self { rank: Some(rank), ..self }
    }
}

/// The emphasis of a row or of a word; the words say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Faint,
    Warning,
    Alarm,
}

impl Tone {
    /// Returns a text with this emphasis, for text outside of a table; without `colour` the text itself.
    pub(crate) fn paint(self, text: &str, colour: bool) -> String {
        let code = match self {
            Self::Plain => "",
            Self::Faint => "2",
            Self::Warning => "33",
            Self::Alarm => "1;31",
        };
        if colour && !code.is_empty() { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// A table for any width.
pub(crate) struct Grid {
    columns: Vec<Column>,
    rows: Vec<(Tone, Vec<String>)>,
}

impl Grid {
    pub(crate) fn new(columns: impl Into<Vec<Column>>) -> Self {
        Self { columns: columns.into(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, tone: Tone, cells: impl Into<Vec<String>>) {
        let cells = cells.into();
        debug_assert_eq!(cells.len(), self.columns.len(), "a cell for every column");
        self.rows.push((tone, cells.iter().map(|cell| printable(cell).into_owned()).collect()));
    }

    /// Returns the columns in which something is written.
    fn filled(&self) -> Vec<usize> {
        (0..self.columns.len())
            .filter(|&column| self.rows.iter().any(|(_, cells)| !cells[column].is_empty()))
            .collect()
    }

    /// Returns the width to which a column can be narrowed without splitting words of common length.
    fn narrowest(&self, column: usize, natural: u16) -> u16 {
        let Some(least) = self.columns[column].narrowest else { return natural };
        let words = self.rows.iter().flat_map(|(_, cells)| cells[column].split_whitespace());
        let longest = words.map(|word| word.chars().count()).max().unwrap_or(0).min(WORD);
        least.max(u16::try_from(longest).unwrap_or(least)).min(natural)
    }

    /// Returns the table as text with a line end on every line; `None` as `width` means unlimited.
    pub(crate) fn text(&self, width: Option<u16>, colour: bool) -> String {
        let mut shown = self.filled();
        let natural =
            self.table(&(0..self.columns.len()).collect::<Vec<_>>(), false).column_max_content_widths();
        let mut widths: Vec<u16> = natural.clone();
        if let Some(room) = width {
            let mut narrowest: Vec<u16> =
                (0..natural.len()).map(|column| self.narrowest(column, natural[column])).collect();
            leave_out(&mut shown, &self.columns, &narrowest, room);
            split_words(&shown, &self.columns, &mut narrowest, room);
            widths = share_out(&shown, &natural, narrowest, room);
        }
        let mut table = self.table(&shown, colour);
        table.set_content_arrangement(ContentArrangement::Disabled);
        for (position, &column) in shown.iter().enumerate() {
            if let Some(set) = table.column_mut(position) {
                let gap = if position + 1 == shown.len() { 0 } else { GAP - 1 };
                set.set_padding((0, gap));
                set.set_constraint(ColumnConstraint::Absolute(Width::Fixed(widths[column] + gap)));
            }
        }
        table.lines().fold(String::new(), |text, line| text + line.trim_end() + "\n")
    }

    fn table(&self, shown: &[usize], colour: bool) -> Table {
        let mut table = Table::new();
        table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─')));
        if colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.style_text_only();
        let cell = |column: usize, text: &str| {
            let right = self.columns[column].right;
            Cell::new(text).set_alignment(if right { CellAlignment::Right } else { CellAlignment::Left })
        };
        table.set_header(
            shown
                .iter()
                .map(|&column| cell(column, self.columns[column].title).add_attribute(Attribute::Bold))
                .collect::<Vec<_>>(),
        );
        for (tone, cells) in &self.rows {
            table.add_row(
                shown
                    .iter()
                    .map(|&column| {
                        let cell = cell(column, &cells[column]);
                        match tone {
                            Tone::Plain => cell,
                            Tone::Faint => cell.add_attribute(Attribute::Dim),
                            Tone::Warning => cell.fg(Color::Yellow),
                            Tone::Alarm => cell.fg(Color::Red).add_attribute(Attribute::Bold),
                        }
                    })
                    .collect::<Vec<_>>(),
            );
        }
        table
    }
}

fn taken(shown: &[usize], widths: &[u16]) -> u16 {
    shown.iter().map(|&column| widths[column] + GAP).sum::<u16>().saturating_sub(GAP)
}

/// Leaves out columns, lowest rank first, until the rest fits or nothing more may go.
fn leave_out(shown: &mut Vec<usize>, columns: &[Column], narrowest: &[u16], room: u16) {
    while taken(shown, narrowest) > room {
        let lowest =
            shown.iter().copied().filter(|&c| columns[c].rank.is_some()).min_by_key(|&c| columns[c].rank);
        let Some(lowest) = lowest else { return };
        shown.retain(|&column| column != lowest);
    }
}

/// Narrows wrapped columns further, the widest first, until the rest fits: long words are split.
fn split_words(shown: &[usize], columns: &[Column], narrowest: &mut [u16], room: u16) {
    while taken(shown, narrowest) > room {
        let wider =
            |&column: &usize| columns[column].narrowest.is_some_and(|least| least < narrowest[column]);
        let widest = shown.iter().copied().filter(wider).max_by_key(|&column| narrowest[column]);
        let Some(widest) = widest else { return };
        narrowest[widest] -= 1;
    }
}

/// Gives the remaining room to the columns that were narrowed, one character at a time in turn.
fn share_out(shown: &[usize], natural: &[u16], narrowest: Vec<u16>, room: u16) -> Vec<u16> {
    let mut widths = narrowest;
    let mut left = room.saturating_sub(taken(shown, &widths));
    while left > 0 {
        let before = left;
        for &column in shown {
            if left > 0 && widths[column] < natural[column] {
                widths[column] += 1;
                left -= 1;
            }
        }
        if left == before {
            break;
        }
    }
    widths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        let mut grid = Grid::new([
            Column::text("id").wraps_from(6),
            Column::text("what").wraps_from(10).rank(1),
            Column::number("count"),
            Column::text("empty").rank(9),
        ]);
        grid.row(
            Tone::Plain,
            ["a".into(), "some words that take room".into(), "1,000".into(), String::new()],
        );
        grid.row(Tone::Faint, ["site/b\nc".into(), "few".into(), "-".into(), String::new()]);
        grid
    }

    #[test]
    fn wide_grid_uses_one_line_a_row_and_aligns_numbers() {
        assert_eq!(
            grid().text(None, false),
            "id         what                       count\n\
             ───────────────────────────────────────────\n\
             a          some words that take room  1,000\n\
             site/b\\nc  few                            -\n"
        );
    }

    #[test]
    fn without_room_text_wraps_and_then_columns_go_by_rank() {
        for line in grid().text(Some(30), false).lines() {
            assert!(line.chars().count() <= 30, "{line}");
        }
        assert!(grid().text(Some(30), false).contains("what"));
        assert!(!grid().text(Some(20), false).contains("what"));
    }

    #[test]
    fn long_words_are_split_when_nothing_else_is_left() {
        let mut grid = Grid::new([Column::text("id").wraps_from(8), Column::number("count")]);
        grid.row(Tone::Plain, ["site/seen-tcp-from-10.77.0.2".into(), "1,000".into()]);
        let text = grid.text(Some(16), false);
        assert!(text.lines().all(|line| line.chars().count() <= 16), "{text}");
        let shown: String =
            text.lines().skip(2).map(|line| line.split_whitespace().next().unwrap()).collect();
        assert_eq!(shown, "site/seen-tcp-from-10.77.0.2", "nothing is lost: {text}");
    }

    #[test]
    fn colour_is_there_only_when_asked_for() {
        assert!(!grid().text(Some(60), false).contains('\u{1b}'));
        assert!(grid().text(Some(60), true).contains('\u{1b}'));
    }
}
