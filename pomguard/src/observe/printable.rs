//! Names from files, made safe to show: in a terminal, in the journal, in a metric label.

use std::{borrow::Cow, fmt::Write as _};

/// Returns `text` without characters that move a cursor, colour a terminal, break a line or change the
/// direction of reading. Such characters are shown as escapes (`\n`, `\u{1b}`).
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unsafe(c) {
            // Writing to a String cannot fail.
            let _ = write!(shown, "{}", c.escape_default());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// Returns true for control characters, line and paragraph separators, and the invisible marks that reorder
/// text.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_are_left_as_they_are() {
        for name in ["pom-4.0/15", "Multitenancy Service (Ignite Cache)", "Büro „Süd“", r#"a"b\c"#] {
            assert!(matches!(printable(name), Cow::Borrowed(same) if same == name));
        }
    }

    #[test]
    fn nothing_that_steers_a_terminal_gets_through() {
        assert_eq!(printable("a\nb\r\t\u{1b}[2Jc"), r"a\nb\r\t\u{1b}[2Jc");
        assert_eq!(printable("allow\u{202e}yned"), r"allow\u{202e}yned");
        assert_eq!(printable("\u{9b}31m"), r"\u{9b}31m");
    }
}
