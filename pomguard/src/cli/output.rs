//! The only place through which every verb writes to a terminal, pipe or file.
//!
//! A verb never depends on the reader of the output. Writing cannot fail: text that a closed pipe or a full
//! disk does not take is lost, and the verb goes on. `Output::end` then chooses the exit code. So a verb that
//! changes something always completes the change, and the exit code reports the change.

use std::{
    env, fmt,
    io::{self, BufRead as _, ErrorKind, IsTerminal as _, Write},
    process::ExitCode,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use serde::Serialize;

use super::{FAULT, USAGE, Usage};
use crate::render::text::folded;

/// Bytes that are buffered before they are written: the capacity of a pipe.
const CHUNK: usize = 65_536;

/// Standard output and standard error of a verb.
pub struct Output {
    to: Box<dyn Write>,
    /// Bytes that are not yet written.
    kept: Vec<u8>,
    /// The first error of a write. Nothing is written after it.
    lost: Option<io::Error>,
    /// Columns of the terminal; `None` if the output is no terminal.
    width: Option<u16>,
    /// True if the terminal shows colours and the person wants them.
    colour: bool,
    /// The complaints so far, if the verb was asked for JSON and has not written any.
    untold: Option<Vec<String>>,
}

/// The longest time in which a verb says nothing to the person at the terminal.
const SILENCE: Duration = Duration::from_secs(1);

/// The columns of a terminal that does not tell.
const UNKNOWN: u16 = 80;

impl Output {
    /// Returns the process's own output.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the only place that opens the standard output")]
    pub fn new() -> Self {
        let terminal = io::stdout().is_terminal();
        // A terminal that reports no columns (a serial line, `expect`) is 80 wide.
        let columns = || comfy_table::Table::new().width().filter(|&columns| columns > 0);
        // https://no-color.org: set and not empty.
        let plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            width: terminal.then(|| columns().unwrap_or(UNKNOWN)),
            colour: terminal && !plain && !is_dumb(),
            ..Self::to(io::stdout())
        }
    }

    /// Returns the columns of the terminal. Returns `None` if the output is no terminal: then a row or a sentence
    /// is one line, for grep.
    pub(super) const fn width(&self) -> Option<u16> {
        self.width
    }

    /// Returns true if the text may have colours: the output is a terminal that shows them, and `NO_COLOR` is not
    /// set.
    pub(super) const fn colour(&self) -> bool {
        self.colour
    }

    /// Promises JSON: if the verb ends without having written any, [`Self::end`] writes an object with the error.
    pub(super) fn promise_json(&mut self) {
        self.untold = Some(Vec::new());
    }

    /// Writes a text, with lines that fit the terminal.
    pub(super) fn folded(&mut self, text: &[u8]) {
        let text = folded(&String::from_utf8_lossy(text), self.width);
        self.write_bytes(text.as_bytes());
    }

    /// Returns an output into another sink, for tests.
    pub(super) fn to(sink: impl Write + 'static) -> Self {
        Self { to: Box::new(sink), kept: Vec::new(), lost: None, width: None, colour: false, untold: None }
    }

    /// Returns true if a write has failed.
    pub(super) const fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// Writes the buffered bytes.
    pub(super) fn push(&mut self) {
        if self.lost.is_none() {
            self.lost = self.to.write_all(&self.kept).and_then(|()| self.to.flush()).err();
        }
        self.kept.clear();
    }

    /// Writes a value as JSON of several lines.
    ///
    /// # Errors
    /// If the value cannot be written as JSON.
    pub(super) fn json<T: Serialize + ?Sized>(&mut self, value: &T) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(value).context("write JSON")?;
        self.write_bytes(&text);
        self.write_bytes(b"\n");
        Ok(())
    }

    /// Writes one line.
    pub(super) fn line(&mut self, line: impl fmt::Display) {
        self.write_bytes(format!("{line}\n").as_bytes());
    }

    /// Writes bytes, or drops them if a write has failed.
    pub(super) fn write_bytes(&mut self, bytes: &[u8]) {
        self.untold = None;
        if self.lost.is_some() {
            return;
        }
        self.kept.extend_from_slice(bytes);
        if self.kept.len() >= CHUNK {
            self.push();
        }
    }

    /// Writes a line to the standard error, after the text written to the output so far.
    pub(super) fn complain(&mut self, line: impl fmt::Display) {
        self.push();
        if let Some(untold) = &mut self.untold {
            untold.push(line.to_string());
        }
        complain(line);
    }

    /// Runs `work`. If the work takes longer than a second, tells the person at the terminal what is going on.
    #[expect(clippy::disallowed_methods, reason = "asks only whether a person sees the standard error")]
    pub(super) fn busy<T>(&mut self, about: &str, work: impl FnOnce() -> T) -> T {
        if !io::stderr().is_terminal() {
            return work();
        }
        self.push();
        said_after(SILENCE, || complain(format_args!("pomguard: {about} ...")), work)
    }

    /// Asks the person at the terminal a question and returns the answer. The question goes to the standard
    /// error, so that a pipe behind the verb does not swallow the question.
    ///
    /// # Errors
    /// If nobody is at the terminal (the message is `unattended`), or if the question cannot be shown.
    #[expect(clippy::disallowed_methods, reason = "the only place that asks on the standard error")]
    pub(super) fn ask(&mut self, question: &str, unattended: &str) -> anyhow::Result<String> {
        if !io::stdin().is_terminal() {
            anyhow::bail!("{unattended}");
        }
        self.push();
        let mut errors = io::stderr().lock();
        errors
            .write_all(question.as_bytes())
            .and_then(|()| errors.flush())
            .context("nothing was changed: the question cannot be shown")?;
        drop(errors);
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).context("read the answer")?;
        Ok(answer)
    }

    /// Ends the output and returns the exit code of the verb.
    ///
    /// The exit code of a verb that `changes` something reports the change, even if the output is lost. A verb
    /// that only reads fails if the output was truncated, except if the reader closed the pipe early.
    pub(super) fn end(mut self, result: anyhow::Result<ExitCode>, changes: bool) -> ExitCode {
        self.push();
        let code = result.unwrap_or_else(|error| {
            self.complain(format_args!("pomguard: {error:#}"));
            ExitCode::from(if error.is::<Usage>() { USAGE } else { FAULT })
        });
        if let Some(untold) = self.untold.take().filter(|untold| !untold.is_empty()) {
            let plain = |line: &String| line.strip_prefix("pomguard: ").unwrap_or(line).to_owned();
            let error = untold.iter().map(plain).collect::<Vec<_>>().join("\n");
            self.line(serde_json::json!({ "error": error }));
            self.push();
        }
        match self.lost {
            Some(error) if error.kind() != ErrorKind::BrokenPipe => {
                complain(format_args!("pomguard: the output is cut short: {error}"));
                if changes { code } else { ExitCode::from(FAULT) }
            }
            _ => code,
        }
    }
}

/// Returns true if the terminal can neither show colours nor move the cursor.
pub(super) fn is_dumb() -> bool {
    env::var_os("TERM").is_some_and(|term| term == "dumb")
}

impl Default for Output {
    fn default() -> Self {
        Self::new()
    }
}

/// Writing never fails; see [`Output`].
impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_bytes(bytes);
        Ok(bytes.len())
    }

    /// Does nothing: `Output::push` and `Output::end` write the bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs `work`, and calls `say` once if the work takes longer than `silence`.
fn said_after<T>(silence: Duration, say: impl FnOnce() + Send, work: impl FnOnce() -> T) -> T {
    let (working, over) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            if over.recv_timeout(silence) == Err(RecvTimeoutError::Timeout) {
                say();
            }
        });
        let result = work();
        drop(working);
        result
    })
}

/// Writes a line to the standard error. A failed write is ignored.
#[expect(clippy::disallowed_methods, reason = "the only place that writes to the standard error")]
fn complain(line: impl fmt::Display) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

#[cfg(test)]
pub(super) mod tests {
    use std::{cell::RefCell, rc::Rc};

    use super::*;

    /// Keeps the written bytes where a test can read them.
    #[derive(Clone, Default)]
    pub(in crate::cli) struct Paper(Rc<RefCell<Vec<u8>>>);

    impl Paper {
        pub(in crate::cli) fn text(&self) -> String {
            String::from_utf8(self.0.borrow().clone()).unwrap()
        }
    }

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Takes the first bytes and then fails, like a pipe whose reader is `head`, or a disk that fills.
    pub(in crate::cli) struct Gone(pub(in crate::cli) usize, pub(in crate::cli) ErrorKind);

    impl Write for Gone {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(self.1.into());
            }
            let taken = bytes.len().min(self.0);
            self.0 -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns the exit code as a text, which [`ExitCode`] does not offer.
    fn number(code: ExitCode) -> String {
        format!("{code:?}")
    }

    #[test]
    fn output_in_large_and_small_pieces_arrives_in_order() {
        let paper = Paper::default();
        let mut out = Output::to(paper.clone());
        out.line("one");
        out.write_bytes(&vec![b'x'; CHUNK]);
        out.json(&[1]).unwrap();
        let code = out.end(Ok(ExitCode::from(3)), false);
        assert_eq!(number(code), number(ExitCode::from(3)));
        assert_eq!(paper.text(), format!("one\n{}[\n  1\n]\n", "x".repeat(CHUNK)));
    }

    #[test]
    fn promise_of_json_is_kept_for_errors_and_refusals() {
        let written = |wrote: bool, result: anyhow::Result<ExitCode>| {
            let paper = Paper::default();
            let mut out = Output::to(paper.clone());
            out.promise_json();
            if wrote {
                out.json(&[1]).unwrap();
            }
            out.complain("pomguard: refused: it cuts you off");
            out.end(result, false);
            paper.text()
        };
        let refused = "{\"error\":\"refused: it cuts you off\"}\n";
        assert_eq!(written(false, Ok(ExitCode::from(3))), refused);
        let both = "{\"error\":\"refused: it cuts you off\\nno daemon\"}\n";
        assert_eq!(written(false, Err(anyhow::anyhow!("no daemon"))), both);
        assert_eq!(written(true, Err(anyhow::anyhow!("no daemon"))), "[\n  1\n]\n", "one document");
    }

    #[test]
    fn slow_work_is_announced_once_and_fast_work_is_not() {
        let count = |silence: Duration, work: Duration| {
            let said = std::sync::atomic::AtomicUsize::new(0);
            let add = || {
                said.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            };
            said_after(silence, add, || thread::sleep(work));
            said.into_inner()
        };
        assert_eq!(count(Duration::from_millis(5), Duration::from_millis(200)), 1);
        assert_eq!(count(Duration::from_secs(60), Duration::ZERO), 0, "and the work does not wait");
    }

    #[test]
    fn exit_code_of_a_change_survives_any_output() {
        for (kind, of_reader) in [(ErrorKind::BrokenPipe, 3), (ErrorKind::StorageFull, FAULT)] {
            for (changes, expected) in [(true, 3), (false, of_reader)] {
                let mut out = Output::to(Gone(2, kind));
                for _ in 0..3 {
                    writeln!(out, "a line").unwrap();
                    out.push();
                }
                assert!(out.is_lost());
                let code = out.end(Ok(ExitCode::from(3)), changes);
                assert_eq!(number(code), number(ExitCode::from(expected)), "{kind:?} {changes}");
            }
        }
        let failed = Output::to(Gone(0, ErrorKind::BrokenPipe)).end(Err(anyhow::anyhow!("no")), true);
        assert_eq!(number(failed), number(ExitCode::from(FAULT)));
    }
}
