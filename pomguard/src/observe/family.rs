//! Every metric that pomguard exports, in one list. The page is written from this list, and
//! `docs/metrics.md`, the alert rules and the dashboard are checked against the list.

/// The kind of a metric's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows; ends in `_total`.
    Counter,
    /// May go either way.
    Gauge,
    /// Always 1: the labels carry the information; ends in `_info`.
    Info,
}

impl MetricKind {
    /// Returns the word used in documentation.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Info => "info",
        }
    }

    /// Returns the suffix that OpenMetrics demands, and that the encoder adds by itself.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Counter => "_total",
            Self::Gauge => "",
            Self::Info => "_info",
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricFamily {
    /// The name in queries, suffix included.
    pub name: &'static str,
    /// The kind of value.
    pub kind: MetricKind,
    /// Label names, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// The help text, one sentence.
    pub help: &'static str,
}

impl MetricFamily {
    /// Returns the name without the suffix of the kind.
    #[must_use]
    pub fn base(&self) -> &'static str {
        self.name.strip_suffix(self.kind.suffix()).unwrap_or(self.name)
    }
}

macro_rules! families {
    ($($constant:ident $kind:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $constant: MetricFamily =
                MetricFamily { name: $name, kind: MetricKind::$kind, labels: &[$($label),*], help: $help };
        )+

        /// Every metric, in the order of the page.
        pub const ALL: &[MetricFamily] = &[$($constant,)+];
    };
}

families! {
    BUILD Info "pomguard_build_info" ["version"] "The daemon that answers.";
    POLICY Info "pomguard_policy_info" ["host", "matrix", "generation", "image"]
        "The policy in force, as the kernel's maps say: image is the SHA-256 of its bytes.";
    POLICY_GENERATION Gauge "pomguard_policy_generation" []
        "Generation in force, counted from 1 at the first install.";
    POLICY_INSTALLED Gauge "pomguard_policy_installed_timestamp_seconds" []
        "When the generation in force was installed.";
    POLICY_IN_SYNC Gauge "pomguard_policy_in_sync" []
        "1 while the image in the kernel is the one that the daemon installed last; absent until it installed one.";
    POLICY_CONFIRMED Gauge "pomguard_policy_confirmed" []
        "0 while the policy in force is taken back unless `pomguard confirm` comes.";
    ROLLBACK_DEADLINE Gauge "pomguard_rollback_deadline_timestamp_seconds" []
        "When the policy in force is taken back unless confirmed; absent when nothing waits.";
    COUNTING_SINCE Gauge "pomguard_counting_since_timestamp_seconds" []
        "When the counters were first set up; they survive restarts and upgrades.";
    MODE Info "pomguard_mode_info" ["direction", "mode"]
        "Mode of the direction, read back from the kernel: track, audit or enforce.";
    ATTACH Info "pomguard_attach_info" ["interface", "xdp", "tc"]
        "How the interface is attached: xdp is native, generic or none; tc is tcx, clsact or none.";
    ATTACH_WANTED Info "pomguard_attach_wanted_info" ["mode"]
        "What the settings ask for: auto, native or generic.";
    PACKETS Counter "pomguard_packets_total" ["direction", "verdict", "reason"]
        "Packets judged, by what became of them and why; audit is what enforce would have dropped.";
    BYTES Counter "pomguard_bytes_total" ["direction", "verdict", "reason"]
        "Bytes of the packets judged, link header included.";
    SEEN Counter "pomguard_seen_packets_total" ["direction"]
        "Packets that reached the hook, counted on their own, before judgement.";
    SEEN_BYTES Counter "pomguard_seen_bytes_total" ["direction"]
        "Bytes of the packets that reached the hook.";
    INTERFACE_SEEN Counter "pomguard_interface_seen_packets_total" ["interface"]
        "Packets that the XDP program saw come in by the interface; of a bond, by all members.";
    MISMATCH Gauge "pomguard_accounting_mismatch_packets" ["direction"]
        "Seen minus passed minus dropped; a reading under load is off by the packets in flight, and returns to 0.";
    KNOWN_SYSTEM_DROPS Counter "pomguard_known_system_drops_total" ["direction", "outcome"]
        "Packets dropped (or, in audit, nearly) although the site file knows their peer: probably a mistake in the files.";
    SYSTEM_DROPS Counter "pomguard_drops_by_system_total" ["system", "direction", "verdict"]
        "Packets of a known system that were dropped or audited since the daemon started, by its name in the site file.";
    KNOWN_PEERS Gauge "pomguard_known_peers_dropped" ["direction", "verdict"]
        "Addresses of known systems whose openings were dropped or audited in the last ten minutes; at most 256 are counted.";
    ROW_PACKETS Counter "pomguard_row_packets_total" ["row", "direction", "source", "destination", "mode"]
        "Packets that the row allowed.";
    ROW_BYTES Counter "pomguard_row_bytes_total" ["row", "direction", "source", "destination", "mode"]
        "Bytes that the row allowed.";
    ROW_CONNECTIONS Counter "pomguard_row_connections_total" ["row", "direction", "source", "destination", "mode"]
        "Connections opened under the row.";
    ROW_LAST_HIT Gauge "pomguard_row_last_hit_timestamp_seconds" ["row", "direction"]
        "When the row last allowed a packet; absent until it did.";
    ROW_IN_FORCE Gauge "pomguard_row_in_force" ["row", "direction"]
        "1 while the row is part of the policy in force; 0 once it left, its counters are kept.";
    FLOW_ENTRIES Gauge "pomguard_flow_entries" []
        "Flows opened by this host that are remembered now.";
    FLOW_KINDS Gauge "pomguard_flow_state_entries" ["class", "state"]
        "Entries of the flow table by class and state. Established TCP makes room for nothing.";
    FLOW_CAPACITY Gauge "pomguard_flow_capacity" []
        "Flows that can be remembered at once.";
    FLOWS_OPENED Counter "pomguard_flows_opened_total" []
        "Flows entered into the flow table.";
    FLOWS_EVICTED Counter "pomguard_flows_evicted_total" []
        "Entries that made room for new ones before their age was up; those that have ended go first.";
    FLOWS_FREED Counter "pomguard_flows_freed_total" []
        "Closed and suspect flows that left the flow table because their socket was gone.";
    CAPACITY_USED Gauge "pomguard_capacity_used" ["resource"]
        "How much of a limited resource the policy in force takes.";
    CAPACITY_LIMIT Gauge "pomguard_capacity_limit" ["resource"]
        "How much of it there is.";
    RELOAD_SUCCESS Gauge "pomguard_last_reload_success_timestamp_seconds" []
        "When the files were last read and put in force; absent until they were.";
    RELOAD_OK Gauge "pomguard_last_reload_successful" []
        "1 if the last attempt to read the files and put them in force succeeded.";
    RELOAD_FAILURES Counter "pomguard_reload_failures_total" []
        "Attempts that failed and changed nothing.";
    SELF_CHECK_MISMATCHES Counter "pomguard_self_check_mismatches_total" []
        "Times that the maps or attachments were found other than installed. Should stay at zero.";
    REPAIRS Counter "pomguard_repairs_total" ["what"]
        "What was found changed from outside, and put right.";
    STATE Gauge "pomguard_state" ["state"]
        "1 while this is so; all are 0 while everything is as it should be.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn metric_names_are_unique_and_end_as_their_kind_demands() {
        let mut names = BTreeSet::new();
        for family in ALL {
            assert!(names.insert(family.name), "{} is named once", family.name);
            assert!(family.name.starts_with("pomguard_"), "{}", family.name);
            assert!(family.name.ends_with(family.kind.suffix()), "{}", family.name);
            if family.kind != MetricKind::Counter {
                assert!(!family.name.ends_with("_total"), "{} is no counter", family.name);
            }
        }
    }

    #[test]
    fn every_meaning_is_one_line_that_needs_no_escaping() {
        for family in ALL {
            assert!(family.help.ends_with('.'), "{}", family.name);
            assert!(!family.help.contains(['\n', '\\', '|', '"']), "{}", family.name);
        }
    }
}
