//! The reconciler: attaches the programs, records the state of interfaces and maps as the baseline, and keeps them so.
//! It restores pomguard's own objects and names foreign changes.
//!
//! The reconciler has the loaded programs, so it is the only part that attaches and detaches. A change of policy
//! calls it between its own steps, and every writer of the maps has it record the new baseline.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use log::{error, warn};
use pomguard_common::names::{ARRAY_EGRESS, ARRAY_INGRESS, MAP_HOST, MAP_LABELS, MAP_POLICY};

use self::{interface::Guarded, sweeper::Sweeper};
use super::{
    context::{Context, DETACHED},
    message::{Check, Conditions},
};
use crate::{
    input::settings::{Attach, AttachMode},
    kernel::{
        KernelError, attach,
        carry::Carry,
        hook_handles::{HookHandles, Programs},
        interface as device,
        load::Loaded,
        map_baseline::MapBaseline,
        pinned_objects::PinnedObjects,
        pins::Pins,
        selfprobe,
    },
    observe::condition::{Condition, Repair},
};

mod attachment;
mod interface;
mod seeding;
mod sight;
mod sweeper;
mod timer;

pub(super) use attachment::{Leave, check_interfaces, no_longer_named};
pub(super) use timer::ReconcileTimer;

/// The interval at which the log of the eBPF programs is copied to the daemon's log.
const PROGRAM_LOG_INTERVAL: Duration = Duration::from_millis(250);
/// The interval at which the tables whose comparison takes long are compared.
const TABLES: Duration = Duration::from_secs(4);
/// The hooks, the baseline, and the state of the checks.
pub(super) struct Reconciler {
    programs: Programs,
    interfaces: Vec<Guarded>,
    /// Interfaces whose name another interface has taken. They stay enforced until the next start.
    renamed_interfaces: Vec<HookHandles>,
    /// The pinned objects, and the contents that the maps must have; `None` until a policy is in force.
    baseline: Option<(PinnedObjects, MapBaseline)>,
    /// True if a policy is in force whose baseline could not be recorded yet.
    baseline_due: bool,
    tables_due: Instant,
    /// The conditions reported last, so that each is logged once.
    last_status: BTreeMap<Condition, String>,
    /// The mode of the last attachment; `None` before the first one.
    mode: Option<AttachMode>,
    /// The programs, ready to be attached.
    loaded: Loaded,
    /// The counters of the maps that this start replaces, until the programs that count in them are exchanged.
    carry: Option<Carry>,
    sweeper: Sweeper,
}

impl Reconciler {
    /// Takes the loaded programs, and the counters of the maps that this start replaces.
    ///
    /// # Errors
    /// If the kernel does not tell the ids of the programs.
    pub(super) fn new(mut loaded: Loaded, carry: Option<Carry>) -> Result<Self, KernelError> {
        Ok(Self {
            programs: Programs::from_loaded(&mut loaded)?,
            interfaces: Vec::new(),
            renamed_interfaces: Vec::new(),
            baseline: None,
            baseline_due: false,
            tables_due: Instant::now(),
            last_status: BTreeMap::new(),
            mode: None,
            loaded,
            carry,
            sweeper: Sweeper::new(),
        })
    }

    /// Copies the log of the eBPF programs to the daemon's log.
    pub(super) fn follow_program_log(&mut self) {
        let mut logger = match aya_log::EbpfLogger::init(self.loaded.ebpf()) {
            Ok(logger) => logger,
            Err(error) => return warn!("no log of the programs: {error}"),
        };
        tokio::spawn(async move {
            let mut timer = tokio::time::interval(PROGRAM_LOG_INTERVAL);
            loop {
                timer.tick().await;
                logger.flush();
            }
        });
    }

    /// Lets each program that is in force judge a packet.
    ///
    /// # Errors
    /// If a program does not judge as it must.
    pub(super) fn judge(&mut self, context: &Context) -> Result<(), KernelError> {
        selfprobe::judge(&mut self.loaded, &context.pins)
    }

    /// Completes the tables that a look-up of a flow asks first, after the exchange of the programs.
    pub(super) fn complete_flow_filters(&mut self, context: &Context) {
        self.sweeper.complete_filters(context);
    }

    /// Frees flows whose socket is gone, if the next sweep is due. Returns their number.
    pub(super) fn sweep_flows(&mut self, context: &Context) -> u64 {
        self.sweeper.sweep(context)
    }

    /// Records the present pins and map contents as the baseline. If they cannot be read, the next check
    /// tries again: until then nothing is compared, and especially not with the previous baseline.
    pub(super) fn record_baseline(&mut self, context: &Context) {
        (self.baseline, self.baseline_due) = (None, true);
        if let Err(error) = self.record_baseline_now(&context.pins) {
            warn!("what is in force is not watched over yet: {:#}", anyhow!(error));
        }
    }

    fn record_baseline_now(&mut self, pins: &Pins) -> Result<(), KernelError> {
        self.baseline = Some((PinnedObjects::open(pins)?, MapBaseline::read(pins)?));
        self.baseline_due = false;
        Ok(())
    }

    /// Returns true if this interface is watched.
    pub(super) fn watches(&self, name: &str) -> bool {
        self.interfaces.iter().any(|guarded| guarded.name == name)
    }

    /// Returns true if the guard is attached to every interface.
    pub(super) fn is_whole(&self) -> bool {
        self.interfaces.iter().all(|guarded| guarded.hold.is_some())
    }

    /// Returns the present names of the interfaces that are watched, renamed ones too.
    pub(super) fn names(&self) -> Vec<String> {
        let held = self.interfaces.iter().filter_map(|guarded| guarded.hold.as_ref());
        let present = held.chain(&self.renamed_interfaces).filter_map(HookHandles::present_name);
        self.interfaces.iter().map(|guarded| guarded.name.clone()).chain(present).collect()
    }

    /// Returns the guarded interfaces that the settings do not name.
    pub(super) fn unnamed(&self) -> Vec<String> {
        self.interfaces.iter().filter(|it| !it.named).map(|it| it.name.clone()).collect()
    }

    /// Releases everything: the host was opened on purpose.
    pub(super) fn release(&mut self, lasting_conditions: &Conditions) -> Check {
        self.interfaces.clear();
        self.renamed_interfaces.clear();
        (self.baseline, self.baseline_due) = (None, false);
        let mut check = Check { conditions: lasting_conditions.clone(), ..Check::default() };
        check.note(Condition::Detached, DETACHED);
        self.tell(&check);
        check
    }

    /// Checks everything once, and restores what can be restored. [`Self::tell`] logs the result.
    pub(super) fn check(&mut self, context: &Context, how: Attach, lasting_conditions: &Conditions) -> Check {
        let pins = &context.pins;
        let mut check = Check { conditions: lasting_conditions.clone(), ..Check::default() };
        if let Err(error) = self.mend(pins, &mut check) {
            check.note(Condition::SelfCheckFailed, &format!("{:#}", anyhow!(error)));
        }
        // The daemon does not wait for an interface that does not exist and that the settings do not name.
        self.interfaces.retain(|it| it.named || device::index(&it.name).is_ok());
        for at in 0..self.interfaces.len() {
            self.check_interface(at, pins, how, &mut check);
        }
        // Until a change is confirmed, an interface that will lose the guard still has the guard: that is no
        // condition.
        if !lasting_conditions.contains_key(&Condition::Unconfirmed) {
            for kept in self.interfaces.iter().filter(|it| !it.named) {
                check.note(Condition::GuardKept, &kept.name);
            }
        }
        for renamed in &self.renamed_interfaces {
            check.note(Condition::InterfaceRenamed, renamed.interface());
        }
        check
    }

    /// Checks and restores pins and maps.
    fn mend(&mut self, pins: &Pins, check: &mut Check) -> Result<(), KernelError> {
        if self.baseline_due {
            self.record_baseline_now(pins)?;
        }
        let Some((held, content)) = &self.baseline else { return Ok(()) };
        let holds = self
            .interfaces
            .iter()
            .filter_map(|guarded| guarded.hold.as_ref())
            .chain(&self.renamed_interfaces);
        let links: Vec<_> = holds.flat_map(|hold| hold.pins(pins)).collect();
        let lost: Vec<PathBuf> = held.restore(pins, links.into_iter())?;
        for path in lost {
            error!("{} was not pinned any more: pinned again", path.display());
            check.repairs.push(Repair::Pin);
        }
        let mut mended = content.mend_words(pins, held)?;
        if self.tables_due <= Instant::now() {
            mended.extend(content.mend_tables(pins)?);
            attach::note_generic(pins)?;
            self.tables_due = Instant::now() + TABLES;
        }
        for map in mended {
            error!("map {map} was changed from outside: put back as it was installed");
            check.repairs.push(match map {
                MAP_POLICY => Repair::Policy,
                ARRAY_INGRESS | ARRAY_EGRESS => Repair::General,
                MAP_LABELS | MAP_HOST => Repair::Labels,
                _ => Repair::Control,
            });
        }
        Ok(())
    }

    /// Logs the conditions that began, changed and ended.
    pub(super) fn tell(&mut self, check: &Check) {
        for (condition, about) in &check.conditions {
            if self.last_status.get(condition) != Some(about) {
                error!("{}: {about}", condition.name());
            }
        }
        for ended in self.last_status.keys().filter(|condition| !check.conditions.contains_key(condition)) {
            warn!("{}: no more", ended.name());
        }
        self.last_status.clone_from(&check.conditions);
    }
}
