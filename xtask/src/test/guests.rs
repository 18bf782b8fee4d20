//! One boot for each kernel: load, attach, verdicts, link changes, a kill and the end of the kill, over
//! emulated cards. The guest's side is `tests/tests/guest`.

use std::{
    fmt::Write as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::{other_kernel, outcome::Outcome, run::Run};

mod boot;
mod known;
mod monitor;

use boot::{Boot, End};

/// The number of guests that run at once. Each keeps a processor busy.
const AT_ONCE: usize = 2;
/// The test target that runs in the guest.
const TARGET: &str = "guest";

/// One kernel's report.
struct Kernel {
    version: &'static str,
    end: Result<End>,
    took: Duration,
}

impl Kernel {
    /// Returns everything that fails the run.
    fn faults(&self) -> Vec<String> {
        match &self.end {
            Ok(End::Steps(steps)) => known::judge(self.version, steps, known::KNOWN).faults,
            Ok(End::NotToBeHad) => Vec::new(),
            Err(error) => vec![format!("{error:#}")],
        }
    }
}

/// Boots every kernel, two at a time, and judges the steps of each.
pub(super) fn run(run: &mut Run) -> Result<Outcome> {
    boot(run, false)
}

/// The same with a suspension (S3) in each guest. QEMU's emulation sometimes resets a machine that wakes.
pub(super) fn suspended() -> Result<Outcome> {
    boot(&mut Run::default(), true)
}

fn boot(run: &mut Run, suspends: bool) -> Result<Outcome> {
    let script = match other_kernel::script() {
        Ok(script) => script,
        Err(reason) => return Ok(Outcome::NotRun(reason)),
    };
    let (built, _) = run.built()?;
    let boot = Boot { script: &script, binary: &built.daemon, test: &built.test(TARGET)?.path, suspends };
    let (next, finished) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(version) = other_kernel::KERNELS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let start = Instant::now();
                    let end = boot.run(version);
                    let kernel = Kernel { version, end, took: start.elapsed() };
                    finished.lock().unwrap_or_else(PoisonError::into_inner).push(kernel);
                }
            });
        }
    });
    let mut finished = finished.into_inner().unwrap_or_else(PoisonError::into_inner);
    // Two guests on a shared machine can starve each other. A failure counts only if it occurs again when the
    // guest runs alone.
    for kernel in &mut finished {
        let faults = kernel.faults();
        if !faults.is_empty() {
            let version = kernel.version;
            println!("\nLinux {version}: again, with nothing alongside it: {}", faults.join("; "));
            let start = Instant::now();
            *kernel = Kernel { version, end: boot.run(version), took: start.elapsed() };
        }
    }
    finished
        .sort_by_key(|kernel| other_kernel::KERNELS.iter().position(|version| *version == kernel.version));
    println!("\n{}", table(&finished));
    conclude(&finished)
}

/// Makes a table with the steps in rows and the kernels in columns. A cell holds the seconds, or the result
/// if the step did not pass.
fn table(kernels: &[Kernel]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    let heads = kernels.iter().map(|kernel| format!("Linux {}", kernel.version));
    table.set_header(std::iter::once("step".to_owned()).chain(heads));
    let steps = |kernel: &Kernel| match &kernel.end {
        Ok(End::Steps(steps)) => steps.clone(),
        _ => Vec::new(),
    };
    let columns: Vec<_> = kernels.iter().map(steps).collect();
    let mut names: Vec<&str> = Vec::new();
    for step in columns.iter().flatten().filter(|step| step.steps().is_none()) {
        if !names.contains(&step.name.as_str()) {
            names.push(&step.name);
        }
    }
    for name in names {
        let cells = kernels.iter().zip(&columns).map(|(kernel, steps)| {
            let step = steps.iter().find(|step| step.name == name);
            step.map_or_else(String::new, |step| known::word(kernel.version, step))
        });
        table.add_row(std::iter::once(name.to_owned()).chain(cells));
    }
    let all = kernels.iter().map(|kernel| format!("{:.1}", kernel.took.as_secs_f32()));
    table.add_row(std::iter::once("the whole boot".to_owned()).chain(all));
    table
}

fn conclude(kernels: &[Kernel]) -> Result<Outcome> {
    let (mut faults, mut missing, mut steps, mut known) = (Vec::new(), Vec::new(), 0, Vec::new());
    for kernel in kernels {
        let Kernel { version, end, .. } = kernel;
        faults.extend(kernel.faults().into_iter().map(|error| format!("Linux {version}: {error}")));
        match end {
            Ok(End::Steps(all)) => {
                let judged = known::judge(version, all, known::KNOWN);
                steps += judged.passed;
                for known in &judged.known {
                    println!("known failure: Linux {version}, {}: {}", known.step, known.reason);
                }
                known.extend(judged.known.iter().map(|known| format!("{} on {version}", known.step)));
            }
            Ok(End::NotToBeHad) => missing.push(*version),
            Err(_) => {}
        }
    }
    let mut note = format!("{steps} steps on {} kernels", kernels.len() - missing.len());
    if !known.is_empty() {
        // Writing to a string does not fail.
        let _ = write!(note, ", {} known failures: {}", known.len(), known.join(", "));
    }
    if !faults.is_empty() {
        bail!("{note}\n{}", faults.join("\n"));
    }
    if !missing.is_empty() {
        return Ok(Outcome::NotRun(format!("Linux {} cannot be had here; {note}", missing.join(", "))));
    }
    Ok(Outcome::Passed(note))
}
