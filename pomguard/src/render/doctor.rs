//! Findings of the doctor, for people: the worst first, at most 80 columns.

use std::io::{self, Write};

use crate::observe::{
    doctor::{Finding, Severity},
    printable::printable,
};

/// The width of a line, in columns.
const WIDTH: usize = 80;

/// Returns the word for a severity at the start of a finding.
const fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Failed => "FAILED",
        Severity::Attention => "ATTENTION",
        Severity::Note => "note",
        Severity::Good => "good",
    }
}

/// Writes the findings, and the number of findings of each severity.
///
/// # Errors
/// If writing fails.
pub fn print(findings: &[Finding], out: &mut impl Write) -> io::Result<()> {
    let subjects = findings.iter().map(|finding| finding.subject.chars().count());
    let subject_width = subjects.max().unwrap_or(0).clamp(4, 15);
    let indent = 9 + 2 + subject_width + 2;
    for finding in findings {
        let head =
            format!("{:<9}  {:<subject_width$}  ", word(finding.severity), printable(&finding.subject));
        let mut start = head.as_str();
        let blank = " ".repeat(indent);
        for line in wrapped(&printable(&finding.sentence), WIDTH.saturating_sub(indent)) {
            writeln!(out, "{start}{line}")?;
            start = &blank;
        }
        // A command is one line, so that it can be copied.
        writeln!(out, "{blank}$ {}", printable(&finding.command))?;
    }
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    writeln!(
        out,
        "{} failed, {} to attend to, {} notes, {} good",
        count(Severity::Failed),
        count(Severity::Attention),
        count(Severity::Note),
        count(Severity::Good)
    )
}

/// Splits a sentence into lines of at most `width` columns. A longer word has a line of its own.
fn wrapped(sentence: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in sentence.split_whitespace() {
        let fits = lines
            .last()
            .is_some_and(|line| line.is_empty() || line.chars().count() + 1 + word.chars().count() <= width);
        if !fits {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: Severity, subject: &str, sentence: &str) -> Finding {
        Finding {
            severity,
            subject: subject.to_owned(),
            sentence: sentence.to_owned(),
            command: "uname -r".to_owned(),
        }
    }

    #[test]
    fn lines_are_aligned_and_at_most_80_columns() {
        let long = "A sentence that is a good deal longer than what one line of a terminal has room for, and \
                    goes on for a third line because it never comes to an end by itself.";
        let findings = [
            finding(Severity::Failed, "bpffs", "Nothing is mounted."),
            finding(Severity::Attention, "enp0s31f6.4094", long),
            finding(Severity::Good, "kernel", "Fine."),
        ];
        let mut text = Vec::new();
        print(&findings, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.starts_with("FAILED     bpffs           Nothing is mounted.\n"), "{text}");
        assert!(text.ends_with("1 failed, 1 to attend to, 0 notes, 1 good\n"), "{text}");
        let column = text.find("Nothing").unwrap();
        for line in text.lines().filter(|line| line.starts_with("  ")) {
            assert!(!line[..column].contains(|letter| letter != ' '), "{text}");
            assert!(!line[column..].starts_with(' '), "{text}");
        }
    }
}
