//! The start: loads the programs, takes over from the former daemon, puts a policy in force and attaches.

use anyhow::Context as _;
use log::{error, info};
use pomguard_common::names::MAP_FLOWS;

use super::{
    Daemon, Options,
    changes::{Changes, StartSource},
    context::Context,
    overrides::Overrides,
    phases::Phases,
    reconciler::{ReconcileTimer, Reconciler, check_interfaces},
    reporter::{Reporter, notify::Systemd},
};
use crate::{
    input::settings::Settings,
    kernel::{
        capabilities,
        clock::Ticks,
        flow_filters,
        load::{Loaded, Share},
        minimal,
        pins::Pins,
        programs::{self, Staged},
        takeover::Takeover,
    },
    state::runtime::Runtime,
};

/// A daemon whose programs judge packets, with the timer of the checks.
pub(super) struct Started {
    pub(super) daemon: Daemon,
    pub(super) timer: ReconcileTimer,
}

/// Loads the programs, puts a policy in force and attaches.
pub(super) fn start(
    options: &Options,
    settings: Settings,
    start_source: StartSource,
    runtime: Runtime,
    pins: Pins,
    systemd: Systemd,
) -> anyhow::Result<Started> {
    let mut phases = Phases::begin();
    check_interfaces(&pins, &settings, |_| true)?;
    // Before the first check: changes of the meantime are announced, and then checked.
    let timer = ReconcileTimer::new()?;
    let change = runtime.change()?;
    runtime.clear_detached()?;
    pins.prepare().context("prepare the folder for the pins")?;
    pins.finish_migration()
        .and_then(|()| programs::retire(&pins))
        .context("decide what an earlier start left")?;
    // Unless `finish` is called below, dropping this value restores the state before this start.
    let takeover = Takeover::begin(&pins).context("take the place of maps of another layout")?;
    let pins = takeover.as_ref().map_or(pins, Takeover::pins);
    let ticks = Ticks::probe()?;
    phases.end("decide the pins");
    info!("loading the programs");
    let had_flows = pins.map(MAP_FLOWS).exists();
    let lost_flows = !had_flows && !pins.linked("xdp").is_empty();
    let loaded = Loaded::new(&pins, Share::All, ticks, options.program_log);
    let loaded = loaded.map_err(|error| for_want_of_capabilities(error.into()))?;
    flow_filters::doubt(&pins, ticks, had_flows).context("prepare the look-ups of flows")?;
    // Before the first program is attached: see `programs`.
    let staged = Staged::new(&loaded, &pins).context("pin the programs")?;
    phases.end("load the programs");
    let carry = takeover.as_ref().and_then(|takeover| takeover.counters(ticks));
    let reconciler = Reconciler::new(loaded, carry)?;
    let context = Context {
        pins,
        runtime,
        ticks,
        paths: settings.paths.clone(),
        replaced: takeover.as_ref().map(Takeover::found),
        lost_flows,
    };
    let reporter = Reporter::new(&settings.paths, systemd);
    let changes = Changes::new(options.config.clone(), settings);
    let mut daemon = Daemon { context, changes, overrides: Overrides::default(), reconciler, reporter };
    if options.program_log != 0 {
        daemon.reconciler.follow_program_log();
    }
    // The policy before the programs: the first packet that a program sees is judged by the policy.
    daemon.continue_overrides()?;
    daemon.change(|changes, context, reconciler| changes.begin(context, reconciler, start_source))?;
    phases.end("put the policy in force and attach");
    staged.finish().context("give the new programs their place")?;
    if let Some(takeover) = takeover {
        daemon.context.pins = takeover.finish().context("give the new maps their place")?;
    }
    daemon.reconciler.complete_flow_filters(&daemon.context);
    end_closing(&daemon.context);
    daemon.reconciler.record_baseline(&daemon.context);
    drop(change);
    Ok(Started { daemon, timer })
}

/// Removes the means that held the host closed while the kernel refused the programs.
fn end_closing(context: &Context) {
    let table = context.runtime.not_enforcing().is_some_and(|mark| mark.table);
    let ended = minimal::end(&context.pins, table)
        .map_err(anyhow::Error::from)
        .and_then(|()| Ok(context.runtime.clear_not_enforcing()?));
    if let Err(error) = ended {
        error!("what held the host closed is still there alongside the policy: {error:#}");
    }
}

/// Adds the missing capabilities to an error: without them, the verifier's message names anything but the
/// cause.
fn for_want_of_capabilities(error: anyhow::Error) -> anyhow::Error {
    let missing = capabilities::missing();
    if missing.is_empty() {
        return error;
    }
    error.context(format!("this process lacks {}, which the unit has", missing.join(" and ")))
}
