//! The one build of all test programs.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use pomguard_workspace::{
    self as workspace,
    build::{Artifact, TargetKind, artifacts, is_binary},
};

/// A program that runs tests.
pub(super) struct TestProgram {
    /// The package of the program.
    pub(super) package: String,
    /// The file or folder of `tests/` that the program is made from, or the crate whose unit tests it holds.
    pub(super) name: String,
    /// True if the program holds the unit tests of a library or binary.
    pub(super) is_unit: bool,
    /// The compiled program.
    pub(super) path: PathBuf,
    /// The folder of the package, from which tests find their files.
    pub(super) folder: PathBuf,
}

/// The products of one build.
pub(super) struct Built {
    /// The daemon that the tests drive.
    pub(super) daemon: PathBuf,
    /// The other programs, by name.
    programs: BTreeMap<String, PathBuf>,
    /// Every test program of the workspace.
    pub(super) tests: Vec<TestProgram>,
}

impl Built {
    /// Returns a program of the workspace.
    pub(super) fn program(&self, name: &str) -> Result<&Path> {
        let path = self.programs.get(name).with_context(|| format!("the build made no program `{name}`"))?;
        Ok(path)
    }

    /// Returns a test program of `pomguard-tests`.
    pub(super) fn test(&self, name: &str) -> Result<&TestProgram> {
        self.tests
            .iter()
            .find(|test| test.package == TESTS && test.name == name && !test.is_unit)
            .with_context(|| format!("the build made no test program `{name}`"))
    }
}

/// The package of the tests that need root and a kernel.
pub(super) const TESTS: &str = "pomguard-tests";

/// The environment variable that tells the build which object to embed.
const OBJECT: &str = "POMGUARD_EBPF_OBJECT";

/// Builds the workspace with all its tests, in one profile. Cargo shows its own progress.
pub(super) fn everything() -> Result<Built> {
    build(None)
}

/// Builds the workspace with another object than the committed one in the daemon and in the tests.
pub(super) fn with_object(object: &Path) -> Result<Built> {
    build(Some(object))
}

fn build(object: Option<&Path>) -> Result<Built> {
    let mut command = workspace::cargo("build");
    command.args(["--locked", "--workspace", "--exclude", "pomguard-ebpf", "--all-targets"]);
    match object {
        Some(object) => command.env(OBJECT, object),
        // Uses the committed object, whatever the caller's environment says.
        None => command.env_remove(OBJECT),
    };
    let (mut programs, mut tests) = (BTreeMap::new(), Vec::new());
    for artifact in artifacts(&mut command)? {
        let is_program = is_binary(&artifact);
        let Artifact { executable: Some(path), manifest_path, target, profile, .. } = artifact else {
            continue;
        };
        let path = PathBuf::from(path);
        if profile.test {
            let manifest = manifest_path.as_std_path();
            let folder = manifest.parent().unwrap_or(Path::new(".")).to_path_buf();
            let is_unit = !target.kind.contains(&TargetKind::Test);
            tests.push(TestProgram {
                package: package_of(manifest)?,
                name: target.name,
                is_unit,
                path,
                folder,
            });
        } else if is_program {
            programs.insert(target.name, path);
        }
    }
    let daemon = programs.remove("pomguard").context("the build made no daemon")?;
    Ok(Built { daemon, programs, tests })
}

/// Returns the name of the package that a manifest describes.
fn package_of(manifest: &Path) -> Result<String> {
    let text = std::fs::read_to_string(manifest).with_context(|| manifest.display().to_string())?;
    let table: toml::Table = text.parse().with_context(|| manifest.display().to_string())?;
    let name = table.get("package").and_then(|package| package.get("name")?.as_str());
    Ok(name.with_context(|| format!("{} names no package", manifest.display()))?.to_owned())
}

/// Returns the environment of every test program: the path of the daemon.
pub(super) fn environment(daemon: &Path) -> Vec<(&'static str, OsString)> {
    vec![(super::kernel::BINARY, daemon.as_os_str().to_owned())]
}

#[cfg(test)]
mod tests {
    use super::package_of;
    use pomguard_workspace as workspace;

    #[test]
    fn a_manifest_tells_the_name_of_its_package() {
        let manifest = workspace::root().join("xtask/Cargo.toml");
        assert_eq!(package_of(&manifest).expect("it has one"), "xtask");
    }
}
