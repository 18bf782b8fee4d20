//! `cargo xtask dist`: builds the binary that runs on every supported distribution, the bill of materials and
//! the packages.
//!
//! A binary runs if the machine's C library is at least as new as the one that the binary was linked against.
//! RHEL 8 has glibc 2.28, so this command links the file against that version, with the linker of zig, which
//! contains the symbols of every glibc. A static binary is no alternative: if nsswitch.conf names a module,
//! the look-up of a group loads that module, and aborts.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use pomguard_workspace::{self as workspace, process};

mod artefact;
mod old_root;
pub(crate) mod packages;
mod sbom;
mod stage;

use artefact::Artefact;

/// The oldest C library that the file must run on.
const GLIBC: Version = Version(2, 28);
/// The largest size of the file, in bytes.
const LARGEST: u64 = 8_000_000;
/// The target machine.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The tools that link the file, from PyPI. Another version of the tools may produce another file.
const TOOLS: [&str; 2] = ["cargo-zigbuild==0.24.1", "ziglang==0.17.1"];

/// Arguments of `cargo xtask dist`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also run the file in a root of an older distribution (needs root and mmdebstrap)
    #[arg(long = "try")]
    tried: bool,
    /// The distribution of that root: a suite of Debian
    #[arg(long, value_name = "SUITE", default_value = "bullseye", requires = "tried")]
    suite: String,
    /// Check and pack this file instead of building one
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Only the binary: no packages
    #[arg(long)]
    binary_only: bool,
}

/// A version of the C library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

impl std::fmt::Display for Version {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}.{}", self.0, self.1)
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let file = match &args.file {
        Some(file) => file.clone(),
        None => build()?,
    };
    let Artefact { size, glibc, libraries } = Artefact::read(&file)?;
    println!("{}", file.display());
    println!("  {size} bytes, of at most {LARGEST}");
    println!("  asks for glibc {glibc}, of at most {GLIBC}");
    println!("  loads {}", libraries.join(", "));
    ensure!(size <= LARGEST, "the file is too large");
    ensure!(glibc <= GLIBC, "the file does not start on glibc {GLIBC}");
    if args.tried {
        old_root::try_in(&args.suite, &file)?;
    }
    if args.binary_only {
        return Ok(());
    }
    let made = packages::make(&file)?;
    let bill = folder().join(format!("pomguard-{}.cdx.json", env!("CARGO_PKG_VERSION")));
    let staged = stage::folder().join("pomguard.cdx.json");
    fs::copy(&staged, &bill).with_context(|| format!("copy {}", staged.display()))?;
    let files = [file, bill, made.rpm, made.deb];
    let sums = files.iter().map(|file| sum(file)).collect::<Result<String>>()?;
    fs::write(folder().join("SHA256SUMS"), &sums)?;
    print!("{sums}");
    Ok(())
}

/// Builds the binary and both packages, or takes the binary that `POMGUARD_DIST_BINARY` names.
pub(crate) fn packages_of_this_tree() -> Result<packages::Packages> {
    let file = match std::env::var_os("POMGUARD_DIST_BINARY") {
        Some(file) => PathBuf::from(file),
        None => build()?,
    };
    packages::make(&file)
}

/// Returns a line for `sha256sum --check`.
fn sum(file: &Path) -> Result<String> {
    let data = fs::read(file).with_context(|| file.display().to_string())?;
    let name = file.file_name().context("a file without a name")?.to_string_lossy();
    Ok(format!("{}  {name}\n", pomguard_record::hash(&data)))
}

/// Returns the path of the folder with the tools and the file.
fn folder() -> PathBuf {
    workspace::target().join("dist")
}

/// Builds the file without symbols, and copies it to the folder.
fn build() -> Result<PathBuf> {
    let tools = tools()?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(tools).chain(std::env::split_paths(&path)))?;
    let mut command = workspace::cargo("zigbuild");
    command
        .args(["--locked", "--release", "--package", "pomguard", "--bin", "pomguard"])
        .args(["--target", &format!("{TARGET}.{GLIBC}")])
        .env("PATH", path)
        .env("RUSTFLAGS", same_paths_everywhere()?)
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
    process::run(&mut command)?;
    let built = workspace::target().join(TARGET).join("release/pomguard");
    let file = folder().join(format!("pomguard-{}-{TARGET}", env!("CARGO_PKG_VERSION")));
    fs::copy(&built, &file).with_context(|| format!("copy {} to {}", built.display(), file.display()))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    Ok(file)
}

/// Returns flags that write the same source paths into the file, whichever folder the build runs in.
fn same_paths_everywhere() -> Result<String> {
    let (root, crates) = (workspace::root(), workspace::cargo_home());
    let flags = [(root, "/usr/src/pomguard"), (crates.as_path(), "/usr/src/cargo")]
        .map(|(from, to)| Ok::<_, anyhow::Error>(format!("--remap-path-prefix={}={to}", text(from)?)));
    Ok(flags.into_iter().collect::<Result<Vec<_>>>()?.join(" "))
}

/// Installs the tools into a separate folder, unless they are installed. Returns the folder of the tools'
/// programs.
fn tools() -> Result<PathBuf> {
    let home = folder().join("tools");
    let (programs, mark) = (home.join("bin"), home.join("installed"));
    let wanted = TOOLS.join("\n");
    if fs::read_to_string(&mark).is_ok_and(|installed| installed == wanted) {
        return Ok(programs);
    }
    let python = process::find("python3").context("no python3 here: it installs the linker from PyPI")?;
    println!("installing {} into {}", TOOLS.join(" and "), home.display());
    process::run(Command::new(python).args(["-m", "venv", "--clear"]).arg(&home))?;
    let mut pip = Command::new(programs.join("python3"));
    process::run(pip.args(["-m", "pip", "install", "--quiet"]).args(TOOLS))?;
    fs::write(&mark, wanted).with_context(|| mark.display().to_string())?;
    Ok(programs)
}

/// Fails without root; `what` names the operation that needs root.
fn need_root(what: &str) -> Result<()> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { bail!("{what} takes root") }
}

/// Returns a path as text, for a command line.
fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is no UTF-8", path.display()))
}
