//! Paths of the workspace, and the Cargo that builds it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// Returns the workspace's folder.
pub fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).unwrap_or(package)
}

/// Returns Cargo's folder of build products for this machine.
pub fn target() -> PathBuf {
    root().join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// Returns Cargo's folder of installed programs and fetched crates.
pub fn cargo_home() -> PathBuf {
    let home = || Path::new(&env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cargo");
    env::var_os("CARGO_HOME").map_or_else(home, PathBuf::from)
}

/// Returns a command of the Cargo that runs this program, in the workspace's folder.
pub fn cargo(subcommand: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).arg(subcommand);
    command
}

/// Removes the environment variables that a running Cargo sets for its children, so that another toolchain's
/// Cargo starts as if from a shell. Settings of the network and the registry stay.
pub fn forget_outer_cargo(command: &mut Command) {
    const KEPT: &[&str] =
        &["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_", "CARGO_BUILD_JOBS"];
    // The outer toolchain's libraries, found first, would be loaded into the other toolchain's programs.
    const GONE: &[&str] = &["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH"];
    for (name, _) in env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        let starts = |list: &[&str]| list.iter().any(|prefix| text.starts_with(prefix));
        if starts(GONE) && !starts(KEPT) {
            command.env_remove(&name);
        }
    }
}
