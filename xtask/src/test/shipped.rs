//! Checks the files that pomguard ships with the programs that will read them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use pomguard_workspace::{self as workspace, process};

use super::{outcome::Outcome, run::Run};

/// The units and the exposure that each may reach: of 10, in tenths, the form that the program expects.
const UNITS: [(&str, &str); 2] =
    [("config/systemd/pomguard.service", "20"), ("config/systemd/pomguard-exporter.service", "12")];
/// Folder of the alert rules.
const RULES: &str = "config/prometheus";
/// Folder of metrics pages as the daemon serves them.
const PAGES: &str = "tests/golden";

pub(super) fn unit_file(_: &mut Run) -> Result<Outcome> {
    let Some(analyze) = process::find("systemd-analyze") else {
        return Ok(Outcome::NotRun("no systemd-analyze here".into()));
    };
    let mut scores = Vec::new();
    for (unit, exposure) in UNITS {
        let mut command = Command::new(&analyze);
        command
            .args(["security", "--no-pager", "--offline=true"])
            .arg(format!("--threshold={exposure}"))
            .arg(workspace::root().join(unit));
        let text = process::output(&mut command)?;
        let verdict = text.lines().find_map(|line| line.trim().strip_prefix("→ Overall exposure level for "));
        scores.push(verdict.and_then(|verdict| verdict.split(' ').nth(1)).unwrap_or("unknown").to_owned());
    }
    Ok(Outcome::Passed(format!("exposure {} of 10", scores.join(" and "))))
}

pub(super) fn prometheus(_: &mut Run) -> Result<Outcome> {
    let Some(promtool) = process::find("promtool") else {
        return Ok(Outcome::NotRun("no promtool here: `cargo xtask setup`".into()));
    };
    let rules = files_in(RULES, "rules.yml")?;
    for file in &rules {
        process::run(Command::new(&promtool).args(["check", "rules"]).arg(file))?;
    }
    // Time series and the alerts that they must raise.
    let cases = files_in(RULES, "test.yml")?;
    for file in &cases {
        process::run(Command::new(&promtool).args(["test", "rules"]).arg(file))?;
    }
    let pages = files_in(PAGES, ".prom")?;
    for file in &pages {
        let page = fs::File::open(file).with_context(|| file.display().to_string())?;
        let mut command = Command::new(&promtool);
        let status = command.args(["check", "metrics"]).stdin(Stdio::from(page)).status()?;
        if !status.success() {
            bail!("promtool finds fault with {}", file.display());
        }
    }
    if rules.is_empty() && pages.is_empty() {
        return Ok(Outcome::NotRun(format!("neither {RULES}/*rules.yml nor {PAGES}/*.prom is there")));
    }
    let (rules, cases, pages) = (rules.len(), cases.len(), pages.len());
    Ok(Outcome::Passed(format!("{rules} rule files, {cases} case files, {pages} pages")))
}

/// Runs the playbook in check mode for each host of the example site, and expects that the files would change.
pub(super) fn ansible(_: &mut Run) -> Result<Outcome> {
    let Some(ansible) = process::find("ansible-playbook") else {
        return Ok(Outcome::NotRun("no ansible-playbook here: `cargo xtask setup`".into()));
    };
    let root = workspace::root();
    let folder = tempfile::tempdir().context("make a folder for the inventory")?;
    let inventory = folder.path().join("inventory.ini");
    let line = "ansible_connection=local ansible_python_interpreter=/usr/bin/python3";
    fs::write(&inventory, format!("[pomguard]\npom1 {line}\npom2 {line}\n"))
        .context("write the inventory")?;
    let mut command = Command::new(ansible);
    command
        .env("ANSIBLE_LOCALHOST_WARNING", "false")
        .env("ANSIBLE_NOCOLOR", "1")
        .env("ANSIBLE_HOME", folder.path())
        .arg("--inventory")
        .arg(&inventory)
        .arg("--check")
        .arg(root.join("config/ansible/pomguard.yml"));
    for (name, value) in [
        ("become", "false".to_owned()),
        ("here", workspace::target().join("debug/pomguard").display().to_string()),
        ("folder", folder.path().display().to_string()),
        ("site", root.join("config/site.example.toml").display().to_string()),
        ("settings", root.join("config/pomguard.toml").display().to_string()),
    ] {
        command.arg("--extra-vars").arg(format!("pomguard_{name}={value}"));
    }
    let text = process::output(&mut command)?;
    let recap = |host: &str| {
        text.lines().any(|line| {
            line.starts_with(host) && ["ok=3", "changed=2", "failed=0"].iter().all(|word| line.contains(word))
        })
    };
    if !(recap("pom1") && recap("pom2")) {
        bail!("the playbook would not do what it should:\n{text}");
    }
    Ok(Outcome::Passed("2 hosts".into()))
}

/// Returns the files of a folder whose names have this end. Returns no files if there is no such folder.
fn files_in(folder: &str, end: &str) -> Result<Vec<PathBuf>> {
    let folder: &Path = &workspace::root().join(folder);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(end) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
