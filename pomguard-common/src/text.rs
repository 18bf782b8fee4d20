//! Text in a record of fixed size.

use core::{
    fmt::{self, Write as _},
    ops::Deref,
};

/// UTF-8 text of at most `N` bytes, padded with zero bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct FixedText<const N: usize>([u8; N]);

impl<const N: usize> FixedText<N> {
    /// Copies a text. A longer text is cut at a character boundary.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut bytes = [0; N];
        bytes.iter_mut().zip(cut(text, N).bytes()).for_each(|(to, from)| *to = from);
        Self(bytes)
    }

    /// Takes the bytes of a record as they are.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; N]) -> Self {
        Self(bytes)
    }

    /// Returns the text; `None` if the bytes are not UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        core::str::from_utf8(unpadded(&self.0)).ok()
    }
}

/// The bytes, with the padding.
impl<const N: usize> Deref for FixedText<N> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// The text. A replacement character stands for bytes that are not UTF-8.
impl<const N: usize> fmt::Display for FixedText<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in unpadded(&self.0).utf8_chunks() {
            f.write_str(chunk.valid())?;
            if !chunk.invalid().is_empty() {
                f.write_char(char::REPLACEMENT_CHARACTER)?;
            }
        }
        Ok(())
    }
}

impl<const N: usize> fmt::Debug for FixedText<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Returns the longest prefix of `text` that fits `room` bytes and ends at a character boundary.
#[must_use]
pub fn cut(text: &str, room: usize) -> &str {
    let mut end = room.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// Returns the bytes before the padding.
#[must_use]
pub fn unpadded(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::{format, string::ToString as _};

    use super::*;

    #[test]
    fn a_text_comes_back_and_a_long_one_is_cut_between_characters() {
        let text = FixedText::<8>::new("pom1");
        assert_eq!((text.to_string().as_str(), text.as_str()), ("pom1", Some("pom1")));
        assert_eq!(text[..], *b"pom1\0\0\0\0");
        assert_eq!(FixedText::<4>::new("pom10").as_str(), Some("pom1"));
        assert_eq!(FixedText::<4>::new("poé1").as_str(), Some("poé"));
        assert_eq!(FixedText::<3>::new("poé1").as_str(), Some("po"));
        assert_eq!(FixedText::<2>::new("").as_str(), Some(""));
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_and_named() {
        let text = FixedText::from_bytes(*b"a\xffb\0\xff");
        assert_eq!((text.as_str(), format!("{text:?}").as_str()), (None, "\"a\u{fffd}b\""));
    }
}
