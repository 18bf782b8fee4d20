//! The command line: one file per verb, each with its `Args` and a `run`.
//!
//! Exit codes: 0 success; 1 failure, or disagreement of files and kernel; 2 wrong usage; 3 attention needed:
//! `plan` would change something, `status` found a condition, `explain` reports a packet that would be dropped,
//! `check --strict` has warnings.

use std::{process::ExitCode, sync::LazyLock};

use clap::{Parser, Subcommand};

use self::output::Output;
use crate::{
    control::protocol::SuspensionKind,
    input::Diagnostics,
    kernel::pins::Pins,
    observe::{counts::CountHistory, reading, snapshot::Snapshot},
};

pub mod allow;
pub mod apply;
pub mod check;
pub mod detach;
pub mod doctor;
pub mod drops;
mod duration;
mod emergency;
pub mod explain;
mod fates;
pub mod generate;
pub mod history;
mod journal;
pub mod matrix;
pub mod output;
mod own_addresses;
mod paths;
pub mod plan;
pub mod run;
pub mod serve_metrics;
mod session;
pub mod stats;
pub mod status;
pub mod suggest;
pub mod suspend;
mod way_in;

/// Exit code for a fault in the input or the state.
pub const FAULT: u8 = 1;
/// Exit code for a wrong command line.
pub const USAGE: u8 = 2;
/// Exit code if something needs attention.
pub const ATTENTION: u8 = 3;

/// A wrong command line that only its verb can recognize.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// Returns the exit code for faults: wrong usage if every fault is in the name that the command line has, whose origin is
/// `option`.
fn code_of(faults: &Diagnostics, option: &str) -> u8 {
    if faults.0.iter().all(|one| *one.origin.file == *option) { USAGE } else { FAULT }
}

/// Enforces a published port matrix on a server's network interfaces, and explains every verdict.
#[derive(Debug, Parser)]
#[command(name = "pomguard", version, long_version = long_version(), max_term_width = 100)]
pub struct Cli {
    /// The verb.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Returns the version and the layout of the maps, one per line: the scripts of the packages compare the
/// layouts of two versions before a downgrade.
fn long_version() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        format!("{}\nmap layout {}", env!("CARGO_PKG_VERSION"), pomguard_common::ABI_VERSION)
    });
    &TEXT
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Read the files and show their meaning for this host, without changing anything
    Check(check::CheckArgs),
    /// Run the daemon: put the policy in force and keep it in force
    Run(run::RunArgs),
    /// Show the changes that the files would make, and the flows that these changes would cut
    Plan(plan::PlanArgs),
    /// Put the files in force, through the daemon
    Apply(apply::ApplyArgs),
    /// Keep the change that was applied with --confirm-within
    Confirm(apply::ConfirmArgs),
    /// Return to an earlier policy
    Rollback(apply::RollbackArgs),
    /// List the recorded changes of policy
    History(history::HistoryArgs),
    /// Allow a connection for a limited time, or list active exceptions
    Allow(allow::AllowArgs),
    /// End an exception before its time
    Revoke(allow::RevokeArgs),
    /// Drop nothing for a limited time, and count everything as the policy would have judged it
    #[command(
        override_usage = "pomguard bypass --for <TIME> [--why <TEXT>] [--yes] [OPTIONS]\n       pomguard bypass --off [OPTIONS]"
    )]
    Bypass(suspend::SuspendArgs),
    /// Pass only failsafe rows for a limited time, and drop everything else
    #[command(
        override_usage = "pomguard lockdown --for <TIME> [--why <TEXT>] [--yes] [OPTIONS]\n       pomguard lockdown --off [OPTIONS]"
    )]
    Lockdown(suspend::SuspendArgs),
    /// The former spelling of `lockdown` (isolate) and `bypass` (open)
    #[command(hide = true)]
    Panic(suspend::FormerArgs),
    /// Show the policy in force, and every condition that needs attention
    Status(status::StatusArgs),
    /// Examine this machine: kernel, interfaces, other firewalls, and obstacles to enforcement
    Doctor(doctor::DoctorArgs),
    /// Show the counters of passed and dropped packets, with the reasons
    Stats(stats::StatsArgs),
    /// Show the denied peers, ports and reasons; in audit, the would-be drops
    Drops(drops::DropsArgs),
    /// Write rows for denied packets, to be pasted into the site file
    Suggest(suggest::SuggestArgs),
    /// Show the verdict on a packet, and the reason
    Explain(explain::ExplainArgs),
    /// Serve the daemon's metrics page over HTTP: needs no privileges, only the daemon's group
    ServeMetrics(serve_metrics::ServeMetricsArgs),
    /// Detach the programs and open the host: every packet passes
    Detach(detach::DetachArgs),
    /// Show the published matrix and the places where the reading differs from the print
    Matrix(matrix::MatrixArgs),
    /// Write the completions for a shell
    Completions(generate::CompletionsArgs),
    /// Write the manual pages
    Man(generate::ManArgs),
}

/// The effect and the form of the answer of a verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Manner {
    /// True if the verb changes the state in force. The exit code of such a verb reports the change, even if the
    /// output is lost.
    changes: bool,
    /// True if the verb was asked for JSON.
    json: bool,
}

impl Verb {
    const fn manner(&self) -> Manner {
        let (changes, json) = match self {
            Self::Check(args) => (false, args.json),
            Self::Run(_) | Self::ServeMetrics(_) => (true, false),
            Self::Plan(args) => (false, args.json),
            Self::Apply(args) => (true, args.common.json),
            Self::Confirm(args) => (true, args.common.json),
            Self::Rollback(args) => (true, args.common.json),
            Self::History(args) => (false, args.json),
            Self::Allow(args) => (!args.list, args.json),
            Self::Revoke(args) => (true, args.json),
            Self::Bypass(args) | Self::Lockdown(args) => (true, args.common.json),
            Self::Panic(args) => (true, args.common.json),
            Self::Status(args) => (false, args.json),
            Self::Doctor(args) => (false, args.json),
            Self::Stats(args) => (false, args.json),
            Self::Drops(args) => (false, args.json),
            Self::Explain(args) => (false, args.json),
            Self::Detach(args) => (true, args.json),
            Self::Matrix(args) => {
                let (matrix::What::List(choice) | matrix::What::Lint(choice)) = &args.what;
                (false, choice.json)
            }
            Self::Suggest(_) | Self::Completions(_) | Self::Man(_) => (false, false),
        };
        Manner { changes, json }
    }
}

/// Runs a verb. Prints an error on stderr; the exit code is then 1.
pub fn run(cli: Cli) -> ExitCode {
    let mut out = Output::new();
    let Manner { changes, json } = cli.verb.manner();
    if json {
        out.promise_json();
    }
    let result = dispatch(cli.verb, &mut out);
    out.end(result, changes)
}

fn dispatch(verb: Verb, out: &mut Output) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Check(args) => check::run(&args, out),
        Verb::Run(args) => run::run(&args),
        Verb::Plan(args) => plan::run(&args, out),
        Verb::Apply(args) => apply::run(&args, out),
        Verb::Confirm(args) => apply::confirm(&args, out),
        Verb::Rollback(args) => apply::rollback(&args, out),
        Verb::History(args) => history::run(&args, out),
        Verb::Allow(args) => allow::run(&args, out),
        Verb::Revoke(args) => allow::revoke(&args, out),
        Verb::Bypass(args) => suspend::run(SuspensionKind::Bypass, &args, out),
        Verb::Lockdown(args) => suspend::run(SuspensionKind::Lockdown, &args, out),
        Verb::Panic(args) => suspend::run_former(&args, out),
        Verb::Status(args) => status::run(&args, out),
        Verb::Doctor(args) => doctor::run(&args, out),
        Verb::Stats(args) => {
            let settings = paths::settings_in_use(&args.config, out);
            let pins = Pins::new(&settings.paths.pins);
            let read = || {
                let differences = own_addresses::attention(&args.config);
                Ok(Snapshot { differences, ..reading::snapshot(&pins)? })
            };
            let counts = CountHistory::new(&settings.paths.state);
            stats::run(&args, &read, &|| fates::read(&settings), &counts, out)
        }
        Verb::Drops(args) => drops::run(&args, out),
        Verb::Suggest(args) => suggest::run(&args, out),
        Verb::Explain(args) => explain::run(&args, out),
        Verb::ServeMetrics(args) => serve_metrics::run(&args),
        Verb::Detach(args) => detach::run(&args, out),
        Verb::Matrix(args) => matrix::run(&args, out),
        Verb::Completions(args) => generate::completions(&args, out),
        Verb::Man(args) => generate::man(&args, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn former_spelling_of_bypass_and_lockdown_is_accepted_and_hidden() {
        for words in ["panic open --for 10m", "panic isolate --for 10m --yes", "panic off"] {
            let cli = Cli::try_parse_from(["pomguard"].into_iter().chain(words.split(' '))).unwrap();
            assert!(matches!(cli.verb, Verb::Panic(_)), "{words}");
        }
        assert!(Cli::try_parse_from(["pomguard", "panic", "open"]).is_err(), "without a time");
        for words in ["bypass --for 10m --why x", "lockdown --for 2h", "lockdown --off"] {
            assert!(Cli::try_parse_from(["pomguard"].into_iter().chain(words.split(' '))).is_ok(), "{words}");
        }
        assert!(Cli::try_parse_from(["pomguard", "bypass"]).is_err(), "without a time");
        let help = <Cli as clap::CommandFactory>::command().render_help().to_string();
        assert!(help.contains("lockdown") && !help.contains("panic"), "{help}");
    }
}
