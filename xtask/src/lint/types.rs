//! No two public types of a crate have one name: a reader who sees the name knows the type.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, bail};
use pomguard_workspace as workspace;
use syn::{
    Visibility,
    visit::{self, Visit},
};

/// Checks every crate of the workspace.
pub(crate) fn check() -> Result<()> {
    let mut faults = Vec::new();
    for (member, _) in super::members()? {
        let mut types = Types::default();
        types.read(&workspace::root().join(&member).join("src")).with_context(|| member.clone())?;
        faults.extend(types.faults().into_iter().map(|fault| format!("{member}: {fault}")));
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

    /// Returns a sentence for each name that two types have.
    fn faults(&self) -> Vec<String> {
        let doubled = self.found.iter().filter(|(_, files)| files.len() > 1);
        doubled
            .map(|(name, files)| {
                format!("more than one public type has the name `{name}`: {}", files.join(", "))
            })
            .collect()
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
        assert_eq!(types.faults(), ["more than one public type has the name `Peer`: a.rs, b.rs"]);
    }
}
