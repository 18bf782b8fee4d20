//! `tests/catalogue.toml` lists the tests of each case of the catalogue that this firewall is built against.
//! These tests check that the list is complete, and that each listed test exists and names the case.

#![expect(clippy::expect_used, reason = "a test stops at the first surprise")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use toml::{Table, Value};

/// The list, parsed.
struct List {
    /// All case numbers of the catalogue.
    all: BTreeSet<String>,
    /// The tests of each case, as `file::function`.
    tests: BTreeMap<String, Vec<String>>,
    /// The part of a case that no test tries, and the reason.
    not_tried: BTreeMap<String, String>,
    /// The deviation from a case, if the firewall does otherwise.
    otherwise: BTreeMap<String, String>,
}

fn words(table: &Table, key: &str) -> BTreeMap<String, String> {
    let of = |(id, value): (&String, &Value)| (id.clone(), value.as_str().expect("a sentence").to_owned());
    table[key].as_table().expect("a table").iter().map(of).collect()
}

fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().expect("a list").iter();
    items.map(|item| item.as_str().expect("a name").to_owned()).collect()
}

impl List {
    fn read() -> Self {
        let text = include_str!("../catalogue.toml");
        let list: Table = text.parse().expect("the list is TOML");
        let mut all = BTreeSet::new();
        for (area, numbers) in list["numbers"].as_table().expect("a table") {
            let last = numbers["last"].as_integer().expect("a number");
            let unused = numbers["unused"].as_array().expect("a list");
            let used = (1..=last).filter(|&number| !unused.contains(&Value::Integer(number)));
            all.extend(used.map(|number| format!("{area}-{number:02}")));
        }
        let tests = list["tests"].as_table().expect("a table");
        let tests = tests.iter().map(|(id, names)| (id.clone(), strings(names))).collect();
        Self { all, tests, not_tried: words(&list, "not_tried"), otherwise: words(&list, "otherwise") }
    }
}

/// Returns the text of the test function with this name, including its doc comment.
fn test_in<'a>(source: &'a str, name: &str) -> Option<&'a str> {
    let found = source.find(&format!("fn {name}("))?;
    let line = source[..found].rfind('\n')? + 1;
    let indent = &source[line..found];
    // Includes the attributes and comments above the function.
    let mut start = line;
    let above = source[..line].lines().rev().take_while(|it| it.trim_start().starts_with(['#', '/']));
    let mut is_test = false;
    for above in above {
        is_test |= ["#[test]", "#[tokio::test"].iter().any(|it| above.trim_start().starts_with(it));
        start -= above.len() + 1;
    }
    let indent = indent.trim_end_matches("async ");
    let end = line + source[line..].find(&format!("\n{indent}}}"))?;
    is_test.then_some(&source[start..end])
}

/// Returns true if a test names a case: `FL-12` anywhere in the text, or `fl_12` in the name.
fn names(test: &str, function: &str, id: &str) -> bool {
    let spelled = id.to_lowercase().replace('-', "_");
    test.contains(id) || format!("_{function}_").contains(&format!("_{spelled}_"))
}

#[test]
fn every_case_of_the_catalogue_is_listed_and_nothing_else_is() {
    let list = List::read();
    let listed: BTreeSet<String> = list.tests.keys().chain(list.not_tried.keys()).cloned().collect();
    assert_eq!(listed.difference(&list.all).collect::<Vec<_>>(), Vec::<&String>::new(), "no such case");
    assert_eq!(list.all.difference(&listed).collect::<Vec<_>>(), Vec::<&String>::new(), "not listed");
    for id in list.otherwise.keys() {
        assert!(list.all.contains(id), "{id}: no such case");
    }
    for (id, reason) in list.not_tried.iter().chain(&list.otherwise) {
        assert!(reason.split(' ').count() > 3, "{id}: {reason:?} is no reason");
    }
}

#[test]
fn every_test_that_the_list_names_exists_and_names_its_case() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut faults = Vec::new();
    for (id, tests) in List::read().tests {
        for test in tests {
            let (file, function) = test.split_once("::").expect("file::function");
            let Ok(source) = fs::read_to_string(root.join(file)) else {
                faults.push(format!("{id}: there is no {file}"));
                continue;
            };
            match test_in(&source, function) {
                None => faults.push(format!("{id}: {file} has no test {function}")),
                Some(test) if !names(test, function, &id) => {
                    faults.push(format!("{id}: {function} of {file} does not name it"));
                }
                Some(_) => {}
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn test_is_found_with_its_comment_and_its_end() {
    let source =
        "fn other() {\n    AB-01\n}\n\n/// AB-02.\n#[test]\nfn cd_03_it() {\n    AB-04\n}\n\n// AB-05\n";
    assert_eq!(test_in(source, "other"), None, "no test");
    assert_eq!(test_in(source, "missing"), None);
    let test = test_in(source, "cd_03_it").expect("it is there");
    for (id, named) in [("AB-01", false), ("AB-02", true), ("CD-03", true), ("AB-04", true), ("AB-05", false)]
    {
        assert_eq!(names(test, "cd_03_it", id), named, "{id}");
    }
}
