//! What is noted about one change.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::policy::{diff::Diff, setting::SettingChange};

/// One change of policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number, counted from 1.
    pub number: u64,
    /// Seconds since 1970.
    pub at: u64,
    /// What brought it about.
    pub cause: Cause,
    /// Who asked for it; none for the daemon itself, at its start or on SIGHUP.
    pub by: Option<By>,
    /// What for, in the operator's words.
    pub why: Option<String>,
    /// The pomguard that made it.
    pub version: String,
    /// The host of the site file that this server was.
    pub host: String,
    /// Digest of the three texts.
    pub files: String,
    /// What the texts were called: settings, site, matrix.
    pub names: [String; 3],
    /// SHA-256 of the image; empty until it was installed.
    pub image: String,
    /// The generation that it was; 0 until it was installed.
    pub generation: u32,
    /// Milliseconds from the reading of the files to the flip.
    pub took_ms: u64,
    /// What it changed, in numbers.
    pub summary: Summary,
    /// What it made of live flows that no row of it allows.
    #[serde(default, skip_serializing_if = "Existing::is_by_policy")]
    pub existing: Existing,
    /// Settings that it changed.
    #[serde(default)]
    pub settings: Vec<SettingChange>,
    /// What became of it.
    pub outcome: Outcome,
}

/// What becomes of live flows that no row of a new policy allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Existing {
    /// Those that a policy judged end with the next packet; those that none judged go on until they end.
    #[default]
    ByPolicy,
    /// All of them end at once.
    Cut,
    /// All of them go on until they end.
    Keep,
}

impl Existing {
    /// Returns true if nothing out of the ordinary was asked for.
    #[must_use]
    pub const fn is_by_policy(&self) -> bool {
        matches!(self, Self::ByPolicy)
    }

    /// The option of `pomguard apply`; empty if there was none.
    #[must_use]
    pub const fn option(self) -> &'static str {
        match self {
            Self::ByPolicy => "",
            Self::Cut => " --cut",
            Self::Keep => " --keep-existing",
        }
    }
}

/// What brought a change about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The daemon started and found files that it had not taken yet.
    Start,
    /// SIGHUP.
    Reload,
    /// `pomguard apply`.
    Apply,
    /// `pomguard rollback` to the change of this number.
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

/// Who asked for a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct By {
    /// The user, as the kernel says.
    pub uid: u32,
    /// The process, as the kernel says.
    pub pid: i32,
    /// The user who logged in where the process comes from, as the kernel says; `None` for a process of a service.
    #[serde(default)]
    pub login: Option<u32>,
    /// The login name that the process claimed.
    pub claimed: Option<String>,
}

/// What a change changed, in numbers of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Rows that came.
    pub added: usize,
    /// Rows that went.
    pub removed: usize,
    /// Rows that allow more or less than before.
    pub changed: usize,
    /// Whether a direction's mode changed.
    pub modes: bool,
    /// Settings that changed.
    #[serde(default)]
    pub settings: usize,
}

impl Summary {
    /// In numbers.
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

/// When a change is taken back unless it is confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Seconds since 1970, for people; the kernel's map has the deadline that counts.
    pub until: u64,
    /// The boot that the deadline belongs to: after the next one it has passed.
    pub boot: String,
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// In force until its deadline.
    Pending(Pending),
    /// In force, and what a start without usable files returns to.
    InForce,
    /// Another one took its place.
    Replaced,
    /// Nobody confirmed it in time: the one before returned by itself.
    NotConfirmed,
    /// An operator returned to an earlier one.
    RolledBack,
    /// It never was in force.
    Failed(String),
}

impl Outcome {
    /// In a few words.
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

/// The change that is in force, or is returned to when the pending one is not confirmed.
pub fn in_force(records: &[Record]) -> Option<&Record> {
    records.iter().rfind(|record| record.outcome == Outcome::InForce)
}

/// The change that waits for its confirmation.
pub fn pending(records: &[Record]) -> Option<&Record> {
    records.iter().rfind(|record| matches!(record.outcome, Outcome::Pending(_)))
}

/// The change that these files were and that was taken back: no start takes them again by itself.
pub fn refused<'a>(records: &'a [Record], files: &str) -> Option<&'a Record> {
    let last = records.iter().rfind(|it| it.files == files && !matches!(it.outcome, Outcome::Failed(_)))?;
    matches!(last.outcome, Outcome::NotConfirmed | Outcome::RolledBack).then_some(last)
}

#[cfg(test)]
pub(super) mod tests {
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
}
