//! The text of a file, and the lines in the text.

use std::{
    fs::OpenOptions, io::Read as _, ops::Range, os::unix::fs::OpenOptionsExt as _, path::Path, sync::Arc,
};

use super::{diagnostic::Diagnostics, files::Files};
use crate::model::Origin;

/// Largest file in bytes. No file of pomguard comes near; a larger file is a mistake, and reading one would
/// only cost memory.
const LARGEST: u64 = 4 << 20;
/// Longest piece of offending text that a message repeats.
const QUOTED: usize = 60;

/// A value, and the place where it was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// File and line.
    pub origin: Origin,
}

impl<T> At<T> {
    /// Returns the changed value with the same origin.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> At<U> {
        At { value: change(self.value), origin: self.origin }
    }
}

/// Text that passed the checks for every file: size, encoding, no NUL, no byte-order mark.
pub(super) struct Text {
    pub(super) name: Arc<str>,
    pub(super) body: String,
    line_starts: Vec<usize>,
}

impl Text {
    /// Opens the file once and reads from that descriptor, so that the checks apply to the bytes that are read.
    pub(super) fn load(files: &mut Files, path: &Path) -> Result<Self, Diagnostics> {
        let name: Arc<str> = path.display().to_string().into();
        let refuse = |problem: &str, remedy: &str| {
            Diagnostics::one(Origin { file: name.clone(), line: 1 }, "the file", problem, remedy)
        };
        // A FIFO would block the open for ever without O_NONBLOCK.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(path)
            .map_err(|error| {
                refuse(&format!("cannot be opened: {error}"), "check the path and its permissions")
            })?;
        let unreadable = |error: std::io::Error| {
            refuse(&format!("cannot be read: {error}"), "check the path and its permissions")
        };
        let facts = file.metadata().map_err(unreadable)?;
        if !facts.is_file() {
            return Err(refuse("is not a regular file", "name a plain text file"));
        }
        files.judge(path, &facts)?;
        let mut bytes = Vec::new();
        file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        Self::check(name, bytes)
    }

    /// Applies the same checks to bytes in memory.
    pub(super) fn check(name: Arc<str>, bytes: Vec<u8>) -> Result<Self, Diagnostics> {
        let refuse = |at: usize, found: &str, problem: &str, remedy: &str, bytes: &[u8]| {
            let line = 1 + bytes.iter().take(at).filter(|&&byte| byte == b'\n').count();
            Diagnostics::one(Origin { file: name.clone(), line }, found, problem, remedy)
        };
        if bytes.len() as u64 > LARGEST {
            return Err(refuse(
                0,
                "the file",
                "is larger than 4 MiB",
                "check that it is the right file",
                &[],
            ));
        }
        if bytes.starts_with(b"\xef\xbb\xbf") {
            return Err(refuse(
                0,
                "U+FEFF",
                "a byte-order mark opens the file",
                "save it as plain UTF-8",
                &bytes,
            ));
        }
        if let Some(at) = bytes.iter().position(|&byte| byte == 0) {
            return Err(refuse(at, "\\0", "a NUL byte is in the file", "remove it", &bytes));
        }
        let body = match String::from_utf8(bytes) {
            Ok(body) => body,
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                return Err(refuse(
                    at,
                    "the line",
                    "is not UTF-8",
                    "save the file as UTF-8",
                    error.as_bytes(),
                ));
            }
        };
        let line_starts = std::iter::once(0).chain(body.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Ok(Self { name, body, line_starts })
    }

    pub(super) fn origin(&self, span: &Range<usize>) -> Origin {
        let line = self.line_starts.partition_point(|&start| start <= span.start);
        Origin { file: self.name.clone(), line }
    }

    /// Returns the text of a span, on one line and bounded in length.
    pub(super) fn quote(&self, span: &Range<usize>) -> String {
        let written = self.body.get(span.clone()).unwrap_or_default().trim();
        let first = written.lines().next().unwrap_or_default();
        let mut quoted: String = first.chars().take(QUOTED).map(printable).collect();
        if quoted.is_empty() {
            "end of the line".clone_into(&mut quoted);
        } else if first.len() < written.len() || first.chars().count() > QUOTED {
            quoted.push('…');
        }
        quoted
    }
}

/// Escapes control characters, which must not reach a terminal. Quotes and letters stay as written.
fn printable(letter: char) -> String {
    match letter {
        '"' | '\'' | '\\' => letter.to_string(),
        _ => letter.escape_debug().to_string(),
    }
}
