//! A pomguard that enforces a policy of ours.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use pomguard_netlab::{Namespace, Port, Switch};

use super::{
    Setting,
    policy::{HOST, NAME},
};
use crate::lab::daemon::Daemon;

/// The interface that it guards.
pub(super) const INTERFACE: &str = "eth0";

/// Where it serves its metrics, on its own host.
pub(super) const METRICS: &str = "127.0.0.1:9843";

/// How pomguard is to be run. Outbound it enforces.
pub(super) struct Order<'a> {
    /// Of its folders.
    pub(super) name: &'a str,
    /// The site file.
    pub(super) site: &'a str,
    /// `audit` or `enforce`.
    pub(super) inbound: &'a str,
    /// `native` or `generic`.
    pub(super) attach: &'a str,
}

impl<'a> Order<'a> {
    /// To enforce a site file in native mode.
    pub(super) const fn enforce(name: &'a str, site: &'a str) -> Self {
        Self { name, site, inbound: "enforce", attach: "native" }
    }
}

/// A running daemon on a host of its own.
pub(super) struct Guard {
    /// Below which it pins.
    pub(super) pins: PathBuf,
    /// The daemon's settings.
    pub(super) config: PathBuf,
    // The daemon ends before what it runs in.
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

    /// As the other, on a host that is there and has an interface of this name.
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

    /// The daemon's process.
    pub(super) fn process(&self) -> u32 {
        self.daemon.process()
    }

    /// Fails with the end of the log when the daemon has ended.
    pub(super) fn check_alive(&mut self) -> Result<()> {
        self.daemon.check_alive()
    }
}
