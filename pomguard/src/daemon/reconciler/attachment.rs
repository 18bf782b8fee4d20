//! Attaches the programs to the interfaces of the settings, and takes the guard off interfaces that leave.

use anyhow::{Context as _, anyhow, bail};
use log::{error, warn};

use super::{
    Reconciler,
    interface::{Guarded, Watched},
    seeding,
};
use crate::{
    daemon::context::Context,
    input::settings::{Attach, AttachMode, OnAttachFailure, Settings},
    kernel::{KernelError, attach, hook_handles::HookHandles, interface, machine, pins::Pins},
    policy::machine::Machine,
};

/// The interfaces that lose their guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::daemon) enum Leave {
    /// No interface.
    None,
    /// The named interfaces that have a guard.
    These(Vec<String>),
    /// Every interface that the settings do not name.
    Unnamed,
}

impl Leave {
    /// Returns the interfaces that the settings before name and the settings after do not name.
    pub(in crate::daemon) fn named_by(before: &Settings, after: &Settings) -> Self {
        Self::These(no_longer_named(before, after))
    }

    /// Returns true if `interface`, which the settings do not name, loses its guard.
    fn names(&self, interface: &str) -> bool {
        match self {
            Self::None => false,
            Self::These(names) => names.iter().any(|name| name == interface),
            Self::Unnamed => true,
        }
    }
}

/// Returns the interfaces that `before` names and `after` does not name.
pub(in crate::daemon) fn no_longer_named(before: &Settings, after: &Settings) -> Vec<String> {
    let stays = |name: &str| after.interfaces.iter().any(|at| at.value == name);
    let names = before.interfaces.iter().map(|at| at.value.clone());
    names.filter(|name| !stays(name)).collect()
}

impl Reconciler {
    /// Attaches at a start. At the very first start, and if the flow table is new, live connections continue.
    /// `former` is the mode of the settings that were in force before.
    pub(in crate::daemon) fn attach_at_start(
        &mut self,
        context: &Context,
        settings: &Settings,
        former: Option<AttachMode>,
    ) -> anyhow::Result<()> {
        let replaces = context.replaced.is_some();
        let new = replaces || context.lost_flows || context.pins.linked("xdp").is_empty();
        if new {
            seeding::seed_on_first_attach(context, settings.grace);
        }
        if replaces {
            self.judge(context).context("ask the programs before they judge")?;
        }
        // The last reading of the counters, and the last step before the programs are exchanged.
        if let Some(carry) = self.carry.take()
            && let Err(error) = carry.counters(&context.pins, context.ticks)
        {
            error!("what was counted since this start began is lost: {:#}", anyhow!(error));
        }
        // A start asks nobody for consent: an interface that the files no longer name keeps the guard.
        self.attach(context, settings, former, &Leave::None)?;
        if new {
            // Connections that were opened since the first seeding.
            seeding::seed(context);
        }
        Ok(())
    }

    /// Attaches to every interface of the settings, lower devices first, and takes the guard off the
    /// interfaces that `leave` names. Every other interface keeps the guard and stays watched, named by the
    /// settings or not. If an interface does not exist, the daemon waits for it. `former` is the mode of the settings
    /// that were in force before, for the first attachment.
    pub(in crate::daemon) fn attach(
        &mut self,
        context: &Context,
        settings: &Settings,
        former: Option<AttachMode>,
        leave: &Leave,
    ) -> anyhow::Result<()> {
        let mut watched = Vec::new();
        let mut refused = None;
        let before = self.mode.or(former);
        let leave_generic = settings.attach.mode == AttachMode::Auto && before == Some(AttachMode::Generic);
        let desired = Attach { leave_generic, ..settings.attach };
        self.mode = Some(settings.attach.mode);
        for interface in lower_first(settings) {
            let how = self.how(&interface, desired);
            let interface = &interface;
            let attached = attach::attach(&mut self.loaded, &context.pins, interface, how)
                .and_then(|_| HookHandles::take(&context.pins, interface));
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
            context.pins.linked("xdp").into_iter().filter(|name| !is_named(name)).collect();
        for left in unnamed {
            // A guard stays if another one could not be attached: the old guard may be the one that still
            // holds.
            if !leave.names(&left) || refused.is_some() {
                let hold = HookHandles::take(&context.pins, &left).ok();
                watched.push(Watched { name: left, hold, named: false });
                continue;
            }
            warn!("{left} is no longer in `interfaces`: its guard is taken off");
            attach::detach(&context.pins, &left)?;
        }
        self.watch(watched);
        refused.map_or(Ok(()), Err)
    }

    /// Replaces the watched interfaces.
    fn watch(&mut self, interfaces: Vec<Watched>) {
        let mut former = std::mem::take(&mut self.interfaces);
        self.interfaces = interfaces
            .into_iter()
            .map(|watched| match former.iter().position(|guarded| guarded.is_of(&watched)) {
                Some(at) => Guarded::again(watched, former.swap_remove(at)),
                None => Guarded::new(watched),
            })
            .collect();
    }

    /// Returns the attach mode of an interface: that of the settings, unless native mode was blind there.
    fn how(&self, name: &str, settings: Attach) -> Attach {
        let guarded = self.interfaces.iter().find(|guarded| guarded.name == name);
        guarded.map_or(settings, |guarded| guarded.how(settings))
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
pub(in crate::daemon) fn check_interfaces(
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
