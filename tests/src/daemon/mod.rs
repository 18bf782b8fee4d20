//! A guarded server, a peer that the site file knows and a stranger that the site file does not know, each in
//! a network namespace of its own, and a real `pomguard` on the server.
//!
//! The daemon pins its objects in a bpffs that only the test's thread and its children see. That bpffs ends
//! with them, and two tests never meet.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a fixture panics where a test would: the place is what one wants to know"
)]

use std::{
    env,
    ffi::OsStr,
    fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use ipnet::IpNet;
use nix::mount::{MntFlags, umount2};
use pomguard_netlab::{
    Namespace, Port, Station, Switch, Veth, root_or_skip,
    sandbox::{BPFFS, own_bpffs},
};

mod files;
mod pinned;
mod process;
mod promise;
mod stats;
mod terminal;
mod traffic;
mod wire;

pub use self::{
    files::Settings,
    pinned::Pinned,
    process::Daemon,
    promise::{MENDED, TABLES_MENDED},
    stats::Stats,
    terminal::{Terminal, on_terminal},
    traffic::{Connection, is_shut, opens, scrape},
    wire::{Claim, Wire, pings},
};

/// The interface that every machine has.
pub const INTERFACE: &str = "eth0";
/// The guarded server.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// IPv6 address of the guarded server.
pub const SERVER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 1);
/// The machine that the site file knows.
pub const PEER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// IPv6 address of the machine that the site file knows.
pub const PEER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 2);
/// The machine that the site file does not know.
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);
/// IPv6 address of the machine that the site file does not know.
pub const STRANGER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 3);

/// A port of row 15, which the peer's Agent Desktops open at the server's Agent Manager.
pub const LISTED: u16 = 9970;
/// A port of row 16, for the WFO on the peer. A test may take the row out.
pub const REMOVABLE: u16 = 7999;
/// A port that no row lists.
pub const UNLISTED: u16 = 9000;
/// An outbound port of row 6, which the server's Agent Manager opens at the AES on the peer.
pub const LISTED_OUT: u16 = 443;

/// Returns true if this machine is emulated, where code runs about twenty times slower.
pub fn emulated() -> bool {
    env::var_os("POMGUARD_EMULATED").is_some()
}

/// Returns `seconds` as a duration, eight times as long in emulation.
pub(crate) fn patience(seconds: u64) -> Duration {
    Duration::from_secs(if emulated() { 8 * seconds } else { seconds })
}

/// The guarded server and the two machines around it.
#[derive(Debug)]
pub struct Lab {
    // Declared first: stations end before the namespaces they are in.
    stations: Vec<Station>,
    /// The namespace in which pomguard runs.
    pub server: Namespace,
    /// The machine that the site file knows.
    pub peer: Namespace,
    /// The machine that the site file does not know.
    pub stranger: Namespace,
    _switch: Option<Switch>,
    folder: tempfile::TempDir,
    pins: PathBuf,
    _bpffs: Bpffs,
}

impl Lab {
    /// Builds all three machines on one switch. Returns `None`, after a message, if the test cannot run:
    /// without root, and in emulation unless the name of the test begins with `basic_`.
    pub fn new(test: &str) -> Option<Self> {
        Self::build(test, Namespace::new, |hosts| {
            let switch = Switch::new("switch").unwrap();
            let addresses = [(SERVER, SERVER6), (PEER, PEER6), (STRANGER, STRANGER6)];
            for (host, (v4, v6)) in hosts.iter().zip(addresses) {
                switch.join(host, &port(v4, v6)).unwrap();
            }
            Some(switch)
        })
    }

    /// Connects server and peer with one cable. A frame that one end sends reaches the other end and nobody
    /// else.
    pub fn with_one_cable(test: &str) -> Option<Self> {
        Self::build(test, Namespace::new, |[server, peer, _]| {
            let (near, far) = (port(SERVER, SERVER6), port(PEER, PEER6));
            Veth::connect((server, &near), (peer, &far)).unwrap();
            None
        })
    }

    /// Makes this whole machine the server, without a cable to anybody. For an emulated machine that belongs
    /// to the test; the test's name must begin with `basic_`.
    pub fn in_guest(test: &str) -> Option<Self> {
        Self::build(test, Namespace::own, |_| None)
    }

    /// Removes the cable of a laboratory with one cable, and with it the interfaces at both ends.
    pub fn unplug(&self) {
        self.server.link(INTERFACE).delete().unwrap();
    }

    /// Connects a new cable: new interfaces with the same names and addresses.
    pub fn plug(&self) {
        let (near, far) = (port(SERVER, SERVER6), port(PEER, PEER6));
        Veth::connect((&self.server, &near), (&self.peer, &far)).unwrap();
    }

    /// Restores the addresses that an interface of the server has lost, and sets the interface up.
    pub fn dress(&self, name: &str) {
        let link = self.server.link(name);
        for (address, length) in [(IpAddr::from(SERVER), 24), (SERVER6.into(), 64)] {
            // The kernel refuses an address that the interface still has.
            let _ = link.add_address(IpNet::new(address, length).unwrap());
        }
        link.up().unwrap();
    }

    fn build(
        test: &str,
        server: fn(&str) -> anyhow::Result<Namespace>,
        connect: impl FnOnce(&[Namespace; 3]) -> Option<Switch>,
    ) -> Option<Self> {
        if !root_or_skip(test) {
            return None;
        }
        if emulated() && !test.starts_with("basic_") {
            let _ = writeln!(std::io::stderr(), "skipped: {test}: too long in emulation");
            return None;
        }
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let bpffs = Bpffs::mount();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let pins = Path::new(BPFFS).join(format!("pomguard-test-{}-{number}", std::process::id()));
        let [peer, stranger] = ["peer", "stranger"].map(|name| Namespace::new(name).unwrap());
        let hosts = [server("server").unwrap(), peer, stranger];
        let switch = connect(&hosts);
        let [server, peer, stranger] = hosts;
        let mut lab = Self {
            stations: Vec::new(),
            server,
            peer,
            stranger,
            _switch: switch,
            folder: tempfile::tempdir().unwrap(),
            pins,
            _bpffs: bpffs,
        };
        lab.write_site("");
        lab.write_settings(&Settings::default());
        lab.serve();
        Some(lab)
    }

    /// Runs a pomguard command on the server, with the daemon's settings.
    pub fn pomguard<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Output {
        self.pomguard_command(arguments).output().unwrap()
    }

    /// Returns the command that `pomguard` would run.
    pub fn pomguard_command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let (verb, rest) = arguments.split_first().expect("a verb");
        let mut command = self.command(binary());
        command.arg(verb).arg("--config").arg(self.config()).args(rest);
        command
    }

    /// Reads the counters from `pomguard stats --json`.
    pub fn stats(&self) -> Stats {
        let output = self.pomguard(&["stats", "--json"]);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "stats: {}: {complaint}", output.status);
        Stats::parse(&output.stdout)
    }

    /// Reads the daemon's metrics page.
    pub fn metrics(&self) -> String {
        self.server.run(scrape).unwrap()
    }

    /// Reads the daemon's metrics page. Returns `None` if nothing listens at its port.
    pub fn try_metrics(&self) -> Option<String> {
        let at = (Ipv4Addr::LOCALHOST, files::METRICS);
        self.server.run(|| std::net::TcpStream::connect(at)).unwrap().ok()?;
        Some(self.metrics())
    }

    /// Returns the folder that the daemon pins under.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// Returns the sorted paths of all pins: the entries of each subfolder of the folder of pins.
    pub fn pinned(&self) -> Vec<PathBuf> {
        let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
        let mut found: Vec<PathBuf> =
            entries(&self.pins).flat_map(|entry| entries(&entry.path())).map(|entry| entry.path()).collect();
        found.sort();
        found
    }

    /// Returns the id of the XDP program on an interface of the server.
    pub fn xdp_program(&self) -> Option<u32> {
        let index = self.server.link(INTERFACE).index().unwrap();
        let state = self.server.run(|| pomguard::kernel::interface::xdp(index)).unwrap().unwrap();
        state.map(|state| state.program)
    }

    /// Keeps a station running as long as the laboratory exists.
    pub(crate) fn keep(&mut self, station: Station) {
        self.stations.push(station);
    }

    /// Returns a command that runs on the server with an empty standard input.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.server.command(program).unwrap();
        command.stdin(Stdio::null());
        command
    }
}

fn port(v4: Ipv4Addr, v6: Ipv6Addr) -> Port {
    let on_link = |address: IpAddr, length| IpNet::new(address, length).unwrap();
    Port::new(INTERFACE).address(on_link(v4.into(), 24)).address(on_link(v6.into(), 64))
}

/// Returns the path of the daemon's binary: `POMGUARD_BIN`, or else the binary alongside the tests.
pub fn binary() -> PathBuf {
    if let Some(binary) = env::var_os("POMGUARD_BIN") {
        return binary.into();
    }
    let own = env::current_exe().unwrap();
    let binary = own.parent().and_then(Path::parent).unwrap().join("pomguard");
    assert!(
        binary.is_file(),
        "no {}: `cargo build --package pomguard`, or set POMGUARD_BIN",
        binary.display()
    );
    binary
}

/// A bpffs for this thread and its children.
#[derive(Debug)]
struct Bpffs;

impl Bpffs {
    fn mount() -> Self {
        own_bpffs().unwrap();
        Self
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        // The thread may be the process' main thread and live on.
        let _ = umount2(BPFFS, MntFlags::MNT_DETACH);
    }
}
