//! Makes the RPM and the deb with Cargo's tools, from the lists in `pomguard/Cargo.toml`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use pomguard_workspace::{self as workspace, process};

use super::{TARGET, folder, stage, text};

/// The differences of one package from the usual one: the tests make an older and a newer version.
pub(crate) struct Variant<'a> {
    /// Upstream's version.
    pub(crate) version: &'a str,
    /// The folder for both packages.
    pub(crate) folder: &'a Path,
    /// A folder with other scripts than the project's, in the subfolders `deb` and `rpm`.
    pub(crate) scripts: Option<&'a Path>,
}

/// The two packages of one build.
pub(crate) struct Packages {
    /// The package for RHEL and related distributions.
    pub(crate) rpm: PathBuf,
    /// The package for Debian and related distributions.
    pub(crate) deb: PathBuf,
}

/// Makes both packages of a binary.
pub(super) fn make(binary: &Path) -> Result<Packages> {
    let epoch = epoch()?;
    stage::make(binary, epoch)?;
    let folder = folder();
    pack(&Variant { version: env!("CARGO_PKG_VERSION"), folder: &folder, scripts: None })
}

/// Packs the staged files.
pub(crate) fn pack(variant: &Variant<'_>) -> Result<Packages> {
    let epoch = epoch()?.to_string();
    fs::create_dir_all(variant.folder).with_context(|| variant.folder.display().to_string())?;
    let version = variant.version;
    let rpm = variant.folder.join(format!("pomguard-{version}-1.x86_64.rpm"));
    let deb = variant.folder.join(format!("pomguard_{version}-1_amd64.deb"));
    let mut command = workspace::cargo("generate-rpm");
    command
        // RHEL 8 can certainly read gzip.
        .args(["-p", "pomguard", "--target", TARGET, "--payload-compress", "gzip"])
        // The built-in reader requires the versions of the symbols; the reader of a distribution may be too
        // old for this file.
        .args(["--auto-req", "builtin", "--source-date", &epoch])
        .args(["--set-metadata", &format!("version = {version:?}"), "--output"])
        .arg(&rpm);
    if let Some(scripts) = variant.scripts {
        command
            .arg("--set-metadata")
            .arg(format!("pre_install_script = {:?}", text(&scripts.join("rpm/pre.sh"))?));
    }
    process::run(&mut command)?;
    let mut command = workspace::cargo("deb");
    command
        .env("SOURCE_DATE_EPOCH", &epoch)
        .args([
            "-p",
            "pomguard",
            "--target",
            TARGET,
            "--no-build",
            "--no-strip",
            "--no-separate-debug-symbols",
            "--locked",
        ])
        .args(["--deb-version", &format!("{version}-1"), "--quiet", "--output"])
        .arg(&deb);
    process::run(&mut command)?;
    if let Some(scripts) = variant.scripts {
        exchange_scripts(&deb, &scripts.join("deb"))?;
    }
    Ok(Packages { rpm, deb })
}

/// Repacks a deb with other scripts.
fn exchange_scripts(deb: &Path, scripts: &Path) -> Result<()> {
    let unpacked = deb.with_extension("unpacked");
    if unpacked.exists() {
        fs::remove_dir_all(&unpacked).with_context(|| unpacked.display().to_string())?;
    }
    process::run(Command::new("dpkg-deb").arg("--raw-extract").arg(deb).arg(&unpacked))?;
    for entry in fs::read_dir(scripts).with_context(|| scripts.display().to_string())? {
        let entry = entry?;
        // The content changes, and the mode stays.
        let script = fs::read(entry.path())?;
        fs::write(unpacked.join("DEBIAN").join(entry.file_name()), script)?;
    }
    process::run(
        Command::new("dpkg-deb").args(["--root-owner-group", "-Zgzip", "--build"]).arg(&unpacked).arg(deb),
    )
}

/// Returns the time stamp of everything in the packages: the time of the last change of the sources.
fn epoch() -> Result<u64> {
    if let Some(given) = std::env::var_os("SOURCE_DATE_EPOCH") {
        return given.to_string_lossy().parse().context("SOURCE_DATE_EPOCH is no number of seconds");
    }
    let mut command = Command::new("git");
    command.current_dir(workspace::root()).args(["log", "-1", "--format=%ct"]);
    let time =
        process::output(&mut command).context("the time of the last commit, or set SOURCE_DATE_EPOCH")?;
    time.trim().parse().context("git has no time of the last commit")
}
