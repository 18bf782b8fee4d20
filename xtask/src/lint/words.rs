//! Refuses the names that left with the glossary (`docs/glossary.md`): some in every identifier and in prose, others as
//! identifiers of the crate in which they had a meaning of their own.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};
use pomguard_workspace as workspace;
use proc_macro2::{TokenStream, TokenTree};

/// Words that no identifier contains and no sentence uses.
const UNMISTAKABLE: &[&str] = &[
    "pinhole",
    "pinholes",
    "shade",
    "shades",
    "desk",
    "desks",
    "conversation",
    "conversations",
    "beside",
    "settle",
    "settles",
    "settled",
];
/// A phrase that no sentence uses.
const PHRASE: &str = "the long way";
/// Identifiers that are refused below a folder.
const IDENTIFIERS: &[(&str, &[&str])] = &[
    (
        "pomguard-common/src/",
        &[
            "Standing",
            "standing",
            "Forget",
            "forget",
            "unforeseen",
            "opaque",
            "lay",
            "laid",
            "Case",
            "Asked",
            "Hit",
            "Hits",
            "Ends",
            "Grant",
            "Refusal",
            "Denial",
            "apart_v4",
            "apart_v6",
            "lists_v4",
            "lists_v6",
            "restamp",
            "train",
            "trains",
            "quick",
        ],
    ),
    ("pomguard-ebpf/src/", &["opaque", "forget", "lay", "laid", "judge_ordinary"]),
    ("pomguard/src/compile/", &["Held", "Grant", "Refusal", "Denial"]),
    ("pomguard/src/kernel/", &["Held", "Hold", "powers", "Ends"]),
    (
        "pomguard/src/daemon/",
        &[
            "Held", "Hold", "Guard", "Beat", "seal", "told", "strays", "powers", "welcome", "Basis", "Kept",
            "Order", "Wanted", "Standing",
        ],
    ),
    ("pomguard/src/", &["fault", "told"]),
    ("tests/", &["Twin", "twin", "Ear", "Offer", "Notebook", "Beside"]),
];
/// Files that name the old words on purpose, and words that are printed in the matrix.
const EXCEPT: &[&str] =
    &["CHANGELOG.md", "docs/glossary.md", "config/matrix/", "xtask/src/lint/words.rs", "Cargo.lock"];
/// Proper names that contain a refused word.
const PROPER: &[&str] = &["Agent Desk"];

/// Checks every file of the tree.
///
/// # Errors
/// If a file uses a refused name: file, name, and where to look for the new one.
pub(crate) fn check() -> Result<()> {
    let mut found = Vec::new();
    let mut files = Vec::new();
    list(workspace::root(), &mut files)?;
    for path in files {
        if EXCEPT.iter().any(|except| path.starts_with(except)) {
            continue;
        }
        let kind = Path::new(&path).extension().and_then(|kind| kind.to_str());
        let is_rust = kind == Some("rs");
        if !is_rust && !matches!(kind, Some("md" | "toml" | "yml")) {
            continue;
        }
        let text = fs::read_to_string(workspace::root().join(&path)).with_context(|| path.clone())?;
        let refused = if is_rust { in_rust(&path, &text)? } else { in_prose(&text) };
        found.extend(refused.into_iter().map(|word| format!("{path}: {word}")));
    }
    if !found.is_empty() {
        bail!(
            "names that docs/glossary.md refuses, with the name to write instead:\n  {}",
            found.join("\n  ")
        );
    }
    Ok(())
}

/// Lists the files below a folder, by their paths from the root. Builds and hidden folders are left out.
fn list(folder: &Path, files: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type()?.is_dir() {
            if name != "target" && name != "corpus" && !name.to_string_lossy().starts_with('.') {
                list(&path, files)?;
            }
        } else if let Some(path) = path.strip_prefix(workspace::root())?.to_str() {
            files.push(path.to_owned());
        }
    }
    Ok(())
}

/// Returns the refused words of a Rust file: of its identifiers, comments and strings.
fn in_rust(path: &str, text: &str) -> Result<Vec<String>> {
    let tokens: TokenStream =
        text.parse().map_err(|error| anyhow::anyhow!("{error}")).with_context(|| path.to_owned())?;
    let mut found = Vec::new();
    walk(path, tokens, &mut found);
    for line in text.lines().filter_map(|line| line.trim_start().strip_prefix("//")) {
        found.extend(in_prose(line));
    }
    Ok(found)
}

fn walk(path: &str, tokens: TokenStream, found: &mut Vec<String>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => walk(path, group.stream(), found),
            TokenTree::Ident(ident) => {
                let name = ident.to_string();
                if is_refused(path, &name) {
                    found.push(format!("`{name}`"));
                }
            }
            TokenTree::Literal(literal) => found.extend(in_prose(&literal.to_string())),
            TokenTree::Punct(_) => {}
        }
    }
}

fn is_refused(path: &str, name: &str) -> bool {
    let has_part = parts(name).iter().any(|part| UNMISTAKABLE.contains(&part.as_str()));
    has_part || IDENTIFIERS.iter().any(|(below, names)| path.starts_with(below) && names.contains(&name))
}

/// The words of an identifier in snake case or camel case, in lower case.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut before_is_lower = false;
    for letter in name.chars() {
        if letter == '_' || (letter.is_uppercase() && before_is_lower) {
            parts.push(String::new());
        }
        if letter != '_'
            && let Some(part) = parts.last_mut()
        {
            part.extend(letter.to_lowercase());
        }
        before_is_lower = letter.is_lowercase();
    }
    parts
}

/// Returns the refused words of a text.
fn in_prose(text: &str) -> Vec<String> {
    let text = PROPER.iter().fold(text.to_owned(), |text, name| text.replace(name, ""));
    let lower = text.to_lowercase();
    let words = lower.split(|letter: char| !letter.is_alphanumeric());
    let mut found: Vec<String> =
        words.filter(|word| UNMISTAKABLE.contains(word)).map(|word| format!("\"{word}\"")).collect();
    if lower.contains(PHRASE) {
        found.push(format!("\"{PHRASE}\""));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &str, text: &str) -> Vec<String> {
        in_rust(path, text).expect("Rust")
    }

    #[test]
    fn old_names_are_refused_and_new_ones_are_not() {
        assert_eq!(refused("xtask/src/a.rs", "fn by_pinhole() {}"), ["`by_pinhole`"]);
        assert_eq!(refused("xtask/src/a.rs", "struct FlowDesk;"), ["`FlowDesk`"]);
        assert_eq!(
            refused("xtask/src/a.rs", "fn f() { g(\"a conversation\") } // beside it"),
            ["\"conversation\""]
        );
        assert_eq!(refused("xtask/src/a.rs", "// Goes the long way.\nfn f() {}"), ["\"the long way\""]);
        assert_eq!(refused("pomguard/src/daemon/a.rs", "struct Guard;"), ["`Guard`"]);
        assert!(refused("xtask/src/a.rs", "struct Guard; // besides a settler").is_empty());
        assert!(refused("tests/a.rs", "const A: &str = \"Agent Desk\";").is_empty());
    }

    #[test]
    fn file_that_is_no_rust_is_an_error() {
        assert!(in_rust("a.rs", "fn f( {").is_err());
    }
}
