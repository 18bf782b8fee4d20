//! The record of the sources of the committed objects.
//!
//! Two programs use this one routine, so that they cannot disagree: `pomguard/build.rs` refuses an object
//! whose sources have changed since, and `cargo xtask ebpf` writes the record.
//!
//! The text has the format of `sha256sum`: a hash and a path per line, sorted by path, and comments.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

/// The object, relative to the workspace.
pub const OBJECT: &str = "pomguard-ebpf/object/pomguard.bpf.o";
/// The object of the bench, relative to the workspace.
pub const BENCH_OBJECT: &str = "pomguard-ebpf/object/bench.bpf.o";
/// The record, relative to the workspace.
pub const RECORD: &str = "pomguard-ebpf/object/sources.sha256";
/// The sources of the object: files, and folders with everything in them.
pub const SOURCES: &[&str] =
    &["pomguard-common/Cargo.toml", "pomguard-common/src", "pomguard-ebpf/Cargo.toml", "pomguard-ebpf/src"];
/// The lock file, which names the crates that go into the object.
pub const LOCK: &str = "Cargo.lock";

/// Hashes by path; for a crate of the lock file, by the name of the crate there.
pub type Record = BTreeMap<String, String>;

/// Returns the record of the current tree.
pub fn of_tree(workspace: &Path) -> io::Result<Record> {
    let mut record = Record::new();
    let mut files: Vec<PathBuf> = SOURCES.iter().map(PathBuf::from).collect();
    files.extend([OBJECT, BENCH_OBJECT].map(PathBuf::from));
    while let Some(path) = files.pop() {
        let full = workspace.join(&path);
        if full.is_dir() {
            for entry in named(fs::read_dir(&full), &full)? {
                files.push(path.join(entry?.file_name()));
            }
        } else if full.exists() {
            record.insert(path.display().to_string(), hash(&named(fs::read(&full), &full)?));
        }
    }
    let lock = workspace.join(LOCK);
    record.extend(of_lock(&named(fs::read_to_string(&lock), &lock)?));
    Ok(record)
}

/// Parses the text of a record; lines that are not entries are comments.
pub fn parse(text: &str) -> Record {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once("  "))
        .map(|(hash, path)| (path.to_owned(), hash.to_owned()))
        .collect()
}

/// Returns the paths that only one of the records has, or that have different hashes.
pub fn differences(recorded: &Record, now: &Record) -> Vec<String> {
    let changed = now.iter().filter(|(path, hash)| recorded.get(*path) != Some(hash)).map(|(path, _)| path);
    let gone = recorded.keys().filter(|path| !now.contains_key(*path));
    let mut paths: Vec<String> = changed.chain(gone).cloned().collect();
    paths.sort();
    paths
}

/// Returns the aya crates that are compiled into the object, by name and version, each with the hash of its
/// checksum.
fn of_lock(lock: &str) -> Record {
    let field = |package: &str, name: &str| {
        package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = ").map(str::to_owned))
    };
    lock.split("[[package]]")
        .filter_map(|package| {
            let name = field(package, "name")?;
            let name = name.trim_matches('"');
            let compiled_in = name.starts_with("aya-ebpf") || name.starts_with("aya-log-ebpf");
            let version = field(package, "version")?;
            let checksum = field(package, "checksum").unwrap_or_default();
            compiled_in
                .then(|| (format!("{LOCK}:{name}-{}", version.trim_matches('"')), hash(checksum.as_bytes())))
        })
        .collect()
}

/// Returns the SHA-256 of bytes in hexadecimal.
#[must_use]
pub fn hash(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(&Sha256::digest(bytes))
}

/// Adds the file to an I/O error.
fn named<T>(result: io::Result<T>, path: &Path) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::{Record, differences, of_lock, parse};

    fn record(entries: &[(&str, &str)]) -> Record {
        entries.iter().map(|(path, hash)| ((*path).to_owned(), (*hash).to_owned())).collect()
    }

    #[test]
    fn a_changed_a_new_and_a_gone_file_are_each_a_difference() {
        let recorded = record(&[("changed", "1"), ("gone", "2"), ("same", "3")]);
        let now = record(&[("changed", "9"), ("new", "4"), ("same", "3")]);
        assert_eq!(differences(&recorded, &now), ["changed", "gone", "new"]);
        assert!(differences(&now, &now).is_empty());
    }

    #[test]
    fn a_record_is_read_without_its_comments() {
        let text = "# Built by  somebody\n0a  src/main.rs\n0b  with space.rs\n";
        assert_eq!(parse(text), record(&[("src/main.rs", "0a"), ("with space.rs", "0b")]));
    }

    #[test]
    fn of_the_lock_file_only_the_crates_of_the_object_count() {
        let lock = "version = 4\n\n[[package]]\nname = \"aya\"\nversion = \"0.14.0\"\nchecksum = \"00\"\n\n\
                    [[package]]\nname = \"aya-ebpf\"\nversion = \"0.2.1\"\nchecksum = \"11\"\n";
        let paths: Vec<String> = of_lock(lock).into_keys().collect();
        assert_eq!(paths, ["Cargo.lock:aya-ebpf-0.2.1"]);
        assert_ne!(of_lock(lock), of_lock(&lock.replace("\"11\"", "\"12\"")));
    }
}
