//! The texts of the three files that a policy came from: enough to come to the same policy again.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::text::Text;
use crate::digest::hex;

/// A file's text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The file, as it was named.
    pub name: String,
    /// All of it.
    pub text: String,
}

impl Source {
    pub(super) fn of(text: &Text) -> Self {
        Self { name: text.name.to_string(), text: text.body.clone() }
    }
}

/// The three files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// `pomguard.toml`.
    pub settings: Source,
    /// `site.toml`.
    pub site: Source,
    /// The matrix, the one inside the binary too: the next version may carry another.
    pub matrix: Source,
}

impl Sources {
    /// SHA-256 of the texts in hexadecimal, whatever the files are called and wherever they lie.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for source in [&self.settings, &self.site, &self.matrix] {
            // Lengths first: no text can be read as the end of another.
            hash.update((source.text.len() as u64).to_le_bytes());
            hash.update(&source.text);
        }
        hex(&hash.finalize())
    }
}
