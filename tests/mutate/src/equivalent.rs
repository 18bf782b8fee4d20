//! Mutants without an observable effect, each with the reason.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context as _, Result, ensure};
use pomguard_workspace as workspace;
use serde::Deserialize;

use super::schema::Mutant;

/// Path of their list, from the workspace's root.
pub(super) const LIST: &str = "tests/mutate/equivalent.toml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    equivalent: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// The file, relative to `pomguard-common/src`.
    file: String,
    /// The unchanged line.
    text: String,
    /// The changes to the line.
    changes: Vec<String>,
    /// The reason why no change has an effect.
    why: String,
}

/// The reasons, by mutant.
pub(super) struct Equivalents(BTreeMap<u32, String>);

impl Equivalents {
    /// Reads the list.
    ///
    /// # Errors
    /// If an entry matches no mutant: the line was changed, and the entry needs a new review.
    pub(super) fn of(mutants: &[Mutant]) -> Result<Self> {
        let list = fs::read_to_string(workspace::root().join(LIST)).context(LIST)?;
        let list: List = toml::from_str(&list).context(LIST)?;
        let (mut reasons, mut about_none) = (BTreeMap::new(), BTreeSet::new());
        for Entry { file, text, changes, why } in list.equivalent {
            for change in changes {
                let of_it = |it: &&Mutant| {
                    it.file.strip_prefix("pomguard-common/src/") == Some(&file)
                        && it.text == text
                        && it.change == change
                };
                let before = reasons.len();
                reasons.extend(mutants.iter().filter(of_it).map(|mutant| (mutant.number, why.clone())));
                if reasons.len() == before {
                    about_none.insert(format!("{file}: `{text}`: {change}"));
                }
            }
        }
        let about_none: Vec<String> = about_none.into_iter().collect();
        ensure!(about_none.is_empty(), "{LIST} names what is not there:\n{}", about_none.join("\n"));
        Ok(Self(reasons))
    }

    /// Returns the reason why the mutant has no effect, or `None` if the mutant is not on the list.
    pub(super) fn why(&self, mutant: &Mutant) -> Option<&str> {
        self.0.get(&mutant.number).map(String::as_str)
    }
}
