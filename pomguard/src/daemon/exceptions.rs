//! Timed exceptions: what an operator lets through for a while, in every generation. The programs end
//! each by themselves; the daemon brings them back after a reboot and tidies up after them.

use std::io;

use anyhow::{Context as _, anyhow, bail};
use ipnet::IpNet;
use log::{error, info, warn};
use pomguard_common::control::{Override, over};

use super::{Daemon, change::boot_id};
use crate::{
    compile::lines_of,
    control::protocol::Allowed,
    history::By,
    input::site::plain_name,
    kernel::{clock::unix_now, control},
    observe::condition::Condition,
    policy::{Direction, Mode, Origin, Peer, PortRange, Row, RowId, Service},
    render::quantity::duration,
    state::exceptions::{self, Exception},
};

/// Longest exception: thirty days. What is to last longer is a row of the site.
const LONGEST: u32 = 30 * 86_400;

/// What is to be let through.
pub(super) struct NewException {
    pub(super) name: Option<String>,
    pub(super) direction: Direction,
    pub(super) peers: Vec<IpNet>,
    pub(super) services: Vec<Service>,
    pub(super) seconds: u32,
    pub(super) by: By,
    pub(super) why: Option<String>,
}

impl Daemon {
    /// Lets something through for a while.
    pub(super) fn allow(&mut self, new_exception: NewException) -> anyhow::Result<Allowed> {
        let NewException { name, direction, peers, services, seconds, by, why } = new_exception;
        if seconds == 0 || seconds > LONGEST {
            let longest = duration(LONGEST.into());
            bail!("an exception lasts from one second to {longest}: what is to last longer is an [[allow]]");
        }
        if peers.is_empty() || services.is_empty() {
            bail!("an exception names at least one address and one service: empty never means any");
        }
        if let Some(whole) = peers.iter().find(|peer| peer.prefix_len() == 0) {
            bail!("{whole} is every address there is: `pomguard bypass` is for that");
        }
        let name = match name {
            Some(name) => plain_name(&name).map_err(|error| anyhow!("{name}: {error}"))?,
            None => self.free_name(),
        };
        if self.exceptions.iter().any(|held| held.name == name) {
            bail!(
                "there is an exception {name} already: `pomguard revoke {name}` first, or give another --name"
            );
        }
        let exception = Exception {
            name: name.clone(),
            direction,
            peers,
            services,
            granted: unix_now(),
            seconds,
            boot: boot_id().context("read the boot's id")?,
            deadline: self.ticks.deadline(seconds)?,
            by,
            why,
        };
        let _entitled = self.entitled()?;
        self.let_in(&exception)?;
        self.reconciler.record_baseline(&self.pins);
        warn!("exception/{name} for {}", duration(seconds.into()));
        let ends = exception.granted + u64::from(seconds);
        self.exceptions.push(exception);
        self.save_exceptions();
        Ok(Allowed { name, ends })
    }

    /// Takes an exception back. Returns a sentence about it.
    pub(super) fn revoke(&mut self, name: &str) -> anyhow::Result<String> {
        let Some(at) = self.exceptions.iter().position(|held| held.name == name) else {
            bail!("there is no exception {name}: `pomguard allow --list` shows those there are");
        };
        let _entitled = self.entitled()?;
        let exception = self.exceptions.remove(at);
        self.end(&exception)?;
        self.reconciler.record_baseline(&self.pins);
        self.save_exceptions();
        let message = format!("exception/{name} is over");
        warn!("{message}");
        Ok(message)
    }

    /// Brings those on disk back that have time left; to be called when the maps are there, before a packet
    /// is judged.
    pub(super) fn restore_exceptions(&mut self) -> anyhow::Result<()> {
        let found = match exceptions::load(&self.settings.paths.state) {
            Ok(found) => found,
            Err(error) => {
                let message =
                    format!("exceptions.json: {error}; exceptions in the kernel go on, others are lost");
                error!("{message}");
                self.lasting_conditions.insert(Condition::StateUnreadable, message);
                return Ok(());
            }
        };
        let boot = boot_id().context("read the boot's id")?;
        let now = self.ticks.now()? as u32;
        for mut exception in found {
            if exception.boot != boot {
                let left = exception.left_after_reboot(unix_now());
                exception.deadline = if left == 0 { now.max(1) } else { self.ticks.deadline(left)? };
                exception.boot.clone_from(&boot);
            }
            if over(exception.deadline, now) {
                info!("exception/{} is over", exception.name);
            } else if let Err(error) = self.let_in(&exception) {
                error!("exception/{} is lost: {error:#}", exception.name);
            } else {
                self.exceptions.push(exception);
            }
        }
        control::sweep(&self.pins, now).context("end the exceptions whose time is up")?;
        Ok(())
    }

    /// Ends those whose time is up. They held no more in any case.
    pub(super) fn sweep_exceptions(&mut self) {
        let Ok(now) = self.ticks.now().map(|now| now as u32) else { return };
        if !self.exceptions.iter().any(|held| over(held.deadline, now)) {
            return;
        }
        let Ok(_entitled) = self.entitled() else { return };
        self.exceptions.retain(|held| {
            let ended = over(held.deadline, now);
            if ended {
                warn!("exception/{} is over: its time is up", held.name);
            }
            !ended
        });
        if let Err(error) = control::sweep(&self.pins, now) {
            error!("exceptions whose time is up keep their places: {:#}", anyhow!(error));
        }
        self.reconciler.record_baseline(&self.pins);
        self.save_exceptions();
    }

    fn let_in(&self, exception: &Exception) -> anyhow::Result<()> {
        let row = row(exception);
        let (label, lines) = lines_of(&row, exception.deadline);
        control::allow(&self.pins, &label, &lines).context("let the exception in")?;
        Ok(())
    }

    fn end(&self, exception: &Exception) -> anyhow::Result<()> {
        let row = row(exception);
        let (_, lines) = lines_of(&row, exception.deadline);
        // The slot is the kernel side's to choose; all else is as it was let in.
        let same = |held: &Override| {
            lines.iter().any(|line| {
                Override { row: held.row, marks: line.marks | Override::EXCEPTION, ..*line } == *held
            })
        };
        control::revoke(&self.pins, same).context("end the exception")?;
        Ok(())
    }

    fn free_name(&self) -> String {
        let taken = |number: &usize| self.exceptions.iter().any(|held| held.name == number.to_string());
        (1..=self.exceptions.len() + 1).find(|number| !taken(number)).unwrap_or_default().to_string()
    }

    fn save_exceptions(&mut self) {
        let saved: io::Result<()> = exceptions::save(&self.settings.paths.state, &self.exceptions);
        if let Err(error) = saved {
            error!("exceptions hold, but a reboot will forget them: {error}");
        }
    }
}

/// An exception in the form of a row.
fn row(exception: &Exception) -> Row {
    let origin = Origin { file: "exception".into(), line: 1 };
    let peer =
        |prefix: &IpNet| Peer { prefix: *prefix, name: prefix.to_string().into(), origin: origin.clone() };
    let others = exception.peers.iter().map(|peer| peer.to_string().into()).collect();
    let here = vec!["this server".into()];
    let (source, destination) = match exception.direction {
        Direction::Inbound => (others, here),
        Direction::Outbound => (here, others),
    };
    Row {
        id: RowId(format!("exception/{}", exception.name)),
        direction: exception.direction,
        source,
        destination,
        printed: String::new(),
        protocol: String::new(),
        peers: exception.peers.iter().map(peer).collect(),
        client_ports: PortRange::ANY,
        services: exception.services.clone(),
        mode: Mode::Enforce,
        failsafe: false,
        purpose: exception.why.clone().unwrap_or_default(),
        origin: origin.clone(),
    }
}
