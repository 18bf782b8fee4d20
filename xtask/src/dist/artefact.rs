//! Reads from a linked file the file's requirements on the machine that runs it.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};
use object::{
    Endianness,
    elf::{DT_NEEDED, FileHeader64},
    read::elf::{Dyn as _, FileHeader as _},
};

use super::Version;

/// Libraries that belong to the C library itself.
const OF_GLIBC: [&str; 6] =
    ["ld-linux-x86-64.so.2", "libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0", "librt.so.1"];

/// A linked file.
pub(super) struct Artefact {
    /// Size in bytes.
    pub(super) size: u64,
    /// The newest version of the C library among the file's symbols.
    pub(super) glibc: Version,
    /// Libraries that the file loads.
    pub(super) libraries: Vec<String>,
}

impl Artefact {
    /// Reads a file. Refuses a file that loads more than the C library, or that is not linked against it.
    pub(super) fn read(file: &Path) -> Result<Self> {
        let data = fs::read(file).with_context(|| file.display().to_string())?;
        Self::of(&data).with_context(|| format!("read {}", file.display()))
    }

    fn of(data: &[u8]) -> Result<Self> {
        let header = FileHeader64::<Endianness>::parse(data)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, data)?;
        let mut libraries = Vec::new();
        if let Some((entries, link)) = sections.dynamic(endian, data)? {
            let strings = sections.strings(endian, data, link)?;
            for entry in entries.iter().filter(|entry| entry.tag(endian) == DT_NEEDED) {
                let name = entry.string(endian, strings)?;
                libraries.push(String::from_utf8_lossy(name).into_owned());
            }
        }
        if let Some(other) = libraries.iter().find(|name| !OF_GLIBC.contains(&name.as_str())) {
            bail!("it loads {other}, which not every machine has");
        }
        let mut newest = None;
        if let Some((mut needs, link)) = sections.gnu_verneed(endian, data)? {
            let strings = sections.strings(endian, data, link)?;
            while let Some((_, mut versions)) = needs.next()? {
                while let Some(version) = versions.next()? {
                    let name = String::from_utf8_lossy(version.name(endian, strings)?).into_owned();
                    let Some(number) = name.strip_prefix("GLIBC_") else {
                        bail!("it asks for {name}, which is no version of the C library");
                    };
                    newest = newest.max(Some(parse(number)?));
                }
            }
        }
        let glibc = newest.context("it asks for no version of the C library: is it static?")?;
        Ok(Self { size: data.len() as u64, glibc, libraries })
    }
}

/// Parses `2.28`, or `2.2.5`, of which the last part is ignored.
fn parse(number: &str) -> Result<Version> {
    let mut parts = number.split('.').map(str::parse);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok(Version(major, minor)),
        _ => bail!("GLIBC_{number} is no version"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        let parsed = ["2.2.5", "2.9", "2.28", "2.34", "3.0"].map(|number| parse(number).unwrap());
        assert!(parsed.is_sorted(), "{parsed:?}");
        assert!(parse("PRIVATE").is_err() && parse("2").is_err());
    }

    /// The test's own executable is a linked file of this machine.
    #[test]
    fn own_file_asks_for_a_version_of_this_machine() {
        let data = fs::read(std::env::current_exe().unwrap()).unwrap();
        match Artefact::of(&data) {
            Ok(own) => {
                assert!(own.glibc >= Version(2, 2) && own.size == data.len() as u64);
                assert!(own.libraries.contains(&"libc.so.6".to_owned()), "{:?}", own.libraries);
            }
            // This executable was linked in another way than the artefact.
            Err(error) => assert!(format!("{error:#}").contains("not every machine has"), "{error:#}"),
        }
        assert!(Artefact::of(&data[..100]).is_err() && Artefact::of(b"#!/bin/sh\n").is_err());
    }
}
