//! `pomguard.toml`: the settings of this server.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    diagnostic::{Diagnostics, Fault},
    files::{FileOwner, Files, is_name},
    matrix::Matrix,
    sources::Source,
    text::{At, Text},
    walk::{self, Table, Value},
};
use crate::{
    model::{FlowAges, Mode, OwnAddresses, PacketSettings, Rates},
    paths,
};

/// Longest interface name in Linux, in bytes.
const INTERFACE_NAME: usize = 15;

/// Default group whose members may query the daemon.
const CONTROL_GROUP: &str = "pomguard";

/// Default grace period in seconds.
const GRACE: u32 = 60;
/// Longest grace period in seconds.
const LONGEST_GRACE: u32 = 3_600;

/// Seconds of a minute.
const MINUTE: u32 = 60;
/// Seconds of an hour.
const HOUR: u32 = 60 * MINUTE;
/// Seconds of a day.
const DAY: u32 = 24 * HOUR;
/// The units of a time in the file, with the seconds of each.
const UNITS: [(&str, u32); 4] = [("s", 1), ("m", MINUTE), ("h", HOUR), ("d", DAY)];

/// How the XDP program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AttachMode {
    /// Native if the driver supports it, generic otherwise.
    #[default]
    Auto,
    /// Native only.
    Native,
    /// Always generic.
    Generic,
}

/// How the egress program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TcMode {
    /// TCX if the kernel has it, a clsact filter otherwise.
    #[default]
    Auto,
    /// Always a clsact filter.
    Clsact,
}

/// The reaction to an interface that cannot be attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnAttachFailure {
    /// The daemon ends with an error.
    #[default]
    Stop,
    /// The other interfaces are enforced, and the failure is reported.
    Continue,
}

/// The reaction of a start if the kernel refuses the programs while nothing of pomguard is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLoadFailure {
    /// Only failsafe rows, neighbours and leases pass.
    Closed,
    /// Everything passes.
    Open,
}

/// `[attach]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Attach {
    /// Native or generic XDP.
    pub mode: AttachMode,
    /// True if generic counts as a failure.
    pub require_native: bool,
    /// The reaction to a failed attachment.
    pub on_failure: OnAttachFailure,
    /// TCX or clsact.
    pub tc: TcMode,
    /// The reaction if the kernel refuses the programs; `None` follows the mode confirmed last.
    pub on_load_failure: Option<OnLoadFailure>,
    /// True if the mode before was generic and `auto` replaces it. Not a key of the file: the daemon sets this.
    pub leave_generic: bool,
}

/// `[paths]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {
    /// Pinned maps, programs and links.
    pub pins: PathBuf,
    /// Files that survive a reboot.
    pub state: PathBuf,
    /// Files that do not survive a reboot.
    pub runtime: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self { pins: paths::PINS.into(), state: paths::STATE.into(), runtime: paths::RUNTIME.into() }
    }
}

/// `[drops]`: the records and journal lines about denied peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drops {
    /// Days that the history keeps.
    pub days: u32,
    /// Largest size of the history on disk in megabytes (2^20 bytes).
    pub megabytes: u32,
    /// Seconds between two journal lines about one port of one known system.
    pub journal_known: u32,
    /// Journal lines per minute about all unknown peers together; 0 = none.
    pub journal_strangers: u32,
}

impl Default for Drops {
    fn default() -> Self {
        Self { days: 7, megabytes: 32, journal_known: 60, journal_strangers: 10 }
    }
}

/// The name of the settings without a file.
const NO_FILE: &str = "default";

/// The contents of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The file's name, as written.
    pub file: Arc<str>,
    /// Name and text; the text is empty if there is no file.
    pub source: Source,
    /// The site file; relative paths are resolved against this file's folder.
    pub site: PathBuf,
    /// Name of this host in the site file, needed if its addresses do not identify the host.
    pub host: Option<At<String>>,
    /// The addresses of the machine that belong to this host.
    pub own_addresses: OwnAddresses,
    /// The interfaces to enforce on.
    pub interfaces: Vec<At<String>>,
    /// Mode for inbound packets that no row allows.
    pub inbound: Mode,
    /// Mode for outbound packets that no row allows.
    pub outbound: Mode,
    /// Grace period in seconds: mid-flow packets of unknown flows pass after a first attachment.
    pub grace: Option<u32>,
    /// Settings of the attachment.
    pub attach: Attach,
    /// Address where the daemon serves metrics; `None` if it does not.
    pub metrics: Option<At<SocketAddr>>,
    /// Records and journal lines about denied peers.
    pub drops: Drops,
    /// Packet classes.
    pub packets: PacketSettings,
    /// Ages of flows.
    pub flows: FlowAges,
    /// Folders.
    pub paths: Paths,
    /// Members of this group may query the daemon over the control socket; only root may change anything.
    pub control_group: String,
    /// The user or group that may own and write the site and matrix files besides root.
    pub file_owner: Option<At<FileOwner>>,
    /// Modes of rows on this server, which take precedence over the site file: `[[row]]` with `id` and `mode`.
    pub rows: Vec<(At<String>, Mode)>,
}

impl Settings {
    /// Returns true if these settings come from a file.
    #[must_use]
    pub fn has_file(&self) -> bool {
        *self.file != *NO_FILE
    }

    /// Returns the default settings, for commands that only need a site.
    pub fn without_file(site: &Path) -> Self {
        Self {
            file: NO_FILE.into(),
            source: Source { name: NO_FILE.to_owned(), text: String::new() },
            site: site.to_owned(),
            host: None,
            own_addresses: OwnAddresses::default(),
            interfaces: Vec::new(),
            inbound: Mode::Audit,
            outbound: Mode::Track,
            grace: Some(GRACE),
            attach: Attach::default(),
            metrics: None,
            drops: Drops::default(),
            packets: PacketSettings::default(),
            flows: FlowAges::default(),
            paths: Paths::default(),
            control_group: CONTROL_GROUP.to_owned(),
            file_owner: None,
            rows: Vec::new(),
        }
    }

    /// Reads the file at `path`. A process that runs as root refuses a file that another user could change.
    pub fn load(path: &Path) -> Result<Self, Diagnostics> {
        Self::read(&mut Files::of_process(), path)
    }

    /// Reads the file at `path`, and lets `files` decide who may change the file.
    pub fn read(files: &mut Files, path: &Path) -> Result<Self, Diagnostics> {
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        let settings = read(&Text::load(files, path)?, folder)?;
        files.judge_folders(&settings.file, [&settings.paths.state, &settings.paths.runtime])?;
        Ok(settings)
    }

    /// Returns the site file that the settings file names, if at least that much of the file can be read.
    pub fn site_named(files: &mut Files, path: &Path) -> Option<PathBuf> {
        let text = Text::load(files, path).ok()?;
        let parsed = walk::parse(&text).ok()?;
        let mut ignored = Diagnostics::default();
        let site = Table::new(&text, "the file", &parsed).get("site")?.string(&mut ignored)?;
        Some(path.parent().unwrap_or_else(|| Path::new("")).join(site.value))
    }

    /// Parses a text in memory; `name` stands for the file in messages.
    pub fn parse(name: &str, text: &str) -> Result<Self, Diagnostics> {
        read(&Text::check(name.into(), text.as_bytes().to_vec())?, Path::new(""))
    }

    /// Checks that the rows of the matrix that `[[row]]` names exist.
    pub(super) fn check_rows(&self, matrix: &Matrix, faults: &mut Diagnostics) {
        for (id, _) in self.rows.iter().filter(|(id, _)| !id.value.starts_with("site/")) {
            if let Err(Fault { problem, remedy }) = matrix.number(&id.value) {
                faults.add(id.origin.clone(), &id.value, problem, remedy);
            }
        }
    }
}

fn read(text: &Text, folder: &Path) -> Result<Settings, Diagnostics> {
    let parsed = walk::parse(text)?;
    let mut faults = Diagnostics::default();
    let mut top = Table::new(text, "the file", &parsed);

    let site = top.need("site", "\"site.toml\"", &mut faults).and_then(|value| value.string(&mut faults));
    let host = top.get("host").and_then(|value| value.string(&mut faults));
    let interfaces = top
        .need("interfaces", "[\"eth0\"]", &mut faults)
        .map(|value| interfaces(&value, &mut faults))
        .unwrap_or_default();

    let mut settings = Settings {
        file: text.name.clone(),
        source: Source::of(text),
        host,
        interfaces,
        ..Settings::without_file(&folder.join(site.map(|at| at.value).unwrap_or_default()))
    };
    let owns = [("listed", OwnAddresses::Listed), ("machine", OwnAddresses::Machine)];
    set(
        &mut settings.own_addresses,
        top.get("own_addresses").and_then(|value| value.word(&owns, &mut faults)),
    );
    if let Some(mut table) = section(&mut top, "enforcement", "[enforcement]", &mut faults) {
        let inbound = [("audit", Mode::Audit), ("enforce", Mode::Enforce)];
        let outbound = [("track", Mode::Track), ("audit", Mode::Audit), ("enforce", Mode::Enforce)];
        set(&mut settings.inbound, table.get("inbound").and_then(|value| value.word(&inbound, &mut faults)));
        set(
            &mut settings.outbound,
            table.get("outbound").and_then(|value| value.word(&outbound, &mut faults)),
        );
        set(&mut settings.grace, table.get("grace").and_then(|value| value.read(&mut faults, grace)));
        table.finish(&mut faults);
    }
    if let Some(table) = section(&mut top, "attach", "[attach]", &mut faults) {
        settings.attach = attach(table, &mut faults);
    }
    if let Some(mut table) = section(&mut top, "metrics", "[metrics]", &mut faults) {
        if let Some(listen) = table.get("listen").and_then(|value| value.read(&mut faults, listen)) {
            settings.metrics = listen.value.map(|value| At { value, origin: listen.origin });
        }
        table.finish(&mut faults);
    }
    if let Some(mut table) = section(&mut top, "drops", "[drops]", &mut faults) {
        let drops = &mut settings.drops;
        for (key, number, first, last) in [
            ("days", &mut drops.days, 1, 90),
            ("megabytes", &mut drops.megabytes, 1, 1_024),
            ("journal_known", &mut drops.journal_known, 10, 86_400),
            ("journal_strangers", &mut drops.journal_strangers, 0, 1_000),
        ] {
            set(number, table.get(key).and_then(|value| value.number(first, last, &mut faults)));
        }
        table.finish(&mut faults);
    }
    if let Some(table) = section(&mut top, "packets", "[packets]", &mut faults) {
        settings.packets = packets(table, &mut faults);
    }
    if let Some(table) = section(&mut top, "flows", "[flows]", &mut faults) {
        settings.flows = flows(table, &mut faults);
    }
    if let Some(mut table) = section(&mut top, "paths", "[paths]", &mut faults) {
        for (key, path) in [
            ("pins", &mut settings.paths.pins),
            ("state", &mut settings.paths.state),
            ("runtime", &mut settings.paths.runtime),
        ] {
            set(path, table.get(key).and_then(|value| value.read(&mut faults, absolute)));
        }
        table.finish(&mut faults);
    }
    if let Some(mut table) = section(&mut top, "control", "[control]", &mut faults) {
        set(
            &mut settings.control_group,
            table.get("group").and_then(|value| value.read(&mut faults, group_name)),
        );
        table.finish(&mut faults);
    }
    if let Some(mut table) = section(&mut top, "files", "[files]", &mut faults) {
        settings.file_owner = table.get("owner").and_then(|value| value.read(&mut faults, FileOwner::read));
        table.finish(&mut faults);
    }
    for mut table in top.tables("row", "[[row]]", &mut faults) {
        let id = table.need("id", "\"…/1\"", &mut faults).and_then(|value| value.string(&mut faults));
        let words = [("audit", Mode::Audit), ("enforce", Mode::Enforce)];
        let mode =
            table.need("mode", "\"audit\"", &mut faults).and_then(|value| value.word(&words, &mut faults));
        table.finish(&mut faults);
        settings.rows.extend(id.zip(mode).map(|(id, mode)| (id, mode.value)));
    }
    top.finish(&mut faults);
    faults.into_result(settings)
}

fn section<'a>(
    top: &mut Table<'a>,
    key: &'static str,
    name: &'static str,
    faults: &mut Diagnostics,
) -> Option<Table<'a>> {
    top.get(key)?.table(name, faults)
}

fn set<T>(target: &mut T, value: Option<At<T>>) {
    if let Some(at) = value {
        *target = at.value;
    }
}

fn interfaces(value: &Value<'_>, faults: &mut Diagnostics) -> Vec<At<String>> {
    let mut names: Vec<At<String>> = Vec::new();
    for item in value.items(faults) {
        let Some(name) = item.read(faults, interface) else { continue };
        if names.iter().any(|other| other.value == name.value) {
            item.refuse("listed twice", "list each interface once", faults);
        } else {
            names.push(name);
        }
    }
    names
}

fn interface(name: &str) -> Result<String, Fault> {
    let taken = |letter: char| letter.is_ascii_graphic() && !"/:*?[]".contains(letter);
    if name.len() > INTERFACE_NAME || !name.chars().all(taken) || name == "." || name == ".." {
        let remedy =
            format!("write the name that the kernel shows, at most {INTERFACE_NAME} characters, no patterns");
        return Err(Fault::new("no name of an interface", remedy));
    }
    if name == "lo" {
        return Err(Fault::new("the loopback interface is never filtered", "remove it"));
    }
    Ok(name.to_owned())
}

fn listen(written: &str) -> Result<Option<SocketAddr>, Fault> {
    let wrong = |problem: &str| Fault::new(problem, "write \"127.0.0.1:9843\" or \"off\"");
    match written.parse::<SocketAddr>() {
        _ if written == "off" => Ok(None),
        Ok(address) if address.port() == 0 => Err(wrong("port 0 is no port")),
        Ok(address) => Ok(Some(address)),
        Err(_) => Err(wrong("not an address with a port")),
    }
}

fn grace(written: &str) -> Result<Option<u32>, Fault> {
    if written == "off" {
        return Ok(None);
    }
    match seconds(written) {
        Some(seconds @ 1..=LONGEST_GRACE) => Ok(Some(seconds)),
        _ => Err(Fault::new("no such time", "write \"60s\", \"5m\", at most an hour, or \"off\"")),
    }
}

/// Parses a whole number of seconds, minutes, hours or days.
fn seconds(written: &str) -> Option<u32> {
    let (number, unit) = written.split_at_checked(written.len().checked_sub(1)?)?;
    let (_, seconds) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    number.parse::<u32>().ok()?.checked_mul(seconds)
}

/// Writes a time as the file does: in the largest unit that needs no fraction.
#[must_use]
pub fn written(seconds: u32) -> String {
    let fits = |(_, of): &(&str, u32)| seconds != 0 && seconds.is_multiple_of(*of);
    let (unit, of) = UNITS.into_iter().rfind(fits).unwrap_or(UNITS[0]);
    format!("{}{unit}", seconds / of)
}

fn flows(mut table: Table<'_>, faults: &mut Diagnostics) -> FlowAges {
    let mut flows = FlowAges::default();
    for (key, age, least, most) in [
        ("opening", &mut flows.opening, 30, 10 * MINUTE),
        ("established", &mut flows.established, HOUR, 30 * DAY),
        ("closed", &mut flows.closed, 10, 10 * MINUTE),
        ("udp", &mut flows.udp, 30, HOUR),
        ("udp_unanswered", &mut flows.udp_unanswered, 5, 5 * MINUTE),
        ("icmp", &mut flows.icmp, 5, 5 * MINUTE),
    ] {
        let read = |text: &str| match seconds(text) {
            Some(seconds) if (least..=most).contains(&seconds) => Ok(seconds),
            _ => {
                let remedy = format!("write a time from \"{}\" to \"{}\"", written(least), written(most));
                Err(Fault::new(format!("`{key}` is out of range, or no time"), remedy))
            }
        };
        set(age, table.get(key).and_then(|value| value.read(faults, read)));
    }
    table.finish(faults);
    flows
}

fn absolute(written: &str) -> Result<PathBuf, Fault> {
    let path = PathBuf::from(written);
    if path.is_absolute() { Ok(path) } else { Err(Fault::new("a relative path", "write it from / on")) }
}

/// Parses a group name as groupadd(8) accepts it.
fn group_name(written: &str) -> Result<String, Fault> {
    if !is_name(written) {
        return Err(Fault::new("no name of a group", "write one such as \"pomguard\""));
    }
    Ok(written.to_owned())
}

fn attach(mut table: Table<'_>, faults: &mut Diagnostics) -> Attach {
    let modes =
        [("auto", AttachMode::Auto), ("native", AttachMode::Native), ("generic", AttachMode::Generic)];
    let failures = [("stop", OnAttachFailure::Stop), ("continue", OnAttachFailure::Continue)];
    let mut attach = Attach::default();
    set(&mut attach.mode, table.get("mode").and_then(|value| value.word(&modes, faults)));
    let hooks = [("auto", TcMode::Auto), ("clsact", TcMode::Clsact)];
    set(&mut attach.tc, table.get("tc").and_then(|value| value.word(&hooks, faults)));
    let native = table.get("require_native");
    set(&mut attach.require_native, native.and_then(|value| value.boolean(faults)));
    set(
        &mut attach.on_failure,
        table.get("on_attach_failure").and_then(|value| value.word(&failures, faults)),
    );
    let loads = [("closed", Some(OnLoadFailure::Closed)), ("open", Some(OnLoadFailure::Open))];
    set(
        &mut attach.on_load_failure,
        table.get("on_load_failure").and_then(|value| value.word(&loads, faults)),
    );
    if let Some(native) = native.filter(|_| attach.require_native && attach.mode == AttachMode::Generic) {
        native.refuse("generic mode can never be native", "write mode = \"native\", or remove this", faults);
    }
    table.finish(faults);
    attach
}

fn packets(mut table: Table<'_>, faults: &mut Diagnostics) -> PacketSettings {
    let mut packets = PacketSettings::default();
    for (key, knob) in [
        ("vrrp", &mut packets.vrrp),
        ("link_control", &mut packets.link_control),
        ("group_membership", &mut packets.group_membership),
        ("dhcp", &mut packets.dhcp),
        ("echo_v6", &mut packets.echo_v6),
        ("redirects", &mut packets.redirects),
    ] {
        set(knob, table.get(key).and_then(|value| value.boolean(faults)));
    }
    if let Some(value) = table.get("vlans") {
        // Here the empty list is the default: no tagged frame is judged like an untagged one.
        for item in value.list(faults) {
            let Some(id) = item.number(1, 4_094, faults) else { continue };
            packets.vlans.extend(u16::try_from(id.value));
        }
        packets.vlans.sort_unstable();
        packets.vlans.dedup();
    }
    if let Some(mut table) = section(&mut table, "rates", "[packets.rates]", faults) {
        for (key, rate) in [
            ("neighbours", &mut packets.rates.neighbours),
            ("echo_v6", &mut packets.rates.echo_v6),
            ("icmp_errors", &mut packets.rates.icmp_errors),
            ("path_mtu", &mut packets.rates.path_mtu),
        ] {
            set(rate, table.get(key).and_then(|value| value.number(Rates::LEAST, Rates::MOST, faults)));
        }
        table.finish(faults);
    }
    table.finish(faults);
    packets
}
