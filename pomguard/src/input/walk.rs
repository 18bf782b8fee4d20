//! Walks a parsed TOML table and collects every fault of a file.
//!
//! Deserializers stop at the first fault; a person who repairs a file wants all of them.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    diagnostic::{Diagnostics, Fault},
    spelling::nearest,
    text::{At, Text},
};
use crate::model::Origin;

/// Parses a text into its top table, or returns every syntax fault.
pub(super) fn parse(text: &Text) -> Result<Spanned<DeTable<'_>>, Diagnostics> {
    let (table, errors) = DeTable::parse_recoverable(&text.body);
    let mut faults = Diagnostics::default();
    for error in errors {
        let end = text.body.len();
        let span = error.span().unwrap_or(end..end);
        faults.add(
            text.origin(&span),
            text.quote(&span),
            error.message(),
            "see https://toml.io for the form",
        );
    }
    faults.into_result(table)
}

#[cfg(test)]
thread_local! {
    /// File, table and key of each read in this thread, for the test of the documented keys.
    pub(super) static ASKED: std::cell::RefCell<Vec<(String, &'static str, &'static str)>> =
        const { std::cell::RefCell::new(Vec::new()) };
}

/// A table being read. Each read takes a key; keys left over are unknown.
pub(super) struct Table<'a> {
    text: &'a Text,
    /// Name of the table in messages: `[[host]]`.
    name: &'static str,
    span: Range<usize>,
    entries: &'a DeTable<'a>,
    known: Vec<&'static str>,
}

impl<'a> Table<'a> {
    pub(super) fn new(text: &'a Text, name: &'static str, table: &'a Spanned<DeTable<'a>>) -> Self {
        Self { text, name, span: table.span(), entries: table.get_ref(), known: Vec::new() }
    }

    pub(super) fn origin(&self) -> Origin {
        self.text.origin(&self.span)
    }

    /// Returns the value of `key`, if present.
    pub(super) fn get(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.known.push(key);
        #[cfg(test)]
        ASKED.with_borrow_mut(|asked| asked.push((self.text.name.to_string(), self.name, key)));
        let value = self.entries.get(key)?;
        Some(Value { text: self.text, key, content: value })
    }

    /// Returns the value of `key`; a missing key is a fault.
    pub(super) fn need(
        &mut self,
        key: &'static str,
        example: &str,
        faults: &mut Diagnostics,
    ) -> Option<Value<'a>> {
        let value = self.get(key);
        if value.is_none() {
            let problem = format!("`{key}` is missing");
            faults.add(self.origin(), self.name, problem, format!("write {key} = {example}"));
        }
        value
    }

    /// Returns the tables below `key`, one for each `[[key]]`. Returns no tables if the key is missing.
    pub(super) fn tables(
        &mut self,
        key: &'static str,
        name: &'static str,
        faults: &mut Diagnostics,
    ) -> Vec<Table<'a>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let DeValue::Array(items) = value.content.get_ref() else {
            value.refuse("is not a list of tables", format!("open each entry with {name}"), faults);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in items {
            let entry = Value { text: self.text, key, content: item };
            tables.extend(entry.table(name, faults));
        }
        tables
    }

    /// Reports every key that was not read.
    pub(super) fn finish(self, faults: &mut Diagnostics) {
        for key in self.entries.keys() {
            if self.known.contains(&key.get_ref().as_ref()) {
                continue;
            }
            let span = key.span();
            let remedy = match nearest(key.get_ref(), self.known.iter().copied()) {
                Some(meant) => format!("write `{meant}`"),
                None => format!("remove it; known keys are {}", self.known.join(", ")),
            };
            let problem = format!("unknown key in {}", self.name);
            faults.add(self.text.origin(&span), self.text.quote(&span), problem, remedy);
        }
    }
}

/// A value being read.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    text: &'a Text,
    key: &'static str,
    content: &'a Spanned<DeValue<'a>>,
}

impl<'a> Value<'a> {
    pub(super) fn origin(&self) -> Origin {
        self.text.origin(&self.content.span())
    }

    pub(super) fn refuse(
        &self,
        problem: impl Into<String>,
        remedy: impl Into<String>,
        faults: &mut Diagnostics,
    ) {
        faults.add(self.origin(), self.text.quote(&self.content.span()), problem, remedy);
    }

    fn wrong_type(&self, wanted: &str, remedy: &str, faults: &mut Diagnostics) {
        let is = self.content.get_ref().type_str();
        self.refuse(format!("`{}` is {is}, not {wanted}", self.key), remedy, faults);
    }

    pub(super) fn is_string(&self) -> bool {
        self.content.get_ref().is_str()
    }

    pub(super) fn is_list(&self) -> bool {
        self.content.get_ref().is_array()
    }

    /// Reads a string that is not empty.
    pub(super) fn string(&self, faults: &mut Diagnostics) -> Option<At<String>> {
        Some(At { value: self.written(faults)?.to_owned(), origin: self.origin() })
    }

    fn written(&self, faults: &mut Diagnostics) -> Option<&'a str> {
        match self.content.get_ref().as_str() {
            Some("") => {
                self.refuse(format!("`{}` is empty", self.key), "write a value, or remove the key", faults);
                None
            }
            Some(written) => Some(written),
            None => {
                let bare = self.text.quote(&self.content.span());
                self.wrong_type("a string", &format!("write it in quotes: \"{bare}\""), faults);
                None
            }
        }
    }

    /// Reads a string and parses it with `read`.
    pub(super) fn read<T>(
        &self,
        faults: &mut Diagnostics,
        read: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<At<T>> {
        let written = self.written(faults)?;
        match read(written) {
            Ok(value) => Some(At { value, origin: self.origin() }),
            Err(Fault { problem, remedy }) => {
                self.refuse(problem, remedy, faults);
                None
            }
        }
    }

    /// Reads one of a few words.
    pub(super) fn word<T: Copy>(
        &self,
        words: &[(&'static str, T)],
        faults: &mut Diagnostics,
    ) -> Option<At<T>> {
        self.read(faults, |written| {
            words.iter().find(|(word, _)| *word == written).map(|&(_, value)| value).ok_or_else(|| {
                let all: Vec<&str> = words.iter().map(|&(word, _)| word).collect();
                Fault::new(
                    format!("`{}` has no such value", self.key),
                    format!("write one of: {}", all.join(", ")),
                )
            })
        })
    }

    pub(super) fn boolean(&self, faults: &mut Diagnostics) -> Option<At<bool>> {
        let value = self.content.get_ref().as_bool();
        if value.is_none() {
            self.wrong_type("true or false", "write true or false, without quotes", faults);
        }
        value.map(|value| At { value, origin: self.origin() })
    }

    /// Reads a decimal number from `first` to `last`.
    pub(super) fn number(&self, first: u32, last: u32, faults: &mut Diagnostics) -> Option<At<u32>> {
        let remedy = format!("write a number from {first} to {last}, without quotes");
        let Some(written) = self.content.get_ref().as_integer() else {
            self.wrong_type("a whole number", &remedy, faults);
            return None;
        };
        let value = u32::from_str_radix(written.as_str(), written.radix()).ok();
        let value = value.filter(|value| (first..=last).contains(value));
        if value.is_none() {
            self.refuse(format!("`{}` is out of range", self.key), remedy, faults);
        }
        value.map(|value| At { value, origin: self.origin() })
    }

    /// Returns the items of a list, which may be empty.
    pub(super) fn list(&self, faults: &mut Diagnostics) -> Vec<Value<'a>> {
        if let DeValue::Array(items) = self.content.get_ref() {
            return items.iter().map(|content| Value { text: self.text, key: self.key, content }).collect();
        }
        let one = self.text.quote(&self.content.span());
        self.wrong_type("a list", &format!("write it in brackets: [{one}]"), faults);
        Vec::new()
    }

    /// Returns the items of a list. An empty list is a fault: nothing empty ever means "any".
    pub(super) fn items(&self, faults: &mut Diagnostics) -> Vec<Value<'a>> {
        let items = self.list(faults);
        if items.is_empty() && self.is_list() {
            self.refuse(
                format!("`{}` is empty", self.key),
                "list at least one; empty never means any",
                faults,
            );
        }
        items
    }

    /// Reads the strings of a list.
    pub(super) fn strings(&self, faults: &mut Diagnostics) -> Vec<At<String>> {
        self.list(faults).iter().filter_map(|item| item.string(faults)).collect()
    }

    /// Reads a table below this key.
    pub(super) fn table(&self, name: &'static str, faults: &mut Diagnostics) -> Option<Table<'a>> {
        if let DeValue::Table(entries) = self.content.get_ref() {
            return Some(Table {
                text: self.text,
                name,
                span: self.content.span(),
                entries,
                known: Vec::new(),
            });
        }
        self.wrong_type("a table", &format!("open it with {name}"), faults);
        None
    }
}
