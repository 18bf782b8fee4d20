//! A pomguard that enforces a given policy.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use pomguard_netlab::{Namespace, Port, Switch};

use super::{
    Setting,
    policy::{HOST, NAME},
};
use pomguard_netlab::daemon::Daemon;

/// The guarded interface.
pub(super) const INTERFACE: &str = "eth0";

/// Address of the metrics page, on the guard's own host.
pub(super) const METRICS: &str = "127.0.0.1:9843";

/// The settings of a pomguard. Outbound is always enforced.
pub(super) struct Order<'a> {
    /// Name of the pomguard's folders.
    pub(super) name: &'a str,
    /// Content of the site file.
    pub(super) site: &'a str,
    /// `audit` or `enforce`.
    pub(super) inbound: &'a str,
    /// `native` or `generic`.
    pub(super) attach: &'a str,
}

impl<'a> Order<'a> {
    /// Returns settings that enforce a site file in native mode.
    pub(super) const fn enforce(name: &'a str, site: &'a str) -> Self {
        Self { name, site, inbound: "enforce", attach: "native" }
    }
}

/// A running daemon on a host.
pub(super) struct Guard {
    /// The folder of the daemon's pins.
    pub(super) pins: PathBuf,
    /// The daemon's settings.
    pub(super) config: PathBuf,
    // Declared first: the daemon ends before its namespace.
    daemon: Daemon,
    site_file: PathBuf,
    _host: Option<(Namespace, Switch)>,
}

impl Guard {
    /// Starts pomguard on a new host.
    pub(super) fn start(setting: &Setting, order: &Order<'_>) -> Result<Self> {
        let (switch, namespace) = (Switch::new("switch")?, Namespace::new(order.name)?);
        let port = Port::new(INTERFACE).address(IpNet::new(HOST[0], 16)?).address(IpNet::new(HOST[1], 64)?);
        switch.join(&namespace, &port)?;
        let guard = Self::on(setting, &namespace, INTERFACE, order)?;
        Ok(Self { _host: Some((namespace, switch)), ..guard })
    }

    /// Starts pomguard on an existing host that has an interface of this name.
    pub(super) fn on(
        setting: &Setting,
        namespace: &Namespace,
        interface: &str,
        order: &Order<'_>,
    ) -> Result<Self> {
        let Order { name, site, inbound, attach } = order;
        let folder = setting.sandbox.files.join(name);
        let pins = setting.sandbox.pins.join(name);
        let [state, runtime] = ["state", "runtime"].map(|part| folder.join(part));
        for folder in [&state, &runtime] {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        let site_file = folder.join("site.toml");
        fs::write(&site_file, site).context("writing site.toml")?;
        let config = folder.join("pomguard.toml");
        let [at_pins, state, runtime] = [&pins, &state, &runtime].map(|path| path.display());
        let text = format!(
            r#"site = "site.toml"
host = "{NAME}"
interfaces = ["{interface}"]

[enforcement]
inbound = "{inbound}"
outbound = "enforce"

[attach]
mode = "{attach}"

[metrics]
listen = "{METRICS}"

[paths]
pins = "{at_pins}"
state = "{state}"
runtime = "{runtime}"
"#
        );
        fs::write(&config, text).with_context(|| config.display().to_string())?;
        let mut daemon = Daemon::start(&setting.binary, namespace, &config)?;
        daemon.wait_ready()?;
        Ok(Self { pins, config, daemon, site_file, _host: None })
    }

    /// Puts another site file in force.
    pub(super) fn replace(&mut self, site: &str) -> Result<()> {
        fs::write(&self.site_file, site).context("writing site.toml")?;
        self.daemon.reload()
    }

    /// Returns the daemon's process id.
    pub(super) fn process(&self) -> u32 {
        self.daemon.process()
    }

    /// Fails with the end of the log if the daemon has ended.
    pub(super) fn check_alive(&mut self) -> Result<()> {
        self.daemon.check_alive()
    }
}
