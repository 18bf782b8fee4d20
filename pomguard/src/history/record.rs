//! The record of one change.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::policy::{diff::Diff, setting::SettingChange};

/// One change of policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Number of the change, counted from 1.
    pub number: u64,
    /// Seconds since 1970.
    pub at: u64,
    /// The trigger of the change.
    pub cause: Cause,
    /// The process that asked for the change; `None` for the daemon itself, at a start or on SIGHUP.
    pub by: Option<By>,
    /// The operator's reason.
    pub why: Option<String>,
    /// The version of pomguard that made the change.
    pub version: String,
    /// The name of this server in the site file.
    pub host: String,
    /// Digest of the three texts: settings, site, matrix.
    pub files: String,
    /// The names of the texts: settings, site, matrix.
    pub names: [String; 3],
    /// SHA-256 of the image; empty until the image is installed.
    pub image: String,
    /// Number of the generation; 0 until the image is installed.
    pub generation: u32,
    /// Milliseconds from the reading of the files to the switch of the generation.
    pub took_ms: u64,
    /// The differences from the policy before, in numbers.
    pub summary: Summary,
    /// The treatment of live flows that no row of the policy allows.
    #[serde(default, skip_serializing_if = "Existing::is_by_policy")]
    pub existing: Existing,
    /// The settings that the change changed.
    #[serde(default)]
    pub settings: Vec<SettingChange>,
    /// The outcome of the change.
    pub outcome: Outcome,
}

/// The treatment of live flows that no row of a new policy allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Existing {
    /// A flow that a policy allowed ends with the next packet; a flow that no policy has judged goes on until
    /// the end of the connection.
    #[default]
    ByPolicy,
    /// All such flows end at once.
    Cut,
    /// All such flows go on until they end.
    Keep,
}

impl Existing {
    /// Returns true if the treatment is the default.
    #[must_use]
    pub const fn is_by_policy(&self) -> bool {
        matches!(self, Self::ByPolicy)
    }

    /// Returns the option of `pomguard apply` for the treatment, with a leading space; empty for the default.
    #[must_use]
    pub const fn option(self) -> &'static str {
        match self {
            Self::ByPolicy => "",
            Self::Cut => " --cut",
            Self::Keep => " --keep-existing",
        }
    }
}

/// The trigger of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The daemon started and found files that no record has yet.
    Start,
    /// The daemon received SIGHUP.
    Reload,
    /// An operator ran `pomguard apply`.
    Apply,
    /// An operator ran `pomguard rollback` to the change of this number.
    Rollback(u64),
}

impl fmt::Display for Cause {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => out.pad("start"),
            Self::Reload => out.pad("reload"),
            Self::Apply => out.pad("apply"),
            Self::Rollback(to) => out.pad(&format!("rollback to {to}")),
        }
    }
}

/// The process that asked for a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct By {
    /// The user id that the kernel reports for the process.
    pub uid: u32,
    /// The process id that the kernel reports.
    pub pid: i32,
    /// The login user id that the kernel reports for the process; `None` for a process of a service.
    #[serde(default)]
    pub login: Option<u32>,
    /// The login name that the process claimed.
    pub claimed: Option<String>,
}

/// The differences of a change, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Number of rows that were added.
    pub added: usize,
    /// Number of rows that were removed.
    pub removed: usize,
    /// Number of rows that allow more or less than before.
    pub changed: usize,
    /// True if the mode of a direction changed.
    pub modes: bool,
    /// Number of settings that changed.
    #[serde(default)]
    pub settings: usize,
}

impl Summary {
    /// Counts the differences.
    #[must_use]
    pub fn from_diff(diff: &Diff) -> Self {
        use crate::policy::diff::Kind;
        let count = |wanted: &[Kind]| diff.rows.iter().filter(|row| wanted.contains(&row.kind)).count();
        Self {
            added: count(&[Kind::Added]),
            removed: count(&[Kind::Removed]),
            changed: diff.rows.len() - count(&[Kind::Added, Kind::Removed]),
            modes: !diff.modes.is_empty(),
            settings: diff.settings.len(),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let modes = if self.modes { ", modes" } else { "" };
        write!(out, "+{} -{} ~{}{modes}", self.added, self.removed, self.changed)?;
        match self.settings {
            0 => Ok(()),
            1 => out.write_str(", 1 setting"),
            number => write!(out, ", {number} settings"),
        }
    }
}

/// The deadline after which a change is taken back unless an operator confirms the change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Seconds since 1970, for people; the deadline in the kernel's map is the one that counts.
    pub until: u64,
    /// The id of the boot that the deadline belongs to: after a reboot the deadline has passed.
    pub boot: String,
}

/// The outcome of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The change is in force until a deadline.
    Pending(Pending),
    /// The change is in force, and a start without usable files returns to this change.
    InForce,
    /// A later change replaced this one.
    Replaced,
    /// Nobody confirmed the change in time, so the policy before returned by itself.
    NotConfirmed,
    /// An operator returned to an earlier change.
    RolledBack,
    /// The change never was in force.
    Failed(String),
}

impl Outcome {
    /// Returns the outcome in a few words.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Pending(_) => "waits for confirm".to_owned(),
            Self::InForce => "in force".to_owned(),
            Self::Replaced => "replaced".to_owned(),
            Self::NotConfirmed => "taken back: nobody confirmed it".to_owned(),
            Self::RolledBack => "rolled back".to_owned(),
            Self::Failed(why) => format!("failed: {why}"),
        }
    }
}

/// Returns the change that is in force; while another change is pending, the one to return to without a
/// confirmation.
pub fn in_force(records: &[Record]) -> Option<&Record> {
    records.iter().rfind(|record| record.outcome == Outcome::InForce)
}

/// Returns the change that waits for a confirmation.
pub fn pending(records: &[Record]) -> Option<&Record> {
    records.iter().rfind(|record| matches!(record.outcome, Outcome::Pending(_)))
}

/// Returns the record that a start with these files continues: the change in force, because the start changes
/// nothing, or the last record, if that is a failed start. A service that systemd starts again and again does
/// not fill the history.
pub fn of_start<'a>(records: &'a [Record], files: &str, host: &str) -> Option<&'a Record> {
    let is_this = |it: &&Record| it.files == files && it.host == host;
    let failed = |it: &&Record| it.cause == Cause::Start && matches!(it.outcome, Outcome::Failed(_));
    in_force(records).filter(is_this).or_else(|| records.last().filter(is_this).filter(failed))
}

/// Returns the latest change with these files, failed ones aside, if that change was taken back. No start
/// applies such files again by itself.
pub fn refused<'a>(records: &'a [Record], files: &str) -> Option<&'a Record> {
    let last = records.iter().rfind(|it| it.files == files && !matches!(it.outcome, Outcome::Failed(_)))?;
    matches!(last.outcome, Outcome::NotConfirmed | Outcome::RolledBack).then_some(last)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn record(number: u64, files: &str, outcome: Outcome) -> Record {
        Record {
            number,
            at: 1_795_392_000 + number,
            cause: Cause::Apply,
            by: Some(By { uid: 0, pid: 7, login: Some(1_000), claimed: Some("ann".to_owned()) }),
            why: Some("a \"ticket\"\n".to_owned()),
            version: "0.1.0".to_owned(),
            host: "pom1".to_owned(),
            files: files.to_owned(),
            names: ["pomguard.toml".to_owned(), "site.toml".to_owned(), "pom-4.0".to_owned()],
            image: "00".to_owned(),
            generation: 1,
            took_ms: 3,
            summary: Summary::default(),
            existing: Existing::default(),
            settings: Vec::new(),
            outcome,
        }
    }

    #[test]
    fn rolled_back_files_are_refused_until_applied_again() {
        let good = record(1, "good", Outcome::InForce);
        let bad = |outcome| record(2, "bad", outcome);
        assert_eq!(
            refused(&[good.clone(), bad(Outcome::NotConfirmed)], "bad"),
            Some(&bad(Outcome::NotConfirmed))
        );
        assert!(refused(&[good.clone(), bad(Outcome::RolledBack)], "bad").is_some());
        assert!(refused(&[good.clone(), bad(Outcome::RolledBack)], "good").is_none());
        assert!(refused(&[good.clone(), bad(Outcome::RolledBack)], "new").is_none());
        let again = record(3, "bad", Outcome::InForce);
        assert!(refused(&[good.clone(), bad(Outcome::RolledBack), again], "bad").is_none());
        let failed = record(3, "bad", Outcome::Failed("no room".to_owned()));
        assert!(refused(&[good, bad(Outcome::RolledBack), failed], "bad").is_some());
    }

    #[test]
    fn start_that_fails_again_and_again_has_one_record() {
        let failed = |number, files| Record {
            cause: Cause::Start,
            ..record(number, files, Outcome::Failed("the card is busy".to_owned()))
        };
        let number = |records: &[Record], files: &str, host: &str| {
            of_start(records, files, host).map(|record| record.number)
        };
        let host = record(1, "a", Outcome::InForce).host;
        let records = [record(1, "a", Outcome::InForce), failed(2, "b")];
        assert_eq!(number(&records, "a", &host), Some(1), "the change in force, before any failed start");
        assert_eq!(number(&records, "b", &host), Some(2));
        assert_eq!((number(&records, "c", &host), number(&records, "b", "other")), (None, None));
        let applied = record(3, "b", Outcome::Failed("by hand".to_owned()));
        assert_eq!(number(&[failed(2, "b"), applied], "b", &host), None, "only the last record, and a start");
    }
}
