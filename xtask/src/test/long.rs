//! `cargo xtask test --long`: the proofs by volume, by emulation and by tools that have to be compiled.
//! `docs/proofs.md` records the last run of each.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};
use pomguard_workspace::{self as workspace, process};

use super::{
    Args, attempt, build, conclude, guests, kernel, other_kernel, outcome::Outcome, packaging, print_table,
    run::Run,
};
use crate::{
    account, dispatch,
    ebpf::{self, Comparison},
    faults, fuzz,
    setup::{self, Tool},
};

/// A proof that takes too long to run for every change.
struct Proof {
    name: &'static str,
    title: &'static str,
    /// Approximate duration in minutes on two cores.
    minutes: u32,
    needs: &'static [Tool],
    run: fn() -> Result<Outcome>,
}

const PROOFS: &[Proof] = &[
    Proof {
        name: "object",
        title: "the committed object is what its sources make, byte for byte",
        minutes: 2,
        needs: &[Tool::BpfCompiler, Tool::BpfLinker],
        run: object,
    },
    Proof {
        name: "dependencies",
        title: "licences, sources and bans of the dependencies",
        minutes: 3,
        needs: &[Tool::CargoDeny],
        run: dependencies,
    },
    Proof {
        name: "package-life",
        title: "RPM and deb: install, upgrade, downgrade, remove, purge; lintian and rpmlint",
        minutes: 7,
        needs: &[Tool::Packaging, Tool::PackageLints, Tool::Container],
        run: packaging::run,
    },
    Proof {
        name: "coverage",
        title: "each coverage-guided fuzz target for a minute",
        minutes: 6,
        needs: &[Tool::CargoFuzz],
        run: || fuzz::run(&fuzz::Args::targets(60)).map(|()| Outcome::passed()),
    },
    Proof {
        name: "random",
        title: "ten million random packets: loaded programs, host code, naive reading",
        minutes: 7,
        needs: &[],
        run: || kernel::differential(10_000_000, None).map(|()| Outcome::passed()),
    },
    Proof {
        name: "ports",
        title: "every port of every pair of systems of the demo's site, against the oracle",
        minutes: 3,
        needs: &[],
        run: || kernel::ports().map(|()| Outcome::passed()),
    },
    Proof {
        name: "account",
        title: "ten million packets over a cable, native and generic, each counted once",
        minutes: 2,
        needs: &[],
        run: || account::run(&account::Args::default()).map(|()| Outcome::passed()),
    },
    Proof {
        name: "mutate",
        title: "one change of the packet code at a time, and whether a test notices",
        minutes: 120,
        needs: &[],
        run: || dispatch::run(dispatch::MUTATE).map(|()| Outcome::passed()),
    },
    Proof {
        name: "all-faults",
        title: "1,000 kills, every system call, longer floods",
        minutes: 60,
        needs: kernel::FAULT_TOOLS,
        run: || faults::run(&faults::Args::default()).map(|()| Outcome::passed()),
    },
    Proof {
        name: "suspend",
        title: "the guests of every kernel, with a suspension (S3)",
        minutes: 8,
        needs: &[Tool::OtherKernels],
        run: guests::suspended,
    },
    Proof {
        name: "corpus-5.10",
        title: "all packet tests and the basic daemon tests on Linux 5.10",
        minutes: 20,
        needs: &[Tool::OtherKernels],
        run: || other_kernel::corpus("5.10"),
    },
    Proof {
        name: "corpus-6.1",
        title: "the same on Linux 6.1",
        minutes: 13,
        needs: &[Tool::OtherKernels],
        run: || other_kernel::corpus("6.1"),
    },
    Proof {
        name: "corpus-6.12",
        title: "the same on Linux 6.12",
        minutes: 10,
        needs: &[Tool::OtherKernels],
        run: || other_kernel::corpus("6.12"),
    },
];

/// Returns the names of all proofs, for the command line.
pub(super) fn names() -> Vec<&'static str> {
    PROOFS.iter().map(|proof| proof.name).collect()
}

/// Runs the chosen proofs, or lists them.
pub(super) fn run(args: &Args) -> Result<()> {
    let chosen: Vec<&Proof> = PROOFS.iter().filter(|proof| args.is_chosen(proof.name)).collect();
    if args.list {
        for Proof { name, title, minutes, .. } in &chosen {
            println!("{name:<14} {minutes:>4} min  {title}");
        }
        let sum: u32 = chosen.iter().map(|proof| proof.minutes).sum();
        println!("{:<14} {sum:>4} min", "all");
        return Ok(());
    }
    if chosen.is_empty() {
        bail!("no proof is left: `cargo xtask test --long --list` names them");
    }
    let mut finished = Vec::new();
    for proof in chosen {
        if !args.no_install
            && let Err(error) = setup::install(proof.needs)
        {
            println!("not everything could be installed: {error:#}");
        }
        finished.push(attempt(proof.name, proof.title, proof.run));
    }
    println!();
    print_table(&finished);
    conclude(&finished, &[], args.no_skips)
}

/// Builds the objects from source and compares them with the committed objects. Another toolchain makes other
/// bytes from the same sources: then every kernel test runs on the new object, too.
fn object() -> Result<Outcome> {
    let fresh: PathBuf = workspace::target().join("bpf/fresh.bpf.o");
    match ebpf::fresh(&fresh)? {
        Comparison::Same => Ok(Outcome::Passed("byte for byte".into())),
        Comparison::OtherToolchain => on_object(&fresh),
        Comparison::Stale(why) => bail!("{why}"),
    }
}

fn on_object(object: &Path) -> Result<Outcome> {
    let mut run = Run::with(build::with_object(object)?);
    match kernel::tests(&mut run)? {
        Outcome::Passed(note) => Ok(Outcome::Passed(format!("built by another toolchain, tested: {note}"))),
        not_run @ Outcome::NotRun(_) => Ok(not_run),
    }
}

fn dependencies() -> Result<Outcome> {
    let Some(deny) = process::find("cargo-deny") else {
        return Ok(Outcome::NotRun("no cargo-deny here: `cargo xtask setup`".into()));
    };
    let mut command = Command::new(deny);
    command.current_dir(workspace::root()).args(["--log-level", "error", "--locked"]);
    process::run(command.args(["check", "bans", "licenses", "sources"]))?;
    // The database of advisories is on a host that a build machine may not reach.
    Ok(Outcome::Passed("advisories are for `cargo deny check advisories`".into()))
}
