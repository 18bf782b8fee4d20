//! The monitor of QEMU (QMP): stops, saves and restores the machine, and adds a processor.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use pomguard_netlab::outside::Emulator;
use serde_json::{Value, json};

/// The time after which a command counts as failed: saving writes the memory of the machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// The name of the saved state.
const NAME: &str = "saved";

/// A machine of QEMU.
pub(super) struct Monitor {
    socket: PathBuf,
}

impl Monitor {
    /// Returns the monitor that listens on a socket.
    pub(super) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Runs commands in a session of their own. Returns the last answer.
    fn run(&self, commands: &[Value]) -> Result<Value> {
        let stream = UnixStream::connect(&self.socket).context("the monitor of QEMU")?;
        stream.set_read_timeout(Some(PATIENCE)).context("the monitor of QEMU")?;
        let mut lines = BufReader::new(stream.try_clone().context("the monitor of QEMU")?).lines();
        let mut last = Value::Null;
        for command in [json!({ "execute": "qmp_capabilities" })].iter().chain(commands) {
            writeln!(&stream, "{command}").context("the monitor of QEMU")?;
            last = loop {
                let line = lines.next().context("QEMU closed its monitor")?.context("the monitor of QEMU")?;
                let answer: Value = serde_json::from_str(&line).context("the monitor of QEMU")?;
                if let Some(error) = answer.get("error") {
                    bail!("QEMU refuses {command}: {error}");
                }
                // Anything else is the greeting or an event.
                if let Some(answer) = answer.get("return") {
                    break answer.clone();
                }
            };
        }
        Ok(last)
    }

    /// Runs a command that only the monitor for people has. Such a command says what went wrong.
    fn run_for_people(&self, command: &str) -> Result<()> {
        let said = self.run(&[
            json!({ "execute": "human-monitor-command", "arguments": { "command-line": command } }),
        ])?;
        match said.as_str() {
            Some("") => Ok(()),
            said => bail!("QEMU says to `{command}`: {}", said.unwrap_or("nothing").trim()),
        }
    }
}

impl Emulator for Monitor {
    fn pause(&self, time: Duration) -> Result<()> {
        self.run(&[json!({ "execute": "stop" })])?;
        thread::sleep(time);
        self.run(&[json!({ "execute": "cont" })]).map(drop)
    }

    fn save(&self) -> Result<()> {
        self.run_for_people(&format!("savevm {NAME}"))
    }

    fn restore(&self) -> Result<()> {
        self.run_for_people(&format!("loadvm {NAME}"))
    }

    fn plug(&self) -> Result<()> {
        let sockets = self.run(&[json!({ "execute": "query-hotpluggable-cpus" })])?;
        let free = |it: &&Value| it.get("qom-path").is_none();
        // The last entries come first in the list.
        let socket =
            sockets.as_array().and_then(|all| all.iter().rfind(free)).context("no room for a processor")?;
        let mut arguments = socket["props"].clone();
        arguments["driver"] = socket["type"].clone();
        arguments["id"] = json!("plugged");
        self.run(&[json!({ "execute": "device_add", "arguments": arguments })]).map(drop)
    }
}
