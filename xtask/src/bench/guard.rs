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

/// A running daemon on a host of its own.
pub(super) struct Guard {
    /// Below which it pins.
    pub(super) pins: PathBuf,
    // The daemon ends before what it runs in.
    daemon: Daemon,
    _namespace: Namespace,
    _switch: Switch,
}

impl Guard {
    /// Starts pomguard with a site file, inbound in this mode (`audit`, `enforce`); outbound enforces.
    pub(super) fn start(setting: &Setting, name: &str, site: &str, inbound: &str) -> Result<Self> {
        let folder = setting.sandbox.files.join(name);
        let pins = setting.sandbox.pins.join(name);
        let [state, runtime] = ["state", "runtime"].map(|part| folder.join(part));
        for folder in [&state, &runtime] {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        fs::write(folder.join("site.toml"), site).context("writing site.toml")?;
        let config = folder.join("pomguard.toml");
        let [at_pins, state, runtime] = [&pins, &state, &runtime].map(|path| path.display());
        let text = format!(
            r#"site = "site.toml"
host = "{NAME}"
interfaces = ["{INTERFACE}"]

[enforcement]
inbound = "{inbound}"
outbound = "enforce"

[metrics]
listen = "off"

[paths]
pins = "{at_pins}"
state = "{state}"
runtime = "{runtime}"
"#
        );
        fs::write(&config, text).with_context(|| config.display().to_string())?;
        let (switch, namespace) = (Switch::new("switch")?, Namespace::new(name)?);
        let port = Port::new(INTERFACE).address(IpNet::new(HOST[0], 16)?).address(IpNet::new(HOST[1], 64)?);
        switch.join(&namespace, &port)?;
        let mut daemon = Daemon::start(&setting.binary, &namespace, &config)?;
        daemon.wait_ready()?;
        Ok(Self { pins, daemon, _namespace: namespace, _switch: switch })
    }

    /// Fails with the end of the log when the daemon has ended.
    pub(super) fn check_alive(&mut self) -> Result<()> {
        self.daemon.check_alive()
    }
}
