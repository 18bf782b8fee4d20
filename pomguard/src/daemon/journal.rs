//! Entries of the systemd journal with fields of their own. An auditor filters by these fields, which a line of
//! text does not have.
//!
//! Writing never waits. If no journal takes an entry, the message goes to the log.

use std::io;

use log::{error, info, warn};

use crate::observe::{journal, printable::printable};

/// Ids of the kinds of entries, for `journalctl MESSAGE_ID=…`. Fixed for ever.
pub mod message_id {
    /// A change of policy was made, confirmed, rolled back or refused.
    pub const CHANGE: &str = "5b0d6b5c2f4e4f0e9b0b6a3e0d9c7a11";
    /// An emergency verb was used: an exception, a suspension of the policy, a detach.
    pub const EMERGENCY: &str = "8e1c2d7a90a54b0f8f3f6b1de2a4c522";
    /// A user asked for something without the right to do so.
    pub const DENIED: &str = "c3f7a1e4d6b84a5e8a0c9d2b7f1e6033";
    /// Something that was changed from outside was restored.
    pub const REPAIR: &str = "f09a4be17c3d4d22b5e86ac1d37b9f44";

    /// Every id with its name in documentation.
    pub const ALL: [(&str, &str); 4] =
        [("change", CHANGE), ("emergency", EMERGENCY), ("denied", DENIED), ("repair", REPAIR)];
}

/// The importance of an entry, with the numbers of syslog(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// An error that holds or held.
    Error = 3,
    /// A state that somebody should look at.
    Warning = 4,
    /// A significant and normal event.
    Notice = 5,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// One of [`message_id`].
    pub message_id: &'static str,
    /// The importance of the entry.
    pub priority: Priority,
    /// One sentence.
    pub message: String,
    /// Further fields: names in capitals with the prefix `POMGUARD_`, and their values. Empty values are left
    /// out.
    pub fields: Vec<(&'static str, String)>,
}

/// Writes an entry.
pub fn write(entry: &Entry) {
    if entry.send().is_ok() {
        return;
    }
    let message = printable(&entry.message);
    match entry.priority {
        Priority::Error => error!("{message}"),
        Priority::Warning => warn!("{message}"),
        Priority::Notice => info!("{message}"),
    }
}

impl Entry {
    /// Sends the entry to the journal without waiting.
    ///
    /// # Errors
    /// If nobody listens, or the journal has no room now: the entry is lost.
    pub fn send(&self) -> io::Result<()> {
        journal::send(&self.to_bytes())
    }

    fn to_bytes(&self) -> Vec<u8> {
        let fields = self.fields.iter().map(|(name, value)| (*name, value.as_str()));
        let id = ("MESSAGE_ID", self.message_id);
        journal::datagram(self.priority as u8, &self.message, std::iter::once(id).chain(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_is_a_datagram_of_fields() {
        let entry = Entry {
            message_id: message_id::CHANGE,
            priority: Priority::Notice,
            message: "change 5 is in force".to_owned(),
            fields: vec![
                ("POMGUARD_WHY", "two\nlines".to_owned()),
                ("POMGUARD_UID", "0".to_owned()),
                ("POMGUARD_CLAIMED", String::new()),
            ],
        };
        let mut expected = b"MESSAGE=change 5 is in force\nPRIORITY=5\nSYSLOG_IDENTIFIER=pomguard\n\
                             MESSAGE_ID=5b0d6b5c2f4e4f0e9b0b6a3e0d9c7a11\nPOMGUARD_WHY\n\x09\0\0\0\0\0\0\0two\nlines\n"
            .to_vec();
        expected.extend(b"POMGUARD_UID=0\n");
        assert_eq!(entry.to_bytes(), expected);
    }

    #[test]
    fn ids_are_of_the_form_that_the_journal_takes_and_documented() {
        let operations = include_str!("../../../docs/operations.md");
        for (name, id) in message_id::ALL {
            assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
            let row = format!("| `{id}` |");
            assert_eq!(operations.matches(&row).count(), 1, "{name}: {id}");
        }
    }
}
