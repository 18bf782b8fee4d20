//! `cargo xtask mutate`: checks that a test fails if the packet code is changed in one place.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, iter,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser as _;
use pomguard_record as record;
use pomguard_workspace::{self as workspace, build, process};

mod equivalent;
mod schema;

use equivalent::Equivalents;
use schema::Mutant;

/// The file of the parser, which mutants change.
const PARSER: &str = "pomguard-common/src/parse.rs";
/// The folder of the crate with the packet code.
const CRATE: &str = "pomguard-common/src/";
/// The folder of the decision code, which mutants change.
const RULINGS: &str = "pomguard-common/src/decide";
/// The environment variable that chooses the mutant in a program with all mutants.
const CHOICE: &str = "POMGUARD_MUTANT";
/// The least percentage of mutants that the tests must notice.
const ENOUGH: usize = 95;
/// The timeout of the unchanged tests.
const LONGEST: Duration = Duration::from_secs(600);
/// The timeout of a mutant, as a multiple of the time without any change, and at least. A mutant in an endless loop
/// counts as noticed.
const TIMES: u32 = 4;
const LEAST: Duration = Duration::from_secs(20);
/// Tests that a run leaves out: the published table is read from its file, and the week, which takes longer than all other
/// tests together, would run two thousand times.
const LEFT_OUT: [&str; 4] = ["--skip", "the_published_table_is", "--skip", "fl_17_a_busy_week"];
/// The function by which a changed place asks for the chosen mutant.
const ASKS: &str = "
/// The change of the sources that is in force.
pub mod mutant {
    extern crate std;

    /// Returns true if the change with this number is in force.
    pub fn is(number: u32) -> bool {
        static CHOSEN: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
        let chosen = || std::env::var(\"POMGUARD_MUTANT\").ok().and_then(|text| text.parse().ok());
        *CHOSEN.get_or_init(|| chosen().unwrap_or(0)) == number
    }
}
";

/// Change the packet code in one place at a time, and check that the tests notice
#[derive(clap::Parser)]
#[command(name = "cargo xtask mutate", bin_name = "cargo xtask mutate")]
struct Args {
    /// Only mutants of files whose path contains this text
    #[arg(long, value_name = "TEXT")]
    file: Option<String>,
}

fn main() -> ExitCode {
    workspace::exit(run(&Args::parse()))
}

/// Tries every chosen mutant.
fn run(args: &Args) -> Result<()> {
    let tree = workspace::target().join("mutants");
    let mut mutants = lay_out(&tree)?;
    let equivalents = Equivalents::of(&mutants)?;
    let programs = build_tests(&tree)?;
    let begun = Instant::now();
    ensure!(!notices(&programs, 0, LONGEST)?, "the tests fail without any change: see to that first");
    let limit = LEAST.max(begun.elapsed() * TIMES);
    mutants.retain(|mutant| args.file.as_ref().is_none_or(|text| mutant.file.contains(text)));
    let survivors = survivors(&programs, &mutants, limit)?;
    conclude(&mutants, &survivors, &equivalents)
}

/// Copies the sources and puts all mutants into them.
fn lay_out(tree: &Path) -> Result<Vec<Mutant>> {
    let listed = process::output(Command::new("git").current_dir(workspace::root()).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    let read = |name: &str| fs::read_to_string(workspace::root().join(name)).with_context(|| name.to_owned());
    let (mut mutants, mut types) = (Vec::new(), BTreeSet::new());
    for name in listed.lines().filter(|name| is_mutated(name) && workspace::root().join(name).is_file()) {
        schema::types(&read(name)?, &mut types).with_context(|| name.to_owned())?;
    }
    for name in listed.lines() {
        let (from, to) = (workspace::root().join(name), tree.join(name));
        if !from.is_file() {
            continue;
        }
        fs::create_dir_all(to.parent().context("a file in no folder")?)?;
        if is_mutated(name) {
            write(&to, &schema::schema(name, &read(name)?, &mut mutants)?)?;
        } else if name == "pomguard-common/src/lib.rs" {
            // A mutant that reads outside its array must compile and run, and be noticed.
            let own = read(name)?;
            let own = own.replace(
                "#![no_std]",
                "#![no_std]\n#![allow(warnings, unconditional_panic, arithmetic_overflow)]",
            );
            write(&to, &(own + ASKS))?;
        } else if name.starts_with(CRATE)
            && let Some(source) = schema::callers(&read(name)?, &types).with_context(|| name.to_owned())?
        {
            write(&to, &source)?;
        } else {
            fs::copy(&from, &to).with_context(|| name.to_owned())?;
        }
    }
    println!("{} mutants of {PARSER} and {RULINGS}", mutants.len());
    Ok(mutants)
}

/// Returns true for a file that mutants change.
fn is_mutated(name: &str) -> bool {
    name == PARSER || name.starts_with(RULINGS)
}

/// Writes a file only if its text has changed: Cargo does not build an unchanged file again.
fn write(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::write(path, text).with_context(|| path.display().to_string())
}

/// Builds the test programs that hold every mutant, quickest first.
fn build_tests(tree: &Path) -> Result<Vec<PathBuf>> {
    let test = |package: &str, chosen: &[&str]| -> Result<Vec<PathBuf>> {
        let mut command = workspace::cargo("test");
        // A folder apart from the unchanged sources: Cargo would take a mutated crate for the original.
        command.current_dir(tree).env("CARGO_TARGET_DIR", tree.join("target"));
        // The object was not built from these sources, and is not under test.
        command.env("POMGUARD_EBPF_OBJECT", workspace::root().join(record::OBJECT));
        command.args(["--locked", "--quiet", "--package", package]).args(chosen);
        let built = build::artifacts(command.arg("--no-run"))?;
        let programs = built.into_iter().filter(|artifact| artifact.profile.test);
        Ok(programs.filter_map(|artifact| artifact.executable).map(PathBuf::from).collect())
    };
    let mut programs = test("pomguard-common", &["--lib"])?;
    let mut whole = test("pomguard-tests", &["--test", "differential", "--test", "packets"])?;
    whole.sort();
    programs.append(&mut whole);
    Ok(programs)
}

/// Returns true if the tests notice a mutant, or take longer than a limit.
fn notices(programs: &[PathBuf], number: u32, limit: Duration) -> Result<bool> {
    for program in programs {
        let differential = program.to_string_lossy().contains("differential-");
        let filter: &[&str] = if differential { &["naive_reading_of"] } else { &LEFT_OUT };
        let mut child = Command::new(program)
            .args(filter)
            .env(CHOICE, number.to_string())
            .envs([("POMGUARD_HOST_ONLY", "1"), ("RUST_BACKTRACE", "0"), ("POMGUARD_FUZZ_WHOLE", "1")])
            .envs([("POMGUARD_FUZZ_SEED", "2026"), ("POMGUARD_FUZZ_PACKETS", "49000")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| program.display().to_string())?;
        let begun = Instant::now();
        let status = loop {
            match child.try_wait()? {
                Some(status) => break Some(status),
                None if begun.elapsed() > limit => break None,
                None => thread::sleep(Duration::from_millis(5)),
            }
        };
        let Some(status) = status else {
            child.kill()?;
            child.wait()?;
            return Ok(true);
        };
        if !status.success() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the mutants that no test notices.
fn survivors<'a>(programs: &[PathBuf], mutants: &'a [Mutant], limit: Duration) -> Result<Vec<&'a Mutant>> {
    let next = AtomicUsize::new(0);
    let tries = || -> Result<Vec<&Mutant>> {
        let mut survivors = Vec::new();
        while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
            if mutant.number % 100 == 0 {
                println!("up to {} of {} tried", mutant.number, mutants.last().map_or(0, |last| last.number));
            }
            if !notices(programs, mutant.number, limit)? {
                println!("not noticed: {mutant}");
                survivors.push(mutant);
            }
        }
        Ok(survivors)
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(tries)).collect();
        let mut all = Vec::new();
        for worker in workers {
            match worker.join() {
                Ok(found) => all.extend(found?),
                Err(_) => bail!("a worker ended early"),
            }
        }
        all.sort_by_key(|mutant| mutant.number);
        Ok(all)
    })
}

fn conclude(mutants: &[Mutant], survivors: &[&Mutant], equivalents: &Equivalents) -> Result<()> {
    let (explained, open): (Vec<&Mutant>, Vec<&Mutant>) =
        survivors.iter().partition(|mutant| equivalents.why(mutant).is_some());
    let mut per_file: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for (column, mutants) in [mutants.iter().collect(), explained.clone(), open.clone()].iter().enumerate() {
        for mutant in mutants {
            per_file.entry(&mutant.file).or_default()[column] += 1;
        }
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["file", "mutants", "change nothing", "not noticed"]);
    for (file, counts) in per_file {
        table.add_row(iter::once(file.to_owned()).chain(counts.iter().map(usize::to_string)));
    }
    println!("\n{table}\n");
    for mutant in &explained {
        println!("{mutant}: {}", equivalents.why(mutant).unwrap_or_default());
    }
    for mutant in &open {
        println!("not noticed: {mutant}");
    }
    let noticed = mutants.len() - survivors.len();
    let effective = mutants.len() - explained.len();
    println!(
        "\n{noticed} of {} mutants noticed, {} %; of the {effective} that change anything {} %",
        mutants.len(),
        percent(noticed, mutants.len()),
        percent(noticed, effective),
    );
    let noticed_after_all: Vec<String> = mutants
        .iter()
        .filter(|mutant| equivalents.why(mutant).is_some())
        .filter(|mutant| explained.iter().all(|it| it.number != mutant.number))
        .map(ToString::to_string)
        .collect();
    ensure!(
        noticed_after_all.is_empty(),
        "{} says that these change nothing, and a test noticed them:\n{}",
        equivalent::LIST,
        noticed_after_all.join("\n")
    );
    ensure!(noticed * 100 >= effective * ENOUGH, "fewer than {ENOUGH} % of the mutants were noticed");
    Ok(())
}

/// Formats a percentage with one decimal place, rounded down.
fn percent(part: usize, whole: usize) -> String {
    let tenths = part * 1_000 / whole.max(1);
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_mutant_exists() {
        let folder = workspace::root().join(RULINGS);
        let rulings = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let rulings = rulings.map(|name| format!("{RULINGS}/{}", name.to_str().unwrap()));
        let mut mutants = Vec::new();
        for name in rulings.chain([PARSER.to_owned()]).filter(|name| workspace::root().join(name).is_file()) {
            let source = fs::read_to_string(workspace::root().join(&name)).unwrap();
            schema::schema(&name, &source, &mut mutants).unwrap();
        }
        assert!(mutants.len() > 1_000, "{}", mutants.len());
        Equivalents::of(&mutants).unwrap();
    }
}
