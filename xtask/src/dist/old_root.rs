//! Tries the file in the userland of an older distribution: the file must start, read a site, enforce, and
//! look up a group.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use pomguard_workspace::{self as workspace, process};

use super::{folder, need_root, text};

/// Packages of the root in addition to the smallest set: a command for the interface, and a module for the
/// look-up of groups, on which a static binary fails.
const PACKAGES: &str = "iproute2,libnss-systemd";
/// The script that tries the file inside the root. The script explains each step.
const SCRIPT: &str = include_str!("try.sh");

/// Makes the root, unless it exists, and runs the file in the root.
pub(super) fn try_in(suite: &str, file: &Path) -> Result<()> {
    need_root("the try in another root")?;
    let root = make(suite)?;
    for (name, path) in
        [("pomguard", file), ("site.toml", &workspace::root().join("config/site.example.toml"))]
    {
        let to = root.join("opt").join(name);
        fs::copy(path, &to).with_context(|| format!("copy {} to {}", path.display(), to.display()))?;
    }
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--net",
        "--pid",
        "--fork",
        "--propagation",
        "private",
        "sh",
        "-euc",
        SCRIPT,
        "try",
    ]);
    let message = process::output(command.arg(&root))?;
    print!("{message}");
    println!(
        "  runs in {suite}: starts, checks a site, enforces, and tells members of its group from others"
    );
    Ok(())
}

/// Makes a root of a suite, unless it exists. Returns the path of the root.
fn make(suite: &str) -> Result<PathBuf> {
    let root = folder().join(format!("root-{suite}"));
    let mark = folder().join(format!("root-{suite}.made"));
    if mark.is_file() {
        return Ok(root);
    }
    let Some(mmdebstrap) = process::find("mmdebstrap") else { bail!("no mmdebstrap here: install it") };
    println!("making a root of {suite} in {}", root.display());
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| root.display().to_string())?;
    }
    let archive = archive()?;
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let mut command = Command::new(mmdebstrap);
    command
        .args(["--quiet", "--variant=minbase", "--format=directory", &format!("--include={PACKAGES}")])
        // The signatures of old suites are not renewed.
        .args(["--aptopt=Acquire::Check-Valid-Until \"false\"", suite, text(&root)?])
        .arg(format!("deb [signed-by={keyring}] {archive} {suite} main"));
    process::run(&mut command)?;
    fs::write(&mark, "").with_context(|| mark.display().to_string())?;
    Ok(root)
}

/// Returns the archive that this machine's own packages come from.
fn archive() -> Result<String> {
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(REPO_URI) $(CODENAME)", "Created-By: Packages"]);
    let targets = process::output(&mut command)?;
    let main =
        targets.lines().filter_map(|line| line.split_once(' ')).find(|(_, suite)| !suite.contains('-'));
    Ok(main.context("apt knows no archive here: run `apt-get update` once")?.0.to_owned())
}
