//! Tests the packages under a real systemd with the real `dpkg` and `rpm`, and checks them with `lintian` and
//! `rpmlint`.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use pomguard_common::ABI_VERSION;
use pomguard_workspace::{self as workspace, process};

use super::{other_kernel, outcome::Outcome};
use crate::dist::{
    self,
    packages::{self, Packages, Variant},
};

/// The script that runs inside the container, next to this file.
const LIFE: &str = "xtask/src/test/packaging/life.sh";
/// The Debian release of the container, and its additional packages.
const SYSTEM: &str = "bookworm";
const PACKAGES: &str = "rpm,man-db";
/// Seconds for all steps of one package.
const LIMIT: &str = "420";
/// An older version with the same map layout, and one with the previous layout.
const OLDER: &str = "0.0.9";
const OLDER_LAYOUT: &str = "0.0.8";

/// Makes the packages, and runs every step with each.
pub(super) fn run() -> Result<Outcome> {
    let script = match other_kernel::script() {
        Ok(script) => script,
        Err(reason) => return Ok(Outcome::NotRun(reason)),
    };
    let current = env!("CARGO_PKG_VERSION");
    let made = dist::packages_of_this_tree()?;
    let folder = workspace::target().join("dist/life");
    for version in [current, OLDER] {
        packages::pack(&Variant { version, folder: &folder, scripts: None })?;
    }
    older_layout(&folder)?;
    for kind in ["deb", "rpm"] {
        let mut command = Command::new(script.with_file_name("run-in-container.sh"));
        command.env("VM_PACKAGES", PACKAGES);
        let bind = format!("{}:/packages", folder.display());
        let life = format!("{}:/life.sh", workspace::root().join(LIFE).display());
        command.args(["--timeout", LIMIT, "--file", &bind, "--file", &life]);
        command.args([SYSTEM, "--", "sh", "/life.sh", kind, current]);
        process::run(&mut command).with_context(|| format!("the life of the {kind}"))?;
    }
    Ok(Outcome::Passed(lints(&made)?))
}

/// Packs a version whose scripts name the previous map layout.
fn older_layout(folder: &Path) -> Result<()> {
    let scripts = folder.join("scripts");
    for kind in ["deb", "rpm"] {
        let (from, to) = (workspace::root().join("config/packages").join(kind), scripts.join(kind));
        fs::create_dir_all(&to).with_context(|| to.display().to_string())?;
        for entry in fs::read_dir(&from).with_context(|| from.display().to_string())? {
            let entry = entry?;
            let text = fs::read_to_string(entry.path())?;
            let older = text.replace(&layout_line(ABI_VERSION), &layout_line(ABI_VERSION - 1));
            fs::write(to.join(entry.file_name()), older)?;
        }
    }
    packages::pack(&Variant { version: OLDER_LAYOUT, folder, scripts: Some(&scripts) }).map(drop)
}

/// Returns the line of a script that names the map layout of the package.
fn layout_line(layout: u32) -> String {
    format!("\nmap_layout={layout}\n")
}

/// Checks the packages. A finding that docs/packaging.md does not explain is an error.
fn lints(made: &Packages) -> Result<String> {
    let mut judged = Vec::new();
    if let Some(lintian) = process::find("lintian") {
        let mut command = Command::new(lintian);
        command.args(["--fail-on", "error,warning,info", "--display-info", "--allow-root"]);
        process::run(command.arg(&made.deb))?;
        judged.push("lintian");
    }
    if let Some(rpmlint) = process::find("rpmlint") {
        let mut command = Command::new(rpmlint);
        command.arg("--config").arg(workspace::root().join("config/packages/rpmlint.toml")).arg(&made.rpm);
        let said = process::output(&mut command)?;
        let sum = said.lines().find(|line| line.contains("0 errors, 0 warnings"));
        ensure!(sum.is_some(), "rpmlint finds fault:\n{said}");
        judged.push("rpmlint");
    }
    Ok(format!(
        "both lives; judged by {}",
        if judged.is_empty() { "nobody".into() } else { judged.join(" and ") }
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn manifest() -> toml::Table {
        fs::read_to_string(workspace::root().join("pomguard/Cargo.toml")).unwrap().parse().unwrap()
    }

    #[test]
    fn scripts_know_the_map_layout_of_the_code() {
        for script in ["deb/preinst", "rpm/pre.sh"] {
            let text = fs::read_to_string(workspace::root().join("config/packages").join(script)).unwrap();
            assert!(
                text.contains(&layout_line(ABI_VERSION)),
                "{script} names another layout than {ABI_VERSION}"
            );
        }
    }

    /// Files that only one kind of package has, or that are in another place: the path in the deb, then in
    /// the RPM.
    const APART: [(&str, &str); 5] = [
        ("/usr/share/doc/pomguard/changelog", "/usr/share/doc/pomguard/CHANGELOG.md"),
        ("/usr/share/doc/pomguard/changelog.Debian.gz", ""),
        ("/usr/share/zsh/vendor-completions/_pomguard", "/usr/share/zsh/site-functions/_pomguard"),
        ("/usr/share/doc/pomguard/copyright", "/usr/share/licenses/pomguard/"),
        ("/usr/share/lintian/overrides/pomguard", ""),
    ];

    #[test]
    fn both_packages_install_the_same_files() {
        let manifest = manifest();
        let metadata = &manifest["package"]["metadata"];
        let deb: BTreeMap<String, String> = metadata["deb"]["assets"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| (format!("/{}", it[1].as_str().unwrap()), it[2].as_str().unwrap().to_owned()))
            .filter(|(path, _)| APART.iter().all(|(deb, _)| path != deb))
            .collect();
        let rpm: BTreeMap<String, String> = metadata["generate-rpm"]["assets"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| (it["dest"].as_str().unwrap().to_owned(), it["mode"].as_str().unwrap().to_owned()))
            .filter(|(path, _)| APART.iter().all(|(_, rpm)| rpm.is_empty() || !path.starts_with(rpm)))
            .collect();
        assert_eq!(deb, rpm);
        assert!(deb.len() > 15, "{deb:?}");
    }

    #[test]
    fn files_below_etc_survive_an_upgrade_of_the_rpm() {
        let manifest = manifest();
        let assets = manifest["package"]["metadata"]["generate-rpm"]["assets"].as_array().unwrap();
        for asset in assets.iter().filter(|it| it["dest"].as_str().unwrap().starts_with("/etc/")) {
            assert_eq!(asset.get("config").and_then(toml::Value::as_str), Some("noreplace"), "{asset}");
        }
    }
}
