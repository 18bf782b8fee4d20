//! No two public types of a crate have one name: a reader who sees the name knows the type.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, bail};
use pomguard_workspace as workspace;
use syn::{
    Visibility,
    visit::{self, Visit},
};

/// Names that more than one type of `pomguard` has still: each verb of the command line has `Args`, and the others are
/// to be told apart. A name that only one type has leaves this list.
const EXCEPT: [&str; 11] = [
    "Args",
    "Common",
    "Finding",
    "Installed",
    "Machine",
    "Options",
    "Outcome",
    "Peer",
    "Record",
    "Report",
    "Source",
];

/// Checks every crate of the workspace.
pub(crate) fn check() -> Result<()> {
    let mut faults = Vec::new();
    for (member, _) in super::members()? {
        let mut types = Types::default();
        types.read(&workspace::root().join(&member).join("src")).with_context(|| member.clone())?;
        let except: &[&str] = if member == "pomguard" { &EXCEPT } else { &[] };
        faults.extend(types.faults(except).into_iter().map(|fault| format!("{member}: {fault}")));
    }
    if faults.is_empty() { Ok(()) } else { bail!("{}", faults.join("\n")) }
}

/// The files that define a public type, by the name of the type.
#[derive(Default)]
struct Types {
    found: BTreeMap<String, Vec<String>>,
    file: String,
}

impl Types {
    /// Reads every file below a folder.
    fn read(&mut self, folder: &Path) -> Result<()> {
        for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                self.read(&path)?;
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                let name = path.strip_prefix(workspace::root()).unwrap_or(&path);
                self.read_file(&name.display().to_string(), &text)?;
            }
        }
        Ok(())
    }

    fn read_file(&mut self, name: &str, text: &str) -> Result<()> {
        name.clone_into(&mut self.file);
        self.visit_file(&syn::parse_file(text).with_context(|| name.to_owned())?);
        Ok(())
    }

    /// Returns a sentence for each name that two types have, and for each exception that is none.
    fn faults(&self, except: &[&str]) -> Vec<String> {
        let twice = |name: &str| self.found.get(name).is_some_and(|files| files.len() > 1);
        let names = self.found.iter().filter(|(name, _)| twice(name) && !except.contains(&name.as_str()));
        let doubled = names.map(|(name, files)| {
            format!("more than one public type has the name `{name}`: {}", files.join(", "))
        });
        let stale = except.iter().filter(|name| !twice(name));
        let stale =
            stale.map(|name| format!("only one public type has the name `{name}`: remove the exception"));
        doubled.chain(stale).collect()
    }
}

impl<'ast> Visit<'ast> for Types {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let (visibility, name) = match item {
            syn::Item::Struct(item) => (&item.vis, &item.ident),
            syn::Item::Enum(item) => (&item.vis, &item.ident),
            syn::Item::Trait(item) => (&item.vis, &item.ident),
            syn::Item::Type(item) => (&item.vis, &item.ident),
            syn::Item::Union(item) => (&item.vis, &item.ident),
            _ => return visit::visit_item(self, item),
        };
        if matches!(visibility, Visibility::Public(_)) {
            self.found.entry(name.to_string()).or_default().push(self.file.clone());
        }
    }

    /// Leaves the bodies of functions out: no type in a body is public.
    fn visit_block(&mut self, _: &'ast syn::Block) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_two_public_types_have_is_refused() {
        let mut types = Types::default();
        types.read_file("a.rs", "pub struct Peer; pub(crate) struct Item; pub type Alone = u8;").unwrap();
        types.read_file("b.rs", "mod inner { pub enum Peer {} } struct Alone; pub struct Item;").unwrap();
        assert_eq!(types.faults(&[]), ["more than one public type has the name `Peer`: a.rs, b.rs"]);
        assert_eq!(types.faults(&["Peer"]), Vec::<String>::new());
        let stale = types.faults(&["Peer", "Item"]);
        assert_eq!(stale, ["only one public type has the name `Item`: remove the exception"]);
    }
}
