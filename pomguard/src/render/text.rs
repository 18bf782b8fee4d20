//! Text in lines of a width.

/// Splits a text at blanks into lines of at most `width` characters. A longer word is a line of its own.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Columns by which the rest of a long line is indented more than its beginning.
const HANGING: usize = 4;

/// The first character of a sequence that colours a terminal; `m` is the last.
const ESCAPE: char = '\u{1b}';

/// Returns the characters that a terminal shows, with the place of each: sequences that colour the terminal take
/// no room.
fn shown(text: &str) -> impl Iterator<Item = (usize, char)> {
    let mut within = false;
    text.char_indices().filter(move |&(_, letter)| {
        let hidden = within || letter == ESCAPE;
        within = hidden && letter != 'm';
        !hidden
    })
}

/// Folds the lines of a text that are longer than `width`; `None` folds nothing.
pub(crate) fn folded(text: &str, width: Option<u16>) -> String {
    let Some(width) = width.map(usize::from) else { return text.to_owned() };
    let mut folded = String::with_capacity(text.len());
    for line in text.lines() {
        if shown(line).count() <= width {
            folded.push_str(line);
            folded.push('\n');
            continue;
        }
        let indent = line.chars().take_while(|letter| *letter == ' ').count();
        let room = width.saturating_sub(indent + HANGING).max(HANGING);
        let mut rest = line.trim_start();
        let mut first = true;
        while !rest.is_empty() {
            let lead = indent + if first { 0 } else { HANGING };
            let (now, later) = split(rest, if first { room + HANGING } else { room });
            folded.extend(std::iter::repeat_n(' ', lead));
            folded.push_str(now);
            folded.push('\n');
            (rest, first) = (later, false);
        }
    }
    folded
}

/// Splits a text at the last blank within `room` characters; without one, at the first blank behind.
fn split(text: &str, room: usize) -> (&str, &str) {
    let end = shown(text).nth(room).map_or(text.len(), |(at, _)| at);
    if end == text.len() {
        return (text, "");
    }
    let within = text.get(..=end).unwrap_or(text).rfind(' ').filter(|&at| at > 0);
    let at = within.or_else(|| text.find(' ')).unwrap_or(text.len());
    let (now, later) = text.split_at(at);
    (now.trim_end(), later.trim_start())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{folded, shown, wrapped};

    /// Returns the text that a terminal shows, without the sequences that colour it.
    pub(crate) fn without_colour(text: &str) -> String {
        shown(text).map(|(_, letter)| letter).collect()
    }

    #[test]
    fn lines_end_at_blanks_and_long_words_stand_alone() {
        assert_eq!(wrapped("one two  three", 7), ["one two", "three"]);
        assert_eq!(wrapped("a fd00:1234:5678:9abc b", 8), ["a", "fd00:1234:5678:9abc", "b"]);
        assert_eq!(wrapped("", 8), Vec::<String>::new());
        assert_eq!(wrapped("ä ö ü", 3), ["ä ö", "ü"], "characters, not bytes");
    }

    #[test]
    fn colours_take_no_room_in_a_line() {
        let colour = |text: &str| text.replace("two", "\u{1b}[1;31mtwo\u{1b}[0m");
        for plain in ["one two", "  one two three four", "one two three", "twotwo two"] {
            for width in [7, 12, 13] {
                assert_eq!(
                    folded(&colour(plain), Some(width)),
                    colour(&folded(plain, Some(width))),
                    "{plain}"
                );
            }
        }
    }

    #[test]
    fn long_lines_hang_and_short_lines_keep_their_blanks() {
        assert_eq!(folded("a  b\n", Some(10)), "a  b\n");
        assert_eq!(folded("  one two three four\n", Some(12)), "  one two\n      three\n      four\n");
        assert_eq!(folded("abcdefghijklmnop q\n", Some(8)), "abcdefghijklmnop\n    q\n");
        assert_eq!(folded("one two three four", None), "one two three four");
        for line in folded(&"äöü wort ".repeat(40), Some(40)).lines() {
            assert!(line.chars().count() <= 40, "{line}");
        }
    }
}
