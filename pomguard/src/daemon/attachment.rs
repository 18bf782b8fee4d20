//! Attaches the programs to the interfaces of the settings, and takes the guard off interfaces that leave.

use anyhow::{Context as _, anyhow, bail};
use log::{error, warn};

use super::{Daemon, reconciler::Watched, transition::Leave};
use crate::{
    input::settings::{Attach, AttachMode, OnAttachFailure, Settings},
    kernel::{KernelError, attach, hook_handles::HookHandles, interface, machine, pins::Pins, selfprobe},
    policy::machine::Machine,
};

impl Daemon {
    /// Attaches at a start. At the very first start, and if the flow table is new, live connections continue.
    pub(super) fn attach_at_start(&mut self, settings: &Settings) -> anyhow::Result<()> {
        let replaces = self.context.replaced.is_some();
        let new = replaces || self.context.pins.linked("xdp").is_empty();
        if new {
            self.seed_on_first_attach(settings.grace);
        }
        if replaces {
            selfprobe::judge(&mut self.loaded, &self.context.pins)
                .context("ask the programs before they judge")?;
        }
        // The last reading of the counters, and the last step before the programs are exchanged.
        if let Some(carry) = self.carry.take()
            && let Err(error) = carry.counters(&self.context.pins, self.context.ticks)
        {
            error!("what was counted since this start began is lost: {:#}", anyhow!(error));
        }
        // A start asks nobody for consent: an interface that the files no longer name keeps the guard.
        self.attach(settings, &Leave::None)?;
        if new {
            // Connections that were opened since the first seeding.
            self.seed();
        }
        Ok(())
    }

    /// Attaches to every interface of the settings, lower devices first, and takes the guard off the
    /// interfaces that `leave` names. Every other interface keeps the guard and stays watched, named by the
    /// settings or not. If an interface does not exist, the daemon waits for it.
    pub(super) fn attach(&mut self, settings: &Settings, leave: &Leave) -> anyhow::Result<()> {
        let mut watched = Vec::new();
        let mut refused = None;
        let before = self.reconciler.mode.or_else(|| Some(self.held.as_ref()?.settings.attach.mode));
        let leave_generic = settings.attach.mode == AttachMode::Auto && before == Some(AttachMode::Generic);
        let desired = Attach { leave_generic, ..settings.attach };
        self.reconciler.mode = Some(settings.attach.mode);
        for interface in lower_first(settings) {
            let how = self.reconciler.how(&interface, desired);
            let interface = &interface;
            let attached = attach::attach(&mut self.loaded, &self.context.pins, interface, how)
                .and_then(|_| HookHandles::take(&self.context.pins, interface));
            let hold = match attached {
                Ok(hold) => Some(hold),
                Err(KernelError::NoInterface(_)) => {
                    warn!("{interface}: not there yet; it is enforced on from the moment it is");
                    None
                }
                Err(error) if settings.attach.on_failure == OnAttachFailure::Continue => {
                    error!("{interface} is NOT protected: {:#}", anyhow!(error));
                    None
                }
                Err(error) => {
                    refused.get_or_insert(anyhow!(error).context(format!("attach to {interface}")));
                    None
                }
            };
            watched.push(Watched { name: interface.clone(), hold, named: true });
        }
        let is_named = |name: &String| watched.iter().any(|other| other.name == *name);
        let unnamed: Vec<String> =
            self.context.pins.linked("xdp").into_iter().filter(|name| !is_named(name)).collect();
        for left in unnamed {
            // A guard stays if another one could not be attached: the old guard may be the one that still
            // holds.
            if !leave.names(&left) || refused.is_some() {
                let hold = HookHandles::take(&self.context.pins, &left).ok();
                watched.push(Watched { name: left, hold, named: false });
                continue;
            }
            warn!("{left} is no longer in `interfaces`: its guard is taken off");
            attach::detach(&self.context.pins, &left)?;
        }
        self.reconciler.watch(watched);
        refused.map_or(Ok(()), Err)
    }
}

/// Returns the interfaces of the settings, each before the interfaces that are stacked on it.
fn lower_first(settings: &Settings) -> Vec<String> {
    let names = settings.interfaces.iter().map(|at| at.value.as_str());
    let machine = machine::devices().unwrap_or_else(|error| {
        warn!("interfaces are taken in the order of the file: {:#}", anyhow!(error));
        Machine::default()
    });
    machine.lower_first(names).into_iter().map(str::to_owned).collect()
}

/// Refuses interfaces to which attaching would fail, before anything is changed. A missing interface is an
/// error, because the name probably contains a mistake, unless `may_be_missing` returns true for the name.
pub(super) fn check_interfaces(
    pins: &Pins,
    settings: &Settings,
    may_be_missing: impl Fn(&str) -> bool,
) -> anyhow::Result<()> {
    for interface in &settings.interfaces {
        // Pins and kernel announcements use only the primary name.
        let known = interface::index(&interface.value).ok().and_then(interface::name);
        if let Some(known) = known.filter(|known| *known != interface.value) {
            bail!("{}: {} is another name of {known}: write {known}", interface.origin, interface.value);
        }
    }
    if settings.attach.on_failure == OnAttachFailure::Continue {
        return Ok(());
    }
    for interface in &settings.interfaces {
        match attach::check(pins, &interface.value) {
            Err(KernelError::NoInterface(_)) if may_be_missing(&interface.value) => {}
            checked => checked.with_context(|| format!("{}", interface.origin))?,
        }
    }
    Ok(())
}
