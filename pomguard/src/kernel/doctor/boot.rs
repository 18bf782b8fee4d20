//! The time of this boot's first enforcement, and the kernels that the next boot may start.

use std::{cmp::Ordering, fs, path::Path, process::Command};

use super::system;

/// Facts about this boot and the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Boot {
    /// Microseconds from the kernel's start until the journal first reports the service as ready, which means
    /// that the policy is in force; `None` if there is no such entry, or the journal cannot be read.
    pub enforced: Option<u64>,
    /// True if the service runs; `None` if systemd does not tell.
    pub active: Option<bool>,
    /// Microseconds from the kernel's start until `network-pre.target`, after which the network comes up.
    pub network: Option<u64>,
    /// True if the service starts at a boot; `None` if systemd does not tell.
    pub enabled: Option<bool>,
    /// Releases of installed kernels that are newer than the running one, newest first.
    pub newer: Vec<String>,
}

impl Boot {
    /// Reads the facts from systemd, the journal and `/lib/modules`.
    pub(super) fn read() -> Self {
        let running = system::line("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            enforced: first_ready(),
            active: state("is-active", "active", "inactive"),
            network: systemd("network-pre.target", "ActiveEnterTimestampMonotonic"),
            enabled: state("is-enabled", "enabled", "disabled"),
            newer: newer(installed(Path::new("/lib/modules")), &running),
        }
    }
}

/// Returns a numeric property of a systemd unit; `None` for zero, which means never.
fn systemd(unit: &str, property: &str) -> Option<u64> {
    let output =
        Command::new("systemctl").args(["show", "--value", "--property", property, unit]).output().ok()?;
    String::from_utf8_lossy(&output.stdout).trim().parse().ok().filter(|&microseconds| microseconds > 0)
}

/// Returns systemd's answer to a yes-or-no question; `None` for any other answer.
fn state(question: &str, yes: &str, no: &str) -> Option<bool> {
    let output = Command::new("systemctl").args([question, "pomguard.service"]).output().ok()?;
    let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if answer == yes { Some(true) } else { (answer == no).then_some(false) }
}

/// Returns the time at which systemd first reported the service as ready in this boot: a later restart does not
/// count.
fn first_ready() -> Option<u64> {
    /// `SD_MESSAGE_UNIT_STARTED`, systemd/sd-messages.h.
    const STARTED: &str = "MESSAGE_ID=39f53479d3a045ac8e11786248231fbf";
    let output = Command::new("journalctl")
        .args(["--boot", "--no-pager", "--quiet", "--output=json", "UNIT=pomguard.service", STARTED])
        .output()
        .ok()?;
    first_time(&output.stdout)
}

/// Returns the monotonic time of the first entry, in microseconds.
fn first_time(json: &[u8]) -> Option<u64> {
    let line = json.split(|&byte| byte == b'\n').next()?;
    let entry: serde_json::Value = serde_json::from_slice(line).ok()?;
    entry.get("__MONOTONIC_TIMESTAMP")?.as_str()?.parse().ok()
}

/// Returns the releases of the installed kernels: those that have modules.
fn installed(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.path().join("modules.dep").exists())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Returns the releases that are newer than the running one, newest first.
fn newer(mut installed: Vec<String>, running: &str) -> Vec<String> {
    installed.retain(|release| compare(release, running) == Ordering::Greater);
    installed.sort_by(|one, other| compare(other, one));
    installed
}

/// Compares releases by their numbers.
fn compare(one: &str, other: &str) -> Ordering {
    let numbers = |release: &str| -> Vec<u64> {
        let parts = release.split(|letter: char| !letter.is_ascii_digit());
        parts.filter(|part| !part.is_empty()).filter_map(|part| part.parse().ok()).collect()
    };
    numbers(one).cmp(&numbers(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_entry_of_the_journal_counts() {
        let journal = b"{\"__MONOTONIC_TIMESTAMP\":\"2000000\",\"MESSAGE\":\"Started\"}\n{\"__MONOTONIC_TIMESTAMP\":\"9\"}\n";
        assert_eq!(first_time(journal), Some(2_000_000));
        assert_eq!(first_time(b""), None);
    }

    #[test]
    fn newer_kernels_are_sorted_by_number() {
        let installed =
            ["5.14.0-70.el9.x86_64", "5.14.0-503.el9.x86_64", "5.14.0-427.el9.x86_64", "4.18.0-1.el8.x86_64"];
        let installed = installed.map(str::to_owned).to_vec();
        assert_eq!(
            newer(installed, "5.14.0-70.el9.x86_64"),
            ["5.14.0-503.el9.x86_64", "5.14.0-427.el9.x86_64"]
        );
    }
}
