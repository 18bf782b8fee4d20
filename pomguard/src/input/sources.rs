//! The texts of the three files of a policy: enough to build the same policy again.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::text::Text;
use crate::digest::hex;

/// The name and the text of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The file's name, as written.
    pub name: String,
    /// The whole text.
    pub text: String,
}

impl Source {
    pub(super) fn of(text: &Text) -> Self {
        Self { name: text.name.to_string(), text: text.body.clone() }
    }
}

/// The texts of the three files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// `pomguard.toml`.
    pub settings: Source,
    /// `site.toml`.
    pub site: Source,
    /// The matrix, also if it is the built-in one: the next version may ship another.
    pub matrix: Source,
}

impl Sources {
    /// Returns SHA-256 of the texts in hexadecimal. Names and locations of the files do not count.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for source in [&self.settings, &self.site, &self.matrix] {
            // Lengths come first, so that no text can be read as the end of another.
            hash.update((source.text.len() as u64).to_le_bytes());
            hash.update(&source.text);
        }
        hex(&hash.finalize())
    }
}
