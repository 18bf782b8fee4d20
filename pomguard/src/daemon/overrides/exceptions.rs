//! Timed exceptions: connections that an operator allows for a limited time, in every generation. The
//! programs end each exception by themselves; the daemon restores the exceptions after a reboot and removes
//! ended ones.

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use ipnet::IpNet;
use log::{error, info, warn};
use pomguard_common::control::{Override, over};

use super::{
    Overrides,
    emergency::{Asker, Scene},
    scene,
};
use crate::{
    compile::lines_of,
    control::protocol::Allowed,
    daemon::context::{Context, boot_id},
    input::site::plain_name,
    kernel::{clock::unix_now, control, pins::Pins},
    observe::status::Status,
    policy::{Direction, Service},
    render::quantity::duration,
    state::{
        exceptions::{self, Exception},
        suspension::Suspension,
    },
};

/// The longest exception, in seconds: thirty days. A longer one has to be a row of the site.
const LONGEST: u32 = 30 * 86_400;

/// The interval at which the exceptions on disk are compared with those that hold.
const COMPARE: Duration = Duration::from_secs(5);

/// The exception that is asked for.
#[derive(Clone, Debug)]
pub struct NewException {
    /// The name of the exception; `None` for the first free number.
    pub name: Option<String>,
    /// The direction in which connections are opened.
    pub direction: Direction,
    /// The addresses of the peers.
    pub peers: Vec<IpNet>,
    /// The services that are opened.
    pub services: Vec<Service>,
    /// The duration in seconds.
    pub seconds: u32,
    /// The person who asks, and the reason.
    pub asker: Asker,
}

impl Scene {
    /// Adds an exception; `held` are the exceptions that hold.
    ///
    /// # Errors
    /// If the exception is not valid, or there is no room; then nothing was changed.
    pub fn allow(&self, held: &mut Vec<Exception>, new_exception: NewException) -> anyhow::Result<Allowed> {
        let NewException { name, direction, peers, services, seconds, asker } = new_exception;
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
            None => free_name(held),
        };
        if held.iter().any(|held| held.name == name) {
            bail!(
                "there is an exception {name} already: `pomguard revoke {name}` first, or give another --name"
            );
        }
        self.check_attached()?;
        let exception = Exception {
            name: name.clone(),
            direction,
            peers,
            services,
            granted: unix_now(),
            seconds,
            boot: boot_id().context("read the boot's id")?,
            deadline: self.ticks.deadline(seconds)?,
            by: asker.by.clone(),
            why: asker.why.clone(),
        };
        let ends = exception.granted + u64::from(seconds);
        held.push(exception.clone());
        self.save(held);
        if let Err(error) = let_in(&self.pins, &exception) {
            held.retain(|held| held.name != name);
            self.save(held);
            return Err(error);
        }
        let message = format!("exception/{name} for {}", duration(seconds.into()));
        warn!("{message}");
        self.note("allow", &message, &asker);
        Ok(Allowed { name, ends })
    }

    /// Revokes an exception. Returns a sentence about the end.
    ///
    /// # Errors
    /// If there is no exception of this name, or the maps cannot be written; then the exception holds as
    /// before.
    pub fn revoke(&self, held: &mut Vec<Exception>, name: &str, asker: &Asker) -> anyhow::Result<String> {
        let Some(at) = held.iter().position(|held| held.name == name) else {
            bail!("there is no exception {name}: `pomguard allow --list` shows those there are");
        };
        self.check_attached()?;
        let exception = held.remove(at);
        self.save(held);
        if let Err(error) = end(&self.pins, &exception) {
            held.insert(at, exception);
            self.save(held);
            return Err(error);
        }
        let message = format!("exception/{name} is over");
        warn!("{message}");
        self.note("revoke", &message, asker);
        Ok(message)
    }

    /// Returns the exceptions on disk that hold, for a caller without a daemon.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn exceptions(&self) -> anyhow::Result<Vec<Exception>> {
        let (boot, now) = (boot_id().context("read the boot's id")?, self.ticks.now()? as u32);
        let mut found = exceptions::load(&self.state).context("read the exceptions on disk")?;
        found.retain(|held| held.boot != boot || !over(held.deadline, now));
        Ok(found)
    }

    /// Writes the exceptions to disk. In an emergency a failed write is no reason to stop.
    pub(super) fn save(&self, held: &[Exception]) {
        if let Err(error) = exceptions::save(&self.state, held) {
            error!("a start goes by the exceptions on disk, which are not those that hold: {error}");
        }
    }
}

/// Adds to a status who granted each exception and who began the bypass or lockdown, since when, and why.
pub fn explained(status: &mut Status, held: &[Exception], suspension: Option<&Suspension>) {
    for exception in &mut status.exceptions {
        let same = |held: &&Exception| exception.id.0 == format!("exception/{}", held.name);
        if let Some(held) = held.iter().find(same) {
            exception.since = Some(held.granted);
            exception.by = Some(held.by.clone());
            exception.why.clone_from(&held.why);
        }
    }
    if let (Some(shown), Some(suspension)) = (&mut status.suspension, suspension)
        && shown.kind == suspension.kind
    {
        shown.since = (suspension.since != 0).then_some(suspension.since);
        shown.by.clone_from(&suspension.by);
        shown.why.clone_from(&suspension.why);
    }
}

impl Overrides {
    /// Adds an exception. If that succeeds, the maps have changed.
    pub(in crate::daemon) fn allow(
        &mut self,
        context: &Context,
        new_exception: NewException,
    ) -> anyhow::Result<Allowed> {
        self.compare_at = None;
        scene(context).allow(&mut self.exceptions, new_exception)
    }

    /// Revokes an exception, and returns a sentence about the end. If that succeeds, the maps have changed.
    pub(in crate::daemon) fn revoke(
        &mut self,
        context: &Context,
        name: &str,
        asker: &Asker,
    ) -> anyhow::Result<String> {
        self.compare_at = None;
        scene(context).revoke(&mut self.exceptions, name, asker)
    }

    /// Restores the exceptions on disk that have time left. Must be called when the maps exist and before a
    /// packet is judged. Returns a message if the file on disk cannot be used.
    pub(in crate::daemon) fn restore_exceptions(
        &mut self,
        context: &Context,
    ) -> anyhow::Result<Option<String>> {
        let found = match exceptions::load(&context.paths.state) {
            Ok(found) => found,
            Err(error) => {
                let message =
                    format!("exceptions.json: {error}; exceptions in the kernel go on, others are lost");
                error!("{message}");
                return Ok(Some(message));
            }
        };
        let boot = boot_id().context("read the boot's id")?;
        let now = context.ticks.now()? as u32;
        let of_another_boot = found.iter().any(|held| held.boot != boot);
        for mut exception in found {
            if exception.boot != boot {
                let left = exception.left_after_reboot(unix_now());
                exception.deadline = if left == 0 { now.max(1) } else { context.ticks.deadline(left)? };
                exception.boot.clone_from(&boot);
            }
            if over(exception.deadline, now) {
                info!("exception/{} is over", exception.name);
            } else if let Err(error) = let_in(&context.pins, &exception) {
                error!("exception/{} is lost: {error:#}", exception.name);
            } else {
                self.exceptions.push(exception);
            }
        }
        control::sweep(&context.pins, now).context("end the exceptions whose time is up")?;
        if of_another_boot {
            // From here on the ticks of this boot count: a wall clock that stays wrong must not grant the time
            // anew at each start.
            scene(context).save(&self.exceptions);
        }
        Ok(None)
    }

    /// Compares the exceptions on disk with those that hold, at once after a change and now and then, and writes
    /// them if they differ: the disk may have been full. Returns a sentence if they cannot be written. Must be called
    /// with the lock on changes.
    pub(in crate::daemon) fn keep_saved(&mut self, context: &Context) -> Option<String> {
        if self.compare_at.is_some_and(|at| at > Instant::now()) {
            return self.unsaved.clone();
        }
        self.compare_at = Some(Instant::now() + COMPARE);
        self.unsaved = match exceptions::load(&context.paths.state) {
            Ok(saved) if saved == self.exceptions => None,
            Ok(_) => exceptions::save(&context.paths.state, &self.exceptions).err(),
            // The start has named a file that cannot be used, and the next change replaces it.
            Err(_) => None,
        }
        .map(|error| {
            format!("a start goes by the exceptions on disk, which are not those that hold: {error}")
        });
        self.unsaved.clone()
    }

    /// Returns the present tick if the time of an exception is up: [`Self::sweep_exceptions`] then removes the
    /// exception.
    pub(in crate::daemon) fn sweep_due(&self, context: &Context) -> Option<u32> {
        let now = context.now()?;
        self.exceptions.iter().any(|held| over(held.deadline, now)).then_some(now)
    }

    /// Removes exceptions whose time is up at the tick `now`, which changes the maps. The programs have ignored
    /// these exceptions since then. Must be called with the lock on changes.
    pub(in crate::daemon) fn sweep_exceptions(&mut self, context: &Context, now: u32) {
        self.exceptions.retain(|held| {
            let ended = over(held.deadline, now);
            if ended {
                warn!("exception/{} is over: its time is up", held.name);
            }
            !ended
        });
        if let Err(error) = control::sweep(&context.pins, now) {
            error!("exceptions whose time is up keep their places: {:#}", anyhow!(error));
        }
        scene(context).save(&self.exceptions);
    }
}

fn let_in(pins: &Pins, exception: &Exception) -> anyhow::Result<()> {
    let row = exception.row();
    let (label, lines) = lines_of(&row, exception.deadline);
    control::allow(pins, &label, &lines).context("let the exception in")?;
    Ok(())
}

fn end(pins: &Pins, exception: &Exception) -> anyhow::Result<()> {
    control::revoke(pins, own_lines(exception)).context("end the exception")?;
    Ok(())
}

/// Returns a predicate for the lines of an exception in the table of overrides.
pub(super) fn own_lines(exception: &Exception) -> impl Fn(&Override) -> bool + use<> {
    let (_, lines) = lines_of(&exception.row(), exception.deadline);
    // The kernel side chooses the slot; all other fields are those of the grant.
    move |held| {
        lines
            .iter()
            .any(|line| Override { row: held.row, marks: line.marks | Override::EXCEPTION, ..*line } == *held)
    }
}

fn free_name(held: &[Exception]) -> String {
    let taken = |number: &usize| held.iter().any(|held| held.name == number.to_string());
    (1..=held.len() + 1).find(|number| !taken(number)).unwrap_or_default().to_string()
}
