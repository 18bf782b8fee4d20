//! Writes the files that an operator would write: the site file, and one `pomguard.toml` per POM server.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{
    layout::{Machine, Role},
    matrix::Matrix,
};

/// Writes `site.toml`.
pub(super) fn write_site(directory: &Path, matrix: &Matrix, zones: u16, machines: &[Machine]) -> Result<()> {
    let text = site(matrix, zones, machines)?;
    fs::write(directory.join("site.toml"), text).context("writing site.toml")
}

/// Returns the site file of the demo site.
pub(super) fn site(matrix: &Matrix, zones: u16, machines: &[Machine]) -> Result<String> {
    let mut text = format!("matrix = {:?}\nzones = {zones}\n", matrix.id);
    let mut written: Vec<&[&str]> = Vec::new();
    for machine in machines {
        // Machines that share a prefix are one entry.
        let repeated = !machine.within.is_empty() && written.contains(&machine.within);
        if machine.role == Role::Stranger || repeated {
            continue;
        }
        written.push(machine.within);
        let own = [machine.v4.to_string(), machine.v6.to_string()];
        let addresses: Vec<&str> = match machine.within {
            [] => own.iter().map(String::as_str).collect(),
            within => within.to_vec(),
        };
        let systems: Vec<_> =
            machine.systems.iter().map(|&system| matrix.systems[system].name.as_str()).collect();
        match machine.role {
            Role::Pom => writeln!(text, "\n[[host]]\nname = {:?}", machine.name)?,
            _ => writeln!(text, "\n[[peer]] # {}", machine.name)?,
        }
        // Rust and TOML have the same notation for an array of plain strings.
        writeln!(text, "addresses = {addresses:?}\nsystems = {systems:?}")?;
    }
    Ok(text)
}

/// Writes one server's `pomguard.toml` alongside the site file, and returns its path.
pub(super) fn write_host(directory: &Path, host: &str, interface: &str, pins: &Path) -> Result<PathBuf> {
    let home = directory.join(host);
    let [state, runtime] = ["state", "runtime"].map(|folder| home.join(folder));
    for folder in [&state, &runtime] {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let [pins, state, runtime] = [pins, &state, &runtime].map(Path::display);
    let text = format!(
        r#"site = "../site.toml"
host = "{host}"
interfaces = ["{interface}"]

[enforcement]
inbound = "enforce"
outbound = "enforce"

[attach]
mode = "auto"

[metrics]
listen = "127.0.0.1:9843"

[paths]
pins = "{pins}"
state = "{state}"
runtime = "{runtime}"
"#
    );
    let path = home.join("pomguard.toml");
    fs::write(&path, text).with_context(|| path.display().to_string())?;
    Ok(path)
}
