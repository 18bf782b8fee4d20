//! Compares the settings of two readings of `pomguard.toml`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{FlowAges, PacketSettings};
use crate::input::settings::{
    self, AttachMode, Drops, OnAttachFailure, OnLoadFailure, Paths, Settings, TcMode,
};

/// A setting whose value changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingChange {
    /// Key as in the file, with the table: `attach.mode`.
    pub key: String,
    /// The value before, as the file writes it.
    pub from: String,
    /// The value after.
    pub to: String,
}

/// Keys that take effect only at the next start of the daemon.
const AT_START: [&str; 4] = ["control.group", "paths.pins", "paths.runtime", "paths.state"];

impl SettingChange {
    /// Returns true if the new value takes effect only at the next start of the daemon.
    #[must_use]
    pub fn takes_restart(&self) -> bool {
        AT_START.contains(&self.key.as_str())
    }

    /// Returns the change as one line for people.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { key, from, to } = self;
        let restart = if self.takes_restart() { " (in force from the next start of the daemon)" } else { "" };
        format!("{key}: {from} -> {to}{restart}")
    }
}

/// Returns every setting that differs, in the order of the file. Leaves out the modes of the two directions,
/// which a diff of policies has, and the files that the settings name, which have changes of their own.
#[must_use]
pub fn changes(old: &Settings, new: &Settings) -> Vec<SettingChange> {
    let (old, new) = (values(old), values(new));
    let differ = old.into_iter().zip(new).filter(|((_, from), (_, to))| from != to);
    differ.map(|((key, from), (_, to))| SettingChange { key: key.to_owned(), from, to }).collect()
}

/// Returns a sentence for each folder of the files that differs from the folder in use.
#[must_use]
pub fn other_paths(used: &Paths, files: &Paths) -> Vec<String> {
    let Paths { pins, state, runtime } = files;
    let folders =
        [("pins", &used.pins, pins), ("state", &used.state, state), ("runtime", &used.runtime, runtime)];
    let differ = folders.into_iter().filter(|(_, used, files)| used != files);
    let sentence = |(key, used, files): (&str, &PathBuf, &PathBuf)| {
        format!(
            "`paths.{key}` is {} in the files and in force from the next start of the daemon only; until then it is {}",
            files.display(),
            used.display()
        )
    };
    differ.map(sentence).collect()
}

/// Returns every key with its value, always the same keys in the same order.
fn values(settings: &Settings) -> Vec<(&'static str, String)> {
    let Settings {
        file: _,
        source: _,
        site: _,
        host: _,
        interfaces,
        own_addresses,
        inbound: _,
        outbound: _,
        grace,
        attach,
        metrics,
        drops,
        packets,
        flows,
        paths,
        control_group,
        file_owner,
        rows: _,
    } = settings;
    let listed = |items: Vec<String>| format!("[{}]", items.join(", "));
    let mode = match attach.mode {
        AttachMode::Auto => "auto",
        AttachMode::Native => "native",
        AttachMode::Generic => "generic",
    };
    let tc = match attach.tc {
        TcMode::Auto => "auto",
        TcMode::Clsact => "clsact",
    };
    let on_failure = match attach.on_failure {
        OnAttachFailure::Stop => "stop",
        OnAttachFailure::Continue => "continue",
    };
    let on_load_failure = match attach.on_load_failure {
        Some(OnLoadFailure::Closed) => "closed",
        Some(OnLoadFailure::Open) => "open",
        None => "as the mode confirmed last",
    };
    let mut found = vec![
        ("interfaces", listed(interfaces.iter().map(|at| format!("{:?}", at.value)).collect())),
        ("own_addresses", own_addresses.name().to_owned()),
        ("enforcement.grace", grace.map_or_else(|| "off".to_owned(), settings::written)),
        ("attach.mode", mode.to_owned()),
        ("attach.require_native", attach.require_native.to_string()),
        ("attach.tc", tc.to_owned()),
        ("attach.on_attach_failure", on_failure.to_owned()),
        ("attach.on_load_failure", on_load_failure.to_owned()),
        ("metrics.listen", metrics.as_ref().map_or_else(|| "off".to_owned(), |at| at.value.to_string())),
    ];
    let Drops { days, megabytes, journal_known, journal_strangers } = drops;
    found.extend([
        ("drops.days", days.to_string()),
        ("drops.megabytes", megabytes.to_string()),
        ("drops.journal_known", journal_known.to_string()),
        ("drops.journal_strangers", journal_strangers.to_string()),
    ]);
    found.extend(packet_values(packets));
    found.extend(flow_values(flows));
    found.extend([
        ("paths.pins", paths.pins.display().to_string()),
        ("paths.state", paths.state.display().to_string()),
        ("paths.runtime", paths.runtime.display().to_string()),
        ("control.group", control_group.clone()),
        ("files.owner", file_owner.as_ref().map_or_else(|| "root".to_owned(), |at| at.value.to_string())),
    ]);
    found
}

fn packet_values(packets: &PacketSettings) -> Vec<(&'static str, String)> {
    let PacketSettings { vrrp, link_control, group_membership, dhcp, echo_v6, redirects, vlans, rates } =
        packets;
    let vlans = vlans.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
    vec![
        ("packets.vrrp", vrrp.to_string()),
        ("packets.link_control", link_control.to_string()),
        ("packets.group_membership", group_membership.to_string()),
        ("packets.dhcp", dhcp.to_string()),
        ("packets.echo_v6", echo_v6.to_string()),
        ("packets.redirects", redirects.to_string()),
        ("packets.vlans", format!("[{vlans}]")),
        ("packets.rates.neighbours", rates.neighbours.to_string()),
        ("packets.rates.echo_v6", rates.echo_v6.to_string()),
        ("packets.rates.icmp_errors", rates.icmp_errors.to_string()),
        ("packets.rates.path_mtu", rates.path_mtu.to_string()),
    ]
}

fn flow_values(flows: &FlowAges) -> Vec<(&'static str, String)> {
    let FlowAges { opening, established, closed, udp, udp_unanswered, icmp } = *flows;
    [
        ("flows.opening", opening),
        ("flows.established", established),
        ("flows.closed", closed),
        ("flows.udp", udp),
        ("flows.udp_unanswered", udp_unanswered),
        ("flows.icmp", icmp),
    ]
    .map(|(key, age)| (key, settings::written(age)))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        Settings::parse("pomguard.toml", text).unwrap()
    }

    #[test]
    fn folders_that_differ_are_in_force_from_the_next_start() {
        let used = Paths::default();
        assert!(other_paths(&used, &used).is_empty());
        let files = Paths { state: "/srv/p".into(), ..used.clone() };
        let [sentence] = other_paths(&used, &files).try_into().unwrap();
        assert!(sentence.contains("`paths.state` is /srv/p in the files"), "{sentence}");
        assert!(sentence.contains("from the next start of the daemon only; until then"), "{sentence}");
    }

    #[test]
    fn settings_that_differ_are_named_by_their_keys() {
        let old = settings("site = \"s\"\ninterfaces = [\"br0\"]\n");
        assert_eq!(changes(&old, &old), []);
        let text = "# a comment\nsite = \"s\"\ninterfaces = [\"eth0\"]\n[enforcement]\ngrace = \"2m\"\n\
                    [attach]\nmode = \"generic\"\ntc = \"clsact\"\non_attach_failure = \"continue\"\n\
                    on_load_failure = \"open\"\n[metrics]\nlisten = \"127.0.0.1:1\"\n[packets]\nvrrp = false\n\
                    vlans = [5]\n[packets.rates]\nneighbours = 7\n[flows]\nestablished = \"36h\"\nudp = \"90s\"\n[paths]\nstate = \"/a\"\n[control]\n\
                    group = \"ops\"\n[files]\nowner = \"root\"\n";
        let found = changes(&old, &settings(text));
        let lines: Vec<String> = found.iter().map(SettingChange::text).collect();
        for line in [
            "interfaces: [\"br0\"] -> [\"eth0\"]",
            "enforcement.grace: 1m -> 2m",
            "attach.mode: auto -> generic",
            "attach.tc: auto -> clsact",
            "attach.on_attach_failure: stop -> continue",
            "metrics.listen: off -> 127.0.0.1:1",
            "packets.vrrp: true -> false",
            "packets.vlans: [] -> [5]",
            "packets.rates.neighbours: 10000 -> 7",
            "flows.established: 5d -> 36h",
            "flows.udp: 5m -> 90s",
            "control.group: pomguard -> ops (in force from the next start of the daemon)",
        ] {
            assert!(lines.iter().any(|it| it == line), "{line}: {lines:#?}");
        }
    }
}
