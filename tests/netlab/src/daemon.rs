//! A real `pomguard run` on one machine.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Child,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{NOTIFY_SOCKET, Namespace, Notify};

/// The longest time from the start to READY.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// The longest time from SIGTERM to the end.
const STOPPED_WITHIN: Duration = Duration::from_secs(5);

/// A running daemon. Dropping it stops the process.
pub struct Daemon {
    host: String,
    child: Child,
    log: PathBuf,
    notify: Notify,
}

impl Daemon {
    /// Starts the daemon with a configuration file. The calling thread must outlive the daemon.
    pub fn start(binary: &Path, namespace: &Namespace, config: &Path) -> Result<Self> {
        let log = config.with_file_name("log");
        let notify = Notify::bind(&config.with_file_name("notify"))?;
        let output = File::create(&log).with_context(|| log.display().to_string())?;
        let child = namespace
            .command(binary)?
            .arg("run")
            .arg("--config")
            .arg(config)
            .env(NOTIFY_SOCKET, notify.path())
            .stdin(std::process::Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        Ok(Self { host: namespace.name().to_owned(), child, log, notify })
    }

    /// Waits for the daemon's report that the policy is enforced.
    pub fn wait_ready(&mut self) -> Result<()> {
        self.hear_ready().map(drop)
    }

    /// Makes the daemon read its files again, and waits until they are in force.
    pub fn reload(&mut self) -> Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGHUP).context("SIGHUP")?;
        let said = self.hear_ready()?;
        if said.contains("refused") {
            bail!("pomguard on {} refused the reload; its log ends:\n{}", self.host, self.tail());
        }
        Ok(())
    }

    /// Returns the daemon's process id.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the message that reports readiness and returns the whole message.
    fn hear_ready(&mut self) -> Result<String> {
        let until = Instant::now() + READY_WITHIN;
        while Instant::now() < until {
            self.check_alive()?;
            if let Some(said) = self.notify.next()?
                && said.lines().any(|line| line == "READY=1")
            {
                return Ok(said);
            }
        }
        bail!(
            "pomguard on {} is not ready after {READY_WITHIN:?}; its log ends:\n{}",
            self.host,
            self.tail()
        );
    }

    /// Fails with the end of the log if the daemon has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("pomguard on {} ended ({status}); its log ends:\n{}", self.host, self.tail());
        }
        Ok(())
    }

    fn tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        format!("    {}", lines[lines.len().saturating_sub(20)..].join("\n    "))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        let until = Instant::now() + STOPPED_WITHIN;
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
