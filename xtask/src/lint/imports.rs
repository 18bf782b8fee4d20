//! Imports of the crate `pomguard` go one way. Neither the files of a crate nor the crates of the workspace import each
//! other in a circle.
//!
//! The rules for files are read off the sources: `use` trees and paths that start with `crate`, `super` or `self`, outside
//! items under `#[cfg(test)]`. A module and the modules within it count as one place here: a parent names its
//! children, and a child may use its parent.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use pomguard_workspace as workspace;
use syn::visit::{self, Visit};

/// The modules of `pomguard`, each of which may import those before it.
const ORDER: [&str; 17] = [
    "paths",
    "digest",
    "model",
    "input",
    "policy",
    "compile",
    "history",
    "state",
    "kernel",
    "observe",
    "control",
    "terminals",
    "render",
    "daemon",
    "cli",
    "lib",
    "main",
];

/// A module as the names from the root of its crate; empty for the root.
type Module = Vec<String>;

/// Checks the rules for every crate of the workspace.
pub(crate) fn check() -> Result<()> {
    let members = super::members()?;
    let circles = Graph::of_crates(members.iter().map(|(_, manifest)| manifest)).circles();
    let mut faults: Vec<String> =
        circles.iter().map(|circle| format!("crates that depend on each other: {circle}")).collect();
    for (member, _) in &members {
        let graph =
            Graph::read(&workspace::root().join(member).join("src")).with_context(|| member.clone())?;
        if member == "pomguard" {
            faults.extend(graph.backward());
        }
        faults.extend(graph.circles().iter().map(|circle| format!("{member}: in a circle: {circle}")));
    }
    if faults.is_empty() { Ok(()) } else { bail!("{}", faults.join("\n")) }
}

/// The modules of a crate that have files, and the modules that each one imports.
#[derive(Default)]
struct Graph(BTreeMap<Module, BTreeSet<Module>>);

impl Graph {
    /// Reads the names of all members, and of the members that each one depends on, for its tests too: Cargo refuses a
    /// circle only among the dependencies of the program itself.
    fn of_crates<'a>(manifests: impl Iterator<Item = &'a toml::Table>) -> Self {
        const KINDS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];
        let mut graph = Self::default();
        for manifest in manifests {
            let name = manifest.get("package").and_then(|package| package.get("name")?.as_str());
            let needs = KINDS.iter().filter_map(|kind| manifest.get(*kind)?.as_table());
            let needs = needs.flat_map(toml::Table::keys).map(|name| vec![name.clone()]);
            graph.0.insert(vec![name.unwrap_or_default().to_owned()], needs.collect());
        }
        graph
    }

    /// Reads every file below `source`.
    fn read(source: &Path) -> Result<Self> {
        let mut files = Vec::new();
        collect(source, &mut Vec::new(), &mut files)?;
        if !source.join("lib.rs").exists() {
            // The root of a crate without a library.
            files.iter_mut().filter(|(module, _)| *module == ["main"]).for_each(|(module, _)| module.clear());
        }
        let modules: BTreeSet<Module> = files.iter().map(|(module, _)| module.clone()).collect();
        let mut graph = Self::default();
        for (module, text) in &files {
            let file = syn::parse_file(text).with_context(|| module.join("::"))?;
            let mut reader = Reader { at: module.clone(), found: Vec::new() };
            reader.visit_file(&file);
            let places = reader.found.into_iter().filter_map(|path| place(&modules, path));
            graph.0.entry(module.clone()).or_default().extend(places);
        }
        Ok(graph)
    }

    /// Returns a sentence for each import that goes against [`ORDER`].
    fn backward(&self) -> Vec<String> {
        let rank = |module: &Module| {
            let top = module.first().map_or("lib", String::as_str);
            ORDER.iter().position(|name| *name == top)
        };
        let mut faults = Vec::new();
        for (module, imports) in &self.0 {
            let Some(own) = rank(module) else {
                faults
                    .push(format!("pomguard: `{}` has no place in the order of imports", module.join("::")));
                continue;
            };
            // The root declares the modules; an import from the root is one of an item that a file exports.
            let later = |other: &&Module| !other.is_empty() && rank(other).is_some_and(|rank| rank > own);
            faults.extend(imports.iter().filter(later).map(|other| {
                let (here, there) = (module.join("::"), other.join("::"));
                format!("pomguard: `{here}` imports `{there}`, which comes after it in the order of imports")
            }));
        }
        faults
    }

    /// Returns each circle of files that import each other, as the names of its modules.
    fn circles(&self) -> Vec<String> {
        let mut circles = BTreeSet::new();
        for module in self.0.keys() {
            let circle: Vec<String> = self
                .reached(module)
                .into_iter()
                .filter(|other| self.reached(other).contains(module))
                .map(|other| other.join("::"))
                .collect();
            if circle.len() > 1 {
                circles.insert(circle.join(", "));
            }
        }
        circles.into_iter().collect()
    }

    /// Returns the modules that `module` imports, and those that these import. A parent or a child does not count.
    fn reached(&self, module: &Module) -> BTreeSet<Module> {
        let mut reached = BTreeSet::new();
        let mut open = vec![module.clone()];
        while let Some(at) = open.pop() {
            for other in self.0.get(&at).into_iter().flatten() {
                if !related(&at, other) && reached.insert(other.clone()) {
                    open.push(other.clone());
                }
            }
        }
        reached
    }
}

/// Returns true if one of the modules contains the other.
fn related(one: &Module, other: &Module) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// Returns the module that has a file and contains what `path` names.
fn place(modules: &BTreeSet<Module>, mut path: Module) -> Option<Module> {
    while !modules.contains(&path) {
        path.pop()?;
    }
    Some(path)
}

/// Adds the module and the text of every Rust file below `folder`. Files of tests are left out.
fn collect(folder: &Path, module: &mut Module, files: &mut Vec<(Module, String)>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        if stem == "tests" {
            continue;
        }
        if path.is_dir() {
            module.push(stem);
            collect(&path, module, files)?;
            module.pop();
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let root = matches!(stem.as_str(), "mod" | "lib");
            let name = if root { module.clone() } else { [module.as_slice(), &[stem]].concat() };
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            files.push((name, text));
        }
    }
    Ok(())
}

/// Collects the paths within the crate that a file names.
struct Reader {
    at: Module,
    found: Vec<Module>,
}

impl Reader {
    /// Notes a path if it starts within the crate.
    fn note(&mut self, path: &[String]) {
        let Some((first, rest)) = path.split_first() else { return };
        let mut module = match first.as_str() {
            "crate" => Vec::new(),
            "self" | "super" => self.at.clone(),
            _ => return,
        };
        if first == "super" {
            module.pop();
        }
        for name in rest {
            if name == "super" {
                module.pop();
            } else {
                module.push(name.clone());
            }
        }
        self.found.push(module);
    }

    fn tree(&mut self, before: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.note(&with(&name.ident)),
            syn::UseTree::Rename(rename) => self.note(&with(&rename.ident)),
            syn::UseTree::Glob(_) => self.note(before),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(before, tree)),
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !attributes.iter().any(test_only) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        // A module written inside a file belongs to that file: `super` leaves the inner module only.
        self.at.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.at.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.note(&names);
        visit::visit_path(self, path);
    }
}

/// Returns true for `#[cfg(test)]`.
fn test_only(attribute: &syn::Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(files: &[(&str, &str)]) -> Graph {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Graph::read(folder.path()).unwrap()
    }

    #[test]
    fn an_import_against_the_order_is_named() {
        let graph = graph(&[
            ("policy/mod.rs", "use crate::input::Draft;"),
            ("input/mod.rs", "mod site;"),
            ("input/site.rs", "use crate::{model::Mode, policy::{Policy, Row}};"),
            ("model.rs", "fn at() { crate::kernel::open() }"),
            ("kernel/mod.rs", "#[cfg(test)]\nmod tests { use crate::cli::Cli; }"),
            ("cli/mod.rs", ""),
        ]);
        let faults = graph.backward();
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].contains("`input::site` imports `policy`"), "{faults:?}");
        assert!(faults[1].contains("`model` imports `kernel`"), "{faults:?}");
    }

    #[test]
    fn a_circle_of_files_is_named_but_not_parent_and_child() {
        let graph = graph(&[
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::b::B;"),
            ("b.rs", "use super::c::C;"),
            ("c/mod.rs", "use self::inner::Inner; mod inner;"),
            ("c/inner.rs", "use super::C; use crate::a::A;"),
            ("d.rs", "use crate::a::A;"),
        ]);
        // `c` itself imports only its child; the child closes the circle a, b, c no further than to `a`.
        assert_eq!(graph.circles(), Vec::<String>::new());
        let graph = self::graph(&[("a.rs", "use crate::b::B;"), ("b.rs", "use crate::a::A;")]);
        assert_eq!(graph.circles(), ["a, b"]);
    }

    #[test]
    fn the_root_of_a_program_contains_its_modules() {
        let graph = graph(&[
            ("main.rs", "mod a; use self::a::A;"),
            ("a.rs", "use super::{Setting, b}; use crate::b::B;"),
            ("b.rs", "fn at() { crate::run() }"),
        ]);
        assert_eq!(graph.circles(), Vec::<String>::new());
        assert_eq!(graph.0.len(), 3);
    }

    #[test]
    fn a_circle_of_crates_is_named() {
        let manifest = |name: &str, needs: &str| -> toml::Table {
            format!("[package]\nname = \"{name}\"\n{needs}").parse().unwrap()
        };
        let one_way = [
            manifest("a", "[dependencies]\nb.workspace = true\nlibc.workspace = true"),
            manifest("b", "[build-dependencies]\nc.workspace = true"),
            manifest("c", ""),
        ];
        assert_eq!(Graph::of_crates(one_way.iter()).circles(), Vec::<String>::new());
        let [a, b, _] = one_way;
        let circle = [a, b, manifest("c", "[dev-dependencies]\na = { path = \"../a\" }")];
        assert_eq!(Graph::of_crates(circle.iter()).circles(), ["a, b, c"]);
    }

    #[test]
    fn every_member_of_the_workspace_is_searched() {
        let members = crate::lint::members().unwrap();
        for name in ["bench", "demo", "tests/mutate", "tests/netlab", "xtask/workspace", "xtask"] {
            assert!(members.iter().any(|(member, _)| member == name), "{name}");
        }
    }
}
