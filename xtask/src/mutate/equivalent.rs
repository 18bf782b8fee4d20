//! Mutants that change nothing that anybody could see, each with the reason why.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::schema::Mutant;
use crate::workspace;

/// Where they are listed, from the workspace's root.
pub(super) const LIST: &str = "xtask/src/mutate/equivalent.toml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    equivalent: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// The file, from `pomguard-common/src` on.
    file: String,
    /// The line as it stands there.
    text: String,
    /// What is changed.
    changes: Vec<String>,
    /// Why nobody sees it.
    why: String,
}

/// The reasons, by mutant.
pub(super) struct Equivalents(BTreeMap<u32, String>);

impl Equivalents {
    /// Reads the list.
    ///
    /// # Errors
    /// When an entry is about no mutant: the line was changed, and wants to be looked at anew.
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

    /// Why the mutant changes nothing; none when it is not known to.
    pub(super) fn why(&self, mutant: &Mutant) -> Option<&str> {
        self.0.get(&mutant.number).map(String::as_str)
    }
}
