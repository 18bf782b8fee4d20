//! `cargo xtask ebpf`: builds the object from source, with the BPF toolchain of this machine.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use pomguard_record as record;
use pomguard_workspace as workspace;

mod build;
mod inspect;
mod stack;
mod toolchain;

pub(crate) use toolchain::{Compiler, TARGET, Toolchain, llvm_of};

/// Arguments of `cargo xtask ebpf`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write the object here, and no record, instead of replacing the committed one
    #[arg(long, value_name = "PATH", conflicts_with = "check")]
    out: Option<PathBuf>,
    /// Write nothing; fail unless the sources build the committed object
    #[arg(long)]
    check: bool,
    /// The BPF instruction set; v3 (Linux 5.1) is the newest that every supported kernel has
    #[arg(long, default_value = DEFAULT_CPU, value_parser = ["v1", "v2", "v3", "v4"])]
    cpu: String,
}

/// v3 adds 32-bit arithmetic and jumps. The programs do not use its atomics that return a value, which need
/// Linux 5.12.
pub(crate) const DEFAULT_CPU: &str = "v3";

/// The result of comparing a fresh build with the committed object.
pub(crate) enum Comparison {
    /// The bytes are the same.
    Same,
    /// Another toolchain built the committed object, so a comparison of the bytes proves nothing.
    OtherToolchain,
    /// The sources do not build the committed object, with the reason.
    Stale(String),
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let built = build::objects(&Toolchain::find()?, &args.cpu)?;
    inspect::print(&built.object)?;
    let root = workspace::root();
    if args.check {
        match compare(&built)? {
            Comparison::Same => println!("the committed objects are these, byte for byte"),
            Comparison::OtherToolchain => {
                println!("the committed objects have the same sources, and were built by another toolchain");
            }
            Comparison::Stale(why) => bail!("{why}"),
        }
    } else if let Some(path) = &args.out {
        write(path, &built.object)?;
        println!("wrote {}", path.display());
    } else {
        for (path, bytes) in built.objects() {
            write(&root.join(path), bytes)?;
        }
        write(&root.join(record::RECORD), text_of_record(&built)?.as_bytes())?;
        println!("wrote {}, {} and {}", record::OBJECT, record::BENCH_OBJECT, record::RECORD);
    }
    Ok(())
}

/// Builds the object into `path`, for tests, and compares it with the committed one.
pub(crate) fn fresh(path: &Path) -> Result<Comparison> {
    let built = build::objects(&Toolchain::find()?, DEFAULT_CPU)?;
    inspect::print(&built.object)?;
    write(path, &built.object)?;
    compare(&built)
}

/// Checks that the committed object was built from the present sources and that they build it again.
fn compare(built: &build::Built) -> Result<Comparison> {
    let root = workspace::root();
    let text = fs::read_to_string(root.join(record::RECORD)).context(record::RECORD)?;
    let changed = record::differences(&record::parse(&text), &record::of_tree(root)?);
    if !changed.is_empty() {
        let list = changed.join(", ");
        return Ok(Comparison::Stale(format!(
            "{} is stale: run `cargo xtask ebpf`; changed: {list}",
            record::OBJECT
        )));
    }
    let mut differing = Vec::new();
    for (path, bytes) in built.objects() {
        if fs::read(root.join(path)).context(path)? != bytes {
            differing.push(path);
        }
    }
    if differing.is_empty() {
        return Ok(Comparison::Same);
    }
    if text.lines().any(|line| line == built_by(built)) {
        let list = differing.join(", ");
        let why = format!("not what the same toolchain makes of the same sources: {list}");
        return Ok(Comparison::Stale(why));
    }
    Ok(Comparison::OtherToolchain)
}

impl build::Built {
    /// Returns the path and the bytes of each committed object.
    fn objects(&self) -> [(&'static str, &[u8]); 2] {
        [(record::OBJECT, &self.object), (record::BENCH_OBJECT, &self.bench)]
    }
}

fn text_of_record(built: &build::Built) -> Result<String> {
    let mut text = format!(
        "# What {} and {} were built from; the build compares it. Written by `cargo xtask ebpf`.\n{}\n",
        record::OBJECT,
        record::BENCH_OBJECT,
        built_by(built)
    );
    for (path, hash) in record::of_tree(workspace::root())? {
        text.extend([hash.as_str(), "  ", path.as_str(), "\n"]);
    }
    Ok(text)
}

fn built_by(built: &build::Built) -> String {
    format!("# Built by {}.", built.by)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().with_context(|| format!("{} has no folder", path.display()))?;
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    fs::write(path, bytes).with_context(|| path.display().to_string())
}
