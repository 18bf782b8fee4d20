//! Finds a BPF toolchain on this machine.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};
use pomguard_workspace::{self as workspace, process};

/// The BPF target of this machine's byte order: every supported machine is little-endian.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// A compiler and its Cargo that can compile for the BPF target.
pub(crate) struct Compiler {
    /// Name of the compiler for messages.
    pub(crate) name: &'static str,
    pub(crate) cargo: PathBuf,
    pub(crate) rustc: PathBuf,
    /// True if the compiler comes without `core` for the target, so that Cargo has to build `core`, too.
    pub(crate) builds_core: bool,
}

/// A compiler, and the linker that makes BPF objects from its output.
pub(crate) struct Toolchain {
    pub(crate) compiler: Compiler,
    pub(crate) linker: PathBuf,
}

impl Toolchain {
    /// Returns the first complete compiler, and the linker.
    pub(crate) fn find() -> Result<Self> {
        let compiler = Compiler::find()?;
        let Some(linker) = process::find("bpf-linker") else {
            bail!("no bpf-linker here: `cargo xtask setup` installs it");
        };
        Ok(Self { compiler, linker })
    }

    /// Describes the toolchain of an object. Two objects with the same sources and the same description are
    /// the same.
    pub(crate) fn versions(&self) -> Result<String> {
        let rustc = process::output(bare(&self.compiler.rustc).arg("--version"))?;
        let linker = process::output(bare(&self.linker).arg("--version"))?;
        Ok(format!("{}, LLVM {}, {}", rustc.trim(), self.compiler.llvm()?, linker.trim()))
    }
}

impl Compiler {
    /// Returns the first complete compiler. Fails with a list of the parts that each kind lacks.
    pub(crate) fn find() -> Result<Self> {
        let mut missing = Vec::new();
        for way in [Self::of_distribution, Self::of_rustup] {
            match way() {
                Ok(compiler) => return Ok(compiler),
                Err(reason) => missing.push(reason.to_string()),
            }
        }
        bail!("no BPF compiler here: `cargo xtask setup` installs one ({})", missing.join("; "))
    }

    /// Returns a compiler under /usr with a prebuilt `core` for the target, as Debian packages it.
    fn of_distribution() -> Result<Self> {
        let (cargo, rustc) = (PathBuf::from("/usr/bin/cargo"), PathBuf::from("/usr/bin/rustc"));
        if !cargo.is_file() || !rustc.is_file() {
            bail!("distribution: no /usr/bin/cargo or /usr/bin/rustc");
        }
        let mut ask = bare(&rustc);
        ask.args(["--print", "target-libdir", "--target", TARGET]);
        let folder = process::output(&mut ask)?;
        if !Path::new(folder.trim()).is_dir() {
            bail!("distribution: /usr/bin/rustc has no core library for {TARGET}");
        }
        Ok(Self { name: "distribution", cargo, rustc, builds_core: false })
    }

    /// Returns a nightly compiler of rustup with the standard library's sources.
    fn of_rustup() -> Result<Self> {
        let Some(rustup) = process::find("rustup") else { bail!("rustup: not installed") };
        let which = |program| {
            let mut ask = bare(&rustup);
            // This query must not start a download.
            ask.args(["which", "--toolchain", "nightly", program]).env("RUSTUP_AUTO_INSTALL", "0");
            process::output(&mut ask).map(|path| PathBuf::from(path.trim()))
        };
        let (Ok(cargo), Ok(rustc)) = (which("cargo"), which("rustc")) else {
            bail!("rustup: no nightly toolchain")
        };
        let mut ask = bare(&rustc);
        let sysroot = process::output(ask.args(["--print", "sysroot"]))?;
        if !Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").is_dir() {
            bail!("rustup: the nightly toolchain has no rust-src");
        }
        Ok(Self { name: "rustup nightly", cargo, rustc, builds_core: true })
    }

    /// Returns the version of the compiler's LLVM.
    pub(crate) fn llvm(&self) -> Result<String> {
        llvm_of(&self.rustc)
    }

    /// Returns a command of this toolchain's Cargo, as if typed in a shell that knows no other toolchain.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut command = bare(&self.cargo);
        command.current_dir(workspace::root()).arg(subcommand).env("RUSTC", &self.rustc);
        // aya-ebpf uses inline assembly for BPF, which is unstable in every stable compiler.
        command.env("RUSTC_BOOTSTRAP", "1");
        // A build script that runs `rustc`, and `cargo clippy`, search PATH. Cargo would search its installed
        // programs first, where rustup's are, unless PATH names that folder later.
        let first = self.cargo.parent().into_iter().map(Path::to_path_buf);
        let path = env::var_os("PATH").unwrap_or_default();
        let last = workspace::cargo_home().join("bin");
        if let Ok(joined) = env::join_paths(first.chain(env::split_paths(&path)).chain([last])) {
            command.env("PATH", joined);
        }
        command
    }
}

/// Returns the version of a compiler's LLVM.
pub(crate) fn llvm_of(rustc: &Path) -> Result<String> {
    let text = process::output(bare(rustc).arg("-vV"))?;
    let version = text.lines().find_map(|line| line.strip_prefix("LLVM version: "));
    Ok(version.unwrap_or("unknown").to_owned())
}

fn bare(program: &Path) -> Command {
    let mut command = Command::new(program);
    workspace::forget_outer_cargo(&mut command);
    command
}
