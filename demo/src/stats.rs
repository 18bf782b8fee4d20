//! Reads `pomguard stats --json`, as a monitoring system would.

use std::{collections::BTreeMap, path::Path, process::Stdio};

use anyhow::{Context as _, Result, bail};
use pomguard_netlab::Namespace;
use serde::Deserialize;

/// The direction of packets, seen from the guarded machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Direction {
    Inbound,
    Outbound,
}

/// One machine's counters at one moment.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// New connections by row id.
    connections: BTreeMap<(Direction, String), u64>,
    /// Dropped packets by reason.
    dropped: BTreeMap<(Direction, String), u64>,
}

#[derive(Deserialize)]
struct Stats {
    rows: Vec<RowStats>,
    reasons: Vec<ReasonStats>,
}

#[derive(Deserialize)]
struct RowStats {
    id: String,
    direction: Direction,
    connections: u64,
}

#[derive(Deserialize)]
struct ReasonStats {
    name: String,
    direction: Direction,
    verdict: String,
    packets: u64,
}

impl Counters {
    /// Reads the counters of the machine's pomguard.
    pub(super) fn read(binary: &Path, namespace: &Namespace, config: &Path) -> Result<Self> {
        let output = namespace
            .command(binary)?
            .args(["stats", "--json", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("running {}", binary.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("pomguard stats on {} failed ({}): {}", namespace.name(), output.status, said.trim());
        }
        Self::parse(&output.stdout).with_context(|| format!("pomguard stats --json on {}", namespace.name()))
    }

    fn parse(json: &[u8]) -> Result<Self> {
        let Stats { rows, reasons } = serde_json::from_slice(json)?;
        let mut counters = Self::default();
        for row in rows {
            *counters.connections.entry((row.direction, row.id)).or_default() += row.connections;
        }
        for reason in reasons.into_iter().filter(|reason| reason.verdict == "drop") {
            *counters.dropped.entry((reason.direction, reason.name)).or_default() += reason.packets;
        }
        Ok(counters)
    }

    /// Returns the new connections of a row since `earlier`.
    pub(super) fn connections_since(&self, earlier: &Self, direction: Direction, row: &str) -> u64 {
        let key = (direction, row.to_owned());
        let at = |counters: &Self| counters.connections.get(&key).copied().unwrap_or(0);
        at(self).saturating_sub(at(earlier))
    }

    /// Returns the packets dropped since `earlier`, by reason. Reasons without new drops are left out.
    pub(super) fn dropped_since(&self, earlier: &Self) -> BTreeMap<(Direction, String), u64> {
        let since = |(key, now): (&(Direction, String), &u64)| {
            let more = now.saturating_sub(earlier.dropped.get(key).copied().unwrap_or(0));
            (more > 0).then(|| (key.clone(), more))
        };
        self.dropped.iter().filter_map(since).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_differences() {
        let page = |connections: u64, packets: u64| {
            let text = format!(
                r#"{{"host": "pom1", "generation": 1, "flows": {{"entries": 0, "capacity": 1}},
                "rows": [{{"id": "pom-4.0/1", "direction": "inbound", "packets": 9, "bytes": 9,
                           "connections": {connections}}}],
                "reasons": [{{"name": "unlisted", "direction": "inbound", "verdict": "drop",
                              "packets": {packets}, "bytes": 0}},
                            {{"name": "row", "direction": "inbound", "verdict": "pass",
                              "packets": 99, "bytes": 0}}]}}"#
            );
            Counters::parse(text.as_bytes()).unwrap()
        };
        let (before, after) = (page(2, 10), page(5, 14));
        assert_eq!(after.connections_since(&before, Direction::Inbound, "pom-4.0/1"), 3);
        assert_eq!(after.connections_since(&before, Direction::Outbound, "pom-4.0/1"), 0);
        let dropped: Vec<_> = after.dropped_since(&before).into_values().collect();
        assert_eq!(dropped, [4]);
    }
}
