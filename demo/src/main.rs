//! `cargo xtask demo`: builds a whole POM site from network namespaces, guarded by real daemons, and tries
//! every connection that the matrix lists and many that the matrix does not list.
//!
//! ```text
//! matrix.toml ─ matrix ─┬─ layout ─── plan ────────────┐
//!                       └─ files ─ daemon ─┐           trial ─ verdict ─ report
//!                          site ───────────┴─ probe ───┘
//!                                          └─ stats ───┘
//! ```

mod files;
mod layout;
mod matrix;
mod plan;
mod probe;
mod progress;
mod report;
mod site;
mod stats;
mod trial;
mod verdict;

#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use pomguard_netlab::{
    daemon::Daemon,
    sandbox::{self, Sandbox},
};
use pomguard_workspace::{
    self as workspace,
    build::{self, Profile},
};

use self::{
    layout::{Machine, Role},
    matrix::Matrix,
    plan::Plan,
    progress::Progress,
    report::{Outsider, Report},
    site::Site,
    stats::Counters,
    trial::Trial,
};

/// Build a POM site out of network namespaces and try every connection of the matrix
#[derive(Debug, clap::Parser)]
#[command(name = "cargo xtask demo", bin_name = "cargo xtask demo")]
struct Args {
    /// Number of zones of the site: the number of ports of each row with one port per zone.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=50))]
    zones: u16,
    /// Try unlisted connections even if a listed row is wrong.
    #[arg(long)]
    keep_going: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// Use this pomguard instead of building one.
    #[arg(long, value_name = "PATH")]
    pomguard: Option<PathBuf>,
}

/// One machine with a daemon.
struct Guard {
    machine: usize,
    config: PathBuf,
    daemon: Daemon,
}

fn main() -> ExitCode {
    pomguard_workspace::exit(run(&Args::parse()))
}

/// Runs the demo. Fails if a row is wrong, or if an attempt succeeded that must not.
fn run(args: &Args) -> Result<()> {
    let progress = Progress::start();
    sandbox::require_root()?;
    let binary = if let Some(path) = &args.pomguard {
        path.canonicalize().with_context(|| path.display().to_string())?
    } else {
        progress.say("building pomguard");
        build::daemon(Profile::Dev)?
    };
    let started = Instant::now();
    let matrix = Matrix::read(&workspace::root().join("config/matrix/pom-4.0.toml"), args.zones)?;
    let machines = layout::machines(&matrix)?;
    let plan = Plan::new(&matrix, &machines);
    let sandbox = sandbox::enter()?;

    progress.say(&format!("building a site of {} machines", machines.len()));
    let site = Site::build(&machines)?;
    files::write_site(&sandbox.files, &matrix, args.zones, &machines)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(site.listen(&plan.listening))?;
    let mut guards = start_daemons(&binary, &site, &machines, &sandbox, &progress)?;

    let guarded: Vec<_> = guards.iter().map(|guard| guard.machine).collect();
    let configs: Vec<_> = guards.iter().map(|guard| (guard.machine, guard.config.clone())).collect();
    let counters = |machine: usize| {
        let (_, config) = configs.iter().find(|(guarded, _)| *guarded == machine).context("unguarded")?;
        Counters::read(&binary, site.namespace(machine), config)
    };
    let trial = Trial {
        matrix: &matrix,
        machines: &machines,
        plan: &plan,
        site: &site,
        progress: &progress,
        guarded: &guarded,
        counters: &counters,
    };
    let rows = runtime.block_on(trial.rows())?;
    let all_right = rows.iter().all(|row| row.wrong.is_empty());
    let (denied, outsider) = if all_right || args.keep_going {
        runtime.block_on(trial.denied())?
    } else {
        (Vec::new(), Outsider::default())
    };
    for guard in &mut guards {
        guard.daemon.check_alive()?;
    }
    progress.say("done");
    let seconds = started.elapsed().as_secs_f32();
    let report = Report { matrix: matrix.id.clone(), zones: args.zones, rows, denied, outsider, seconds };
    let mut stdout = io::stdout().lock();
    if args.json {
        report.print_json(&mut stdout)?;
    } else {
        report.print_tables(&mut stdout)?;
    }
    match report.wrong() {
        (0, 0) => Ok(()),
        (rows, denied) => bail!("{rows} rows and {denied} kinds of denied attempts are wrong"),
    }
}

/// Starts pomguard on every POM server, and waits until all enforce.
fn start_daemons(
    binary: &Path,
    site: &Site,
    machines: &[Machine],
    sandbox: &Sandbox,
    progress: &Progress,
) -> Result<Vec<Guard>> {
    progress.say(&format!("starting {}", binary.display()));
    let Sandbox { pins, files } = sandbox;
    let mut guards = Vec::new();
    for (machine, it) in machines.iter().enumerate().filter(|(_, it)| it.role == Role::Pom) {
        let config = files::write_host(files, it.name, site::INTERFACE, &pins.join(it.name))?;
        let daemon = Daemon::start(binary, site.namespace(machine), &config)?;
        guards.push(Guard { machine, config, daemon });
    }
    for guard in &mut guards {
        guard.daemon.wait_ready()?;
    }
    Ok(guards)
}
