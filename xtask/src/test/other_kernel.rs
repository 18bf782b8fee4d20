//! Runs the in-kernel tests on another kernel, booted in QEMU.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};
use pomguard_workspace::{self as workspace, process};

use super::{build, count::Count, kernel, outcome::Outcome};

/// The environment variable that holds another folder of the scripts that boot kernels.
const SCRIPTS: &str = "POMGUARD_VM_SCRIPTS";
/// Timeout of a guest. Emulation is slow, above all while two cores are shared.
const TIMEOUT_SECONDS: &str = "2400";

/// The exit code of the script for a kernel that is not available.
pub(super) const NOT_TO_BE_HAD: i32 = 69;

/// The kernels, by their names in the script. Each stands for others: docs/kernel-support.md.
pub(super) const KERNELS: [&str; 3] = ["5.10", "6.1", "6.12"];

/// Runs all packet tests and the basic daemon tests on a kernel.
pub(super) fn corpus(version: &str) -> Result<Outcome> {
    let script = match script() {
        Ok(script) => script,
        Err(reason) => return Ok(Outcome::NotRun(format!("Linux {version}: {reason}"))),
    };
    let built = build::everything()?;
    let tests: Vec<&Path> = PLAN
        .iter()
        .map(|(name, ..)| built.test(name).map(|test| test.path.as_path()))
        .collect::<Result<_>>()?;
    let mut command = Command::new(&script);
    command.args(["--timeout", TIMEOUT_SECONDS, "--mem", "2048"]);
    // Tests may use the path of a file in the tree, so each file has the same path in the guest.
    for path in tests.iter().copied().chain([built.daemon.as_path(), &workspace::root().join("config")]) {
        command.arg("--file").arg(at_the_same_path(path));
    }
    command.args(["--env", "POMGUARD_EMULATED=1", "--env"]);
    command.arg(format!("{}={}", kernel::BINARY, built.daemon.display()));
    command.args([version, "--", "sh", "-c", &guest_script(&tests)]);
    let mut count = Count::default();
    match process::watch(&mut command, |line| count.see(line.trim_end_matches('\r')))? {
        Some(0) => Ok(Outcome::Passed(count.to_string())),
        Some(NOT_TO_BE_HAD) => Ok(Outcome::NotRun(format!("Linux {version} cannot be had here"))),
        Some(124) => bail!("not done after {TIMEOUT_SECONDS} s; {count} until then"),
        status => {
            bail!("{count}; the run ended with {}", status.map_or("a signal".into(), |code| code.to_string()))
        }
    }
}

/// The test binaries that run in the guest, the levels of JIT hardening for each (`bpf_jit_harden`: at 2 the
/// verifier and the JIT work differently; 1, the default of RHEL, has the effect of 0 for root), and a filter
/// of their tests. Emulation is about twenty times slower: tests that prove by volume (every port, random
/// packets) stay on the machine's own kernel.
const PLAN: [(&str, &str, &str); 3] =
    [("object", "1 2", ""), ("packets", "1", ""), ("daemon", "1", "basic_")];

/// Returns the script that boots a kernel. Fails with the reason if there is none.
pub(super) fn script() -> Result<PathBuf, String> {
    let folder = workspace::root().join(env::var_os(SCRIPTS).unwrap_or_else(|| "../shared/vm".into()));
    let script = folder.join("run-on-kernel.sh");
    if script.is_file() {
        Ok(script)
    } else {
        Err(format!("no {} ({SCRIPTS} names its folder)", script.display()))
    }
}

/// Returns a script that runs every planned test binary, all of them even if one fails.
fn guest_script(tests: &[&Path]) -> String {
    let mut script = String::from("failed=0; harden=/proc/sys/net/core/bpf_jit_harden\n");
    for (name, levels, filter) in PLAN {
        for test in tests.iter().filter(|test| is_named(test, name)) {
            let path = test.display();
            script.extend([
                format!("for level in {levels}; do echo $level > $harden; "),
                format!("'{path}' --test-threads=1 {filter} || failed=1; done\n"),
            ]);
        }
    }
    script + "exit $failed"
}

pub(super) fn is_named(binary: &Path, target: &str) -> bool {
    let name = binary.file_name().unwrap_or_default().to_string_lossy();
    name.rsplit_once('-').is_some_and(|(name, _hash)| name == target)
}

pub(super) fn at_the_same_path(path: &Path) -> OsString {
    let mut argument = path.as_os_str().to_owned();
    argument.push(":");
    argument.push(path);
    argument
}
