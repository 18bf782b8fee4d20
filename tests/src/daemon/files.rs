//! The files that an operator writes: the site file and the server's settings.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::{INTERFACE, Lab, binary};

/// The port of the daemon's metrics page on the loopback address of the server's namespace.
pub(super) const METRICS: u16 = 9843;
const METRICS_AT: &str = "127.0.0.1:9843";

/// The settings of `pomguard.toml` that a test may choose.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// `[enforcement] inbound`.
    pub inbound: &'static str,
    /// `[enforcement] outbound`.
    pub outbound: &'static str,
    /// `[attach] mode`.
    pub attach: &'static str,
    /// `[attach] tc`.
    pub tc: &'static str,
    /// `[enforcement] grace`.
    pub grace: &'static str,
    /// `[metrics] listen`.
    pub metrics: &'static str,
    /// `interfaces`.
    pub interfaces: &'static [&'static str],
    /// `[control] group`.
    pub control_group: &'static str,
}

impl Settings {
    /// The settings of a new installation: audit, and no metrics page.
    pub const AUDIT: Self = Self {
        inbound: "audit",
        outbound: "track",
        attach: "auto",
        tc: "auto",
        grace: "off",
        metrics: "off",
        interfaces: &[INTERFACE],
        control_group: "pomguard",
    };
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            inbound: "enforce",
            outbound: "enforce",
            attach: "auto",
            tc: "auto",
            grace: "off",
            metrics: METRICS_AT,
            interfaces: &[INTERFACE],
            control_group: "pomguard",
        }
    }
}

impl Lab {
    /// Returns the settings file.
    pub fn config(&self) -> PathBuf {
        self.file("pomguard.toml")
    }

    /// Returns the path of the daemon's lock file.
    pub fn lock(&self) -> PathBuf {
        self.file("runtime/pomguard.lock")
    }

    /// Returns the folder of the daemon's state, which survives a reboot.
    pub fn state(&self) -> PathBuf {
        self.file("state")
    }

    /// Returns the folder of the daemon's socket and locks.
    pub fn runtime(&self) -> PathBuf {
        self.file("runtime")
    }

    /// Returns the site file.
    pub fn site(&self) -> PathBuf {
        self.file("site.toml")
    }

    /// Lets every user read the files and reach the control socket.
    pub fn let_others_in(&self) {
        fs::set_permissions(self.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Returns the path of a copy of the daemon's binary that every user can run. Makes the copy on the first
    /// call.
    pub fn public_binary(&self) -> PathBuf {
        let copy = self.file("pomguard");
        if !copy.exists() {
            fs::copy(binary(), &copy).unwrap();
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
        }
        copy
    }

    /// Returns the path of a file in the folder that holds the settings, the daemon's state and its logs.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the site file: the server's Agent Manager, the peer's systems, and `more`.
    pub fn write_site(&self, more: &str) {
        let text = format!(
            r#"matrix = "pom-4.0"
zones = 1

[[host]]
name = "server"
addresses = ["10.77.0.1", "fd00:77::1"]
systems = ["Agent Manager"]

[[peer]]
addresses = ["10.77.0.2", "fd00:77::2"]
systems = ["Agent Desktop", "WFO", "AES"]

{more}
"#
        );
        write(&self.file("site.toml"), &text);
    }

    /// Writes the settings file.
    pub fn write_settings(&self, settings: &Settings) {
        let Settings { inbound, outbound, attach, tc, grace, metrics, interfaces, control_group } = settings;
        let [state, runtime] = ["state", "runtime"].map(|folder| self.file(folder));
        let [pins, state, runtime] = [self.pins(), &state, &runtime].map(Path::display);
        let text = format!(
            r#"site = "site.toml"
host = "server"
interfaces = {interfaces:?}

[enforcement]
inbound = "{inbound}"
outbound = "{outbound}"
grace = "{grace}"

[attach]
mode = "{attach}"
tc = "{tc}"

[metrics]
listen = "{metrics}"

[control]
group = "{control_group}"

[paths]
pins = "{pins}"
state = "{state}"
runtime = "{runtime}"
"#
        );
        write(&self.config(), &text);
    }
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}
