//! Bounds for the prose of comments, documents and operator text: few sentences that begin with a relative clause,
//! few pronouns whose noun a reader has to look for.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};
use pomguard_workspace::{self as workspace, process};
use regex::Regex;
use syn::visit::{self, Visit};

/// Occurrences of "what" in 1,000 words.
const MOST_WHAT: f64 = 2.0;
/// Occurrences of it, its, those and ones in 1,000 words.
const MOST_PRONOUNS: f64 = 12.0;
/// Of 100 sentences, those that begin with a relative clause.
const MOST_OPENINGS: f64 = 2.5;

/// Words that a relative clause begins with.
const OPENINGS: [&str; 7] = ["What", "Who", "Whoever", "Whatever", "Whose", "Which", "Whether"];
/// A file whose strings are shown to operators.
const REASONS: &str = "pomguard-common/src/reason.rs";

/// Checks the three kinds of text, each as a whole.
pub(crate) fn check() -> Result<()> {
    let files = process::output(Command::new("git").arg("ls-files").current_dir(workspace::root()))?;
    let mut texts =
        [("doc comments", String::new()), ("docs", String::new()), ("operator text", String::new())];
    for file in files.lines() {
        let read = || fs::read_to_string(workspace::root().join(file)).with_context(|| file.to_owned());
        let is = |kind: &str| Path::new(file).extension().is_some_and(|extension| extension == kind);
        if is("rs") {
            let text = read()?;
            texts[0].1 += &doc_comments(&text);
            if file == REASONS {
                texts[2].1 += &strings(&text)?;
            }
        } else if is("md") && (file.starts_with("docs/") || !file.contains('/')) {
            texts[1].1 += &markdown(&read()?);
        } else if file.starts_with("config/") && is("toml") {
            texts[2].1 += &hash_comments(&read()?);
        }
    }
    let mut over = Vec::new();
    for (name, text) in &texts {
        let rates = Rates::of(text)?;
        println!("{name}: {rates}");
        if !rates.within() {
            over.push(*name);
        }
    }
    if over.is_empty() {
        return Ok(());
    }
    bail!(
        "the prose of {} is over its bounds ({MOST_WHAT} \"what\" and {MOST_PRONOUNS} it/its/those/ones in 1,000 \
         words, {MOST_OPENINGS} % of sentences that begin with What, Who, Which or Whether): say in active \
         sentences, subject first, what the code does",
        over.join(" and of ")
    )
}

/// The measured rates of a text.
#[derive(Debug, PartialEq)]
struct Rates {
    words: usize,
    what: f64,
    pronouns: f64,
    openings: f64,
}

impl Rates {
    /// Measures a text. A colon ends a sentence; a sentence has at least three words.
    fn of(text: &str) -> Result<Self> {
        let code = Regex::new("`[^`]*`")?.replace_all(text, "CODE");
        let text = Regex::new(r"\[([^\]]*)\]\([^)]*\)")?.replace_all(&code, "$1");
        let word = Regex::new("[A-Za-z']+")?;
        let words: Vec<String> = word.find_iter(&text).map(|found| found.as_str().to_lowercase()).collect();
        let count = |wanted: &[&str]| words.iter().filter(|word| wanted.contains(&word.as_str())).count();
        let mut sentences = 0_usize;
        let mut openings = 0_usize;
        for sentence in sentences_of(&text)? {
            if word.find_iter(sentence).take(3).count() < 3 {
                continue;
            }
            sentences += 1;
            let first = word.find(sentence).filter(|found| found.start() == 0).map(|found| found.as_str());
            if first.is_some_and(|first| OPENINGS.contains(&first)) && !sentence.ends_with('?') {
                openings += 1;
            }
        }
        let share = |part: usize, whole: usize, of: f64| of * number(part) / number(whole.max(1));
        Ok(Self {
            words: words.len(),
            what: share(count(&["what"]), words.len(), 1_000.0),
            pronouns: share(count(&["it", "its", "those", "ones"]), words.len(), 1_000.0),
            openings: share(openings, sentences, 100.0),
        })
    }

    /// Returns true if no rate is over its bound.
    fn within(&self) -> bool {
        self.what <= MOST_WHAT && self.pronouns <= MOST_PRONOUNS && self.openings <= MOST_OPENINGS
    }
}

impl std::fmt::Display for Rates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { words, what, pronouns, openings } = self;
        write!(
            f,
            "{words} words, what {what:.1}, it/its/those/ones {pronouns:.1}, What/Who openings {openings:.1} %"
        )
    }
}

/// Returns a count as a number with a fraction. No text has 2^32 words.
fn number(count: usize) -> f64 {
    u32::try_from(count).unwrap_or(u32::MAX).into()
}

/// Splits a text after each full stop, exclamation mark, question mark or colon that white space follows.
fn sentences_of(text: &str) -> Result<Vec<&str>> {
    let mut sentences = Vec::new();
    let mut start = 0;
    for end in Regex::new(r"[.!?:]\s+")?.find_iter(text) {
        sentences.push(&text[start..=end.start()]);
        start = end.end();
    }
    sentences.push(&text[start..]);
    Ok(sentences)
}

/// Returns the doc comments of a Rust file without fences, tables and headings.
fn doc_comments(text: &str) -> String {
    let mut fenced = false;
    let comments = text.lines().filter_map(|line| {
        let line = line.trim_start();
        let Some(comment) = line.strip_prefix("///").or_else(|| line.strip_prefix("//!")) else {
            fenced = false;
            return None;
        };
        prose(comment.strip_prefix(' ').unwrap_or(comment), &mut fenced)
    });
    comments.fold(String::new(), |text, line| text + line + " ")
}

/// Returns the text of a Markdown file without fences, tables, headings and the marks of list items.
fn markdown(text: &str) -> String {
    let mut fenced = false;
    let lines = text.lines().filter_map(|line| prose(line, &mut fenced)).map(|line| {
        let bare = line.trim_start();
        let digits = bare.trim_start_matches(|character: char| character.is_ascii_digit());
        let item = bare.strip_prefix("* ").or_else(|| bare.strip_prefix("- "));
        item.or_else(|| digits.strip_prefix(". ").filter(|_| digits.len() < bare.len())).unwrap_or(bare)
    });
    lines.fold(String::new(), |text, line| text + line + " ")
}

/// Returns the comments of a TOML file.
fn hash_comments(text: &str) -> String {
    let comments = text.lines().filter_map(|line| line.trim_start().strip_prefix('#'));
    comments.fold(String::new(), |text, line| text + line.trim_start() + " ")
}

/// Returns a line unless it is of a fence, a table or a heading.
fn prose<'a>(line: &'a str, fenced: &mut bool) -> Option<&'a str> {
    let bare = line.trim_start();
    if bare.starts_with("```") {
        *fenced = !*fenced;
        return None;
    }
    (!*fenced && !bare.starts_with('|') && !line.starts_with('#')).then_some(line)
}

/// Returns the string literals of a Rust file.
fn strings(text: &str) -> Result<String> {
    struct Strings(String);
    impl<'ast> Visit<'ast> for Strings {
        fn visit_lit_str(&mut self, literal: &'ast syn::LitStr) {
            self.0.push_str(&literal.value());
            self.0.push_str(". ");
            visit::visit_lit_str(self, literal);
        }
    }
    let mut found = Strings(String::new());
    found.visit_file(&syn::parse_file(text)?);
    Ok(found.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_count_words_and_openings() {
        let rates =
            Rates::of("What it does: it drops. Who asks? `it` [what](its) ones. Returns one.").unwrap();
        assert_eq!(rates.words, 12);
        // Two of the 12 words are "what", and three of them it, its or ones: code spans and link targets do not count.
        assert!((rates.what - 2_000.0 / 12.0).abs() < 0.01, "{rates}");
        assert!((rates.pronouns - 3_000.0 / 12.0).abs() < 0.01, "{rates}");
        // Of "What it does:" and "CODE what ones." the first one begins with a relative clause; a sentence has three
        // words.
        assert!((rates.openings - 50.0).abs() < 0.01, "{rates}");
    }

    #[test]
    fn fences_tables_and_headings_are_left_out() {
        let text = "# What\n\n1. one\n| what |\n```\nwhat\n```\n* two\n";
        assert_eq!(markdown(text), " one two ");
        let code = "//! a\n//! ```\n//! what\nfn f() {}\n    /// b\n    // what\n";
        assert_eq!(doc_comments(code), "a b ");
        assert_eq!(hash_comments("# a\nkey = 1\n  # b\n"), "a b ");
    }
}
