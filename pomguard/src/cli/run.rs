//! `pomguard run`: the daemon.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use super::ATTENTION;
use crate::{
    daemon::{self, Ending, Options},
    paths,
};

/// Options of `run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The daemon's settings
    #[arg(long, value_name = "PATH", default_value = paths::SETTINGS)]
    pub config: PathBuf,
    /// Log of the eBPF programs, for developers: one line per packet
    #[arg(long, value_name = "LEVEL", default_value = "off", value_parser = ["off", "debug"])]
    pub program_log: String,
}

/// Runs until SIGTERM or SIGINT. Returns exit code 3 if the kernel refused the programs until the end.
pub fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    start_log();
    raise_open_files()?;
    let options = Options {
        config: args.config.clone(),
        program_log: if args.program_log == "debug" { log::Level::Debug as u8 } else { 0 },
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let ending = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => {},
                _ = interrupt.recv() => {},
            }
        };
        Box::pin(daemon::run(options, shutdown)).await
    })?;
    Ok(match ending {
        Ending::Enforcing => ExitCode::SUCCESS,
        Ending::NotEnforcing => ExitCode::from(ATTENTION),
    })
}

/// Descriptors that a daemon may need: maps, programs, links, and clients.
const DESCRIPTORS: u64 = 128;

/// Raises the limit of open files to its maximum, and refuses to start if the maximum is too low: a daemon that
/// runs out of descriptors later could not even report the fault.
fn raise_open_files() -> anyhow::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("read the limit of open files")?;
    if hard < DESCRIPTORS {
        bail!(
            "a limit of {hard} open files is too low, {DESCRIPTORS} are needed: raise LimitNOFILE= in the unit, \
             or `ulimit -n`"
        );
    }
    if soft < DESCRIPTORS {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raise the limit of open files")?;
    }
    Ok(())
}

/// Logs to stderr, which systemd forwards to the journal; in that case each line begins with its priority.
pub(super) fn start_log() {
    use std::io::Write as _;

    let mut builder = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info"));
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.format(|out, record| {
            // Priorities of sd-daemon(3).
            let priority = match record.level() {
                log::Level::Error => 3,
                log::Level::Warn => 4,
                log::Level::Info => 6,
                log::Level::Debug | log::Level::Trace => 7,
            };
            writeln!(out, "<{priority}>{}", record.args())
        });
    }
    builder.init();
}
