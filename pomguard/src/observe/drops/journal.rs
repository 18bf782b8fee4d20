//! Lines about drops for the system's journal. Their number is limited, so that nobody can fill the journal
//! with them.
//!
//! A drop of a known system is written at once, and then at most once per interval for the same port and
//! reason. For strangers, the prefixes with the most packets are written once a minute.

use std::{cmp::Reverse, collections::BTreeMap};

use pomguard_common::drops::DropKey;

use super::{
    Counts,
    ledger::Hour,
    prefix,
    report::{Item, item},
};
use crate::{
    observe::{journal, printable::printable, snapshot::Disposition},
    policy::Policy,
};

/// The interval of the lines about strangers, in seconds.
const MINUTE: u64 = 60;
/// The most lines about known systems in one interval; a faulty system that tries every port causes no more.
const KNOWN_LINES: usize = 100;
/// The number of strangers' prefixes that are counted separately within a minute.
const PREFIXES: usize = 4_096;
/// `LOG_WARNING` and `LOG_INFO` (syslog(3)).
const WARNING: u8 = 4;
const INFO: u8 = 6;

/// Limits, from `[drops]` in the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The shortest time between two lines about one port of one known system, in seconds.
    pub known_interval: u32,
    /// The number of lines per minute about all strangers; 0 = none.
    pub stranger_lines: u32,
}

/// One line with fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The text.
    pub message: String,
    /// The fields by name.
    pub fields: Vec<(&'static str, String)>,
    priority: u8,
}

impl Line {
    fn new(priority: u8, message: String) -> Self {
        Self { message, fields: Vec::new(), priority }
    }

    fn of(priority: u8, message: String, item: &Item) -> Self {
        let mut fields = vec![
            ("POMGUARD_REASON", item.reason.to_owned()),
            ("POMGUARD_PEER", item.peer.clone()),
            ("POMGUARD_DIRECTION", item.direction.name().to_owned()),
            ("POMGUARD_VERDICT", item.verdict.name().to_owned()),
            ("POMGUARD_PACKETS", item.packets.to_string()),
        ];
        fields.extend(item.port.map(|port| ("POMGUARD_PORT", port.to_string())));
        fields.extend(item.protocol.map(|protocol| ("POMGUARD_PROTOCOL", protocol.to_string())));
        fields.extend(item.row.as_ref().map(|row| ("POMGUARD_ROW", row.0.clone())));
        fields.extend(item.system.as_ref().map(|system| ("POMGUARD_SYSTEM", system.clone())));
        Self { message, fields, priority }
    }

    /// Returns the line as a datagram for the journal.
    #[must_use]
    pub fn datagram(&self) -> Vec<u8> {
        let fields: Vec<(&str, String)> =
            self.fields.iter().map(|(name, value)| (*name, printable(value).into_owned())).collect();
        let fields = fields.iter().map(|(name, value)| (*name, value.as_str()));
        journal::datagram(self.priority, &printable(&self.message), fields)
    }
}

/// Decides which lines are written.
#[derive(Debug, Default)]
pub struct Journal {
    /// The ports and reasons of known systems, each with the time until which no other line is written, and
    /// the counts since the last line.
    known: BTreeMap<DropKey, (u64, Counts)>,
    /// The start of the present interval, and the number of lines about known systems since then.
    written: (u64, usize),
    /// The strangers of this minute, by prefix.
    strangers: BTreeMap<DropKey, (DropKey, Counts)>,
    minute: u64,
}

impl Journal {
    /// Adds the counts since the last call, and returns the lines that are due. `now` is in seconds.
    pub fn lines(&mut self, more: &Hour, limits: Limits, policy: Option<&Policy>, now: u64) -> Vec<Line> {
        let mut lines = Vec::new();
        for (key, counts) in &more.table {
            if key.known() {
                self.known.entry(*key).or_insert((0, Counts::default())).1.add(counts);
            } else if limits.stranger_lines > 0 {
                self.add_stranger(*key, counts);
            }
        }
        self.known_lines(limits, policy, now, &mut lines);
        if now / MINUTE != self.minute {
            self.minute = now / MINUTE;
            self.stranger_lines(limits, policy, &mut lines);
        }
        lines
    }

    fn add_stranger(&mut self, key: DropKey, counts: &Counts) {
        let [high, low] = key.mask();
        let by_prefix = DropKey { peer: [key.peer[0] & high, key.peer[1] & low], what: key.what >> 44 << 44 };
        if self.strangers.len() >= PREFIXES && !self.strangers.contains_key(&by_prefix) {
            return;
        }
        self.strangers.entry(by_prefix).or_insert((key, Counts::default())).1.add(counts);
    }

    fn known_lines(&mut self, limits: Limits, policy: Option<&Policy>, now: u64, lines: &mut Vec<Line>) {
        let interval = u64::from(limits.known_interval);
        if now >= self.written.0 + interval {
            self.written = (now, 0);
        }
        let mut hidden = 0;
        for (key, (due, counts)) in &mut self.known {
            if counts.packets == 0 || *due > now {
                continue;
            }
            let item = item(*key, &std::mem::take(counts), policy);
            *due = now + interval;
            self.written.1 += 1;
            if self.written.1 > KNOWN_LINES {
                hidden += 1;
                continue;
            }
            let row = item.row.as_ref().map_or_else(String::new, |row| format!(", row {row} is for others"));
            let message = format!(
                "{} {}: {} {}, {}{row}: {} packets",
                did(item.verdict),
                whose(&item),
                item.service,
                item.direction.name(),
                item.reason,
                item.packets
            );
            lines.push(Line::of(WARNING, message, &item));
        }
        if hidden > 0 {
            let message = format!("and {hidden} more ports of known systems (`pomguard drops --known`)");
            lines.push(Line::new(WARNING, message));
        }
        self.known.retain(|_, (due, counts)| counts.packets > 0 || *due > now);
    }

    fn stranger_lines(&mut self, limits: Limits, policy: Option<&Policy>, lines: &mut Vec<Line>) {
        let mut prefixes: Vec<(DropKey, Counts)> =
            std::mem::take(&mut self.strangers).into_values().collect();
        prefixes.sort_by_key(|(key, counts)| (Reverse(counts.packets), *key));
        let most = limits.stranger_lines as usize;
        // The last line is for the prefixes that have no line.
        let shown = if prefixes.len() > most { most.saturating_sub(1) } else { prefixes.len() };
        for (key, counts) in prefixes.iter().take(shown) {
            let item = item(*key, counts, policy);
            let who = prefix(*key).map_or_else(|| item.peer.clone(), |prefix| prefix.to_string());
            let message = format!(
                "{} strangers in {who}, first {}: {} {}, {}: {} packets at all ports",
                did(item.verdict),
                item.peer,
                item.service,
                item.direction.name(),
                item.reason,
                item.packets
            );
            lines.push(Line::of(INFO, message, &item));
        }
        let hidden = &prefixes[shown..];
        if !hidden.is_empty() {
            let packets: u64 = hidden.iter().map(|(_, counts)| counts.packets).sum();
            let message = format!(
                "and {} more prefixes of strangers, {packets} packets (`pomguard drops --strangers`)",
                hidden.len()
            );
            lines.push(Line::new(INFO, message));
        }
    }
}

const fn did(verdict: Disposition) -> &'static str {
    match verdict {
        Disposition::Drop => "denied",
        Disposition::Audit => "audit, passed and would be denied:",
        Disposition::Pass => "left without a row:",
    }
}

fn whose(item: &Item) -> String {
    match &item.system {
        Some(system) => format!("{system} {}", item.peer),
        None => item.peer.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use pomguard_common::{
        Direction,
        decide::Decision,
        drops::{End, PeerKind},
        reason::Reason,
    };

    use super::*;

    const LIMITS: Limits = Limits { known_interval: 60, stranger_lines: 10 };

    fn more(known: bool, peers: std::ops::Range<u64>, packets: u64) -> Hour {
        let reason = if known { Reason::PortKnown } else { Reason::Port };
        let table = peers.map(|peer| {
            let end = End {
                peer: [(0x0a00_0000 + (peer << 8)) << 32, 0],
                kind: PeerKind::V4,
                port: 161,
                protocol: 17,
                ..End::NOBODY
            };
            let key = DropKey::new(Direction::Inbound, Decision::because(reason), known.into(), end);
            (key, Counts { packets, bytes: 60, first: 1, last: 2, peer: end.peer, other_port: 0 })
        });
        Hour { table: table.collect(), ..Hour::default() }
    }

    #[test]
    fn known_system_is_told_at_once_and_then_once_an_interval() {
        let mut journal = Journal::default();
        let mut message = Vec::new();
        for now in 1_000..1_180 {
            for line in journal.lines(&more(true, 0..2, 1), LIMITS, None, now) {
                message.push((now, line));
            }
        }
        let times: Vec<u64> = message.iter().map(|(now, _)| *now).collect();
        assert_eq!(times, [1_000, 1_000, 1_060, 1_060, 1_120, 1_120]);
        let packets = message.iter().filter(|(now, _)| *now == 1_060).map(|(_, line)| {
            line.fields.iter().find(|(name, _)| *name == "POMGUARD_PACKETS").unwrap().1.clone()
        });
        assert_eq!(packets.collect::<BTreeSet<_>>(), BTreeSet::from(["60".to_owned()]), "none is left out");
        let text = String::from_utf8(message[0].1.datagram()).unwrap();
        for field in ["POMGUARD_REASON=port-known\n", "POMGUARD_PEER=10.0.0.0\n", "POMGUARD_PORT=161\n"] {
            assert!(text.contains(field), "{text}");
        }
    }

    #[test]
    fn strangers_take_ten_lines_a_minute_whatever_they_send() {
        let mut journal = Journal::default();
        let mut lines = Vec::new();
        for now in 6_000..6_300 {
            lines.extend(journal.lines(&more(false, now % 7..2_000 + now % 7, 1), LIMITS, None, now));
        }
        // Drops of the first call are written at once: five minutes begin.
        assert_eq!(lines.len(), 5 * 10);
        assert!(lines[49].message.contains("more prefixes of strangers"), "{:?}", lines[49]);
    }

    #[test]
    fn scan_by_a_known_system_makes_no_more_lines_than_the_bound() {
        let mut journal = Journal::default();
        let lines = journal.lines(&more(true, 0..4_000, 1), LIMITS, None, 1_000);
        assert_eq!(lines.len(), KNOWN_LINES + 1);
        assert!(lines.last().unwrap().message.contains("and 3900 more"), "{:?}", lines.last());
    }

    #[test]
    fn nothing_in_a_field_breaks_a_line_of_the_datagram() {
        let line = Line::new(INFO, "one\nPOMGUARD_REASON=forged".to_owned());
        let text = String::from_utf8(line.datagram()).unwrap();
        assert_eq!(text.lines().count(), 3, "{text}");
    }
}
