//! The kernel, its limits, this boot and the next.

use super::{Finding, Severity};
use crate::kernel::doctor::{Boot, MachineFacts, SystemFacts};

/// Kernels that the tests boot, by the first two numbers (docs/kernel-support.md).
const TESTED: [(u64, u64); 4] = [(5, 10), (6, 1), (6, 12), (6, 18)];
/// The oldest upstream kernel with all needed features. A distribution's kernel may have them under an older
/// number.
const OLDEST: (u64, u64) = (5, 9);
/// The memory in bytes that the unit may use, and that every possible processor costs.
const NEEDED: u64 = 256 * 1024 * 1024;
/// More possible processors than this make the per-processor maps large.
const MANY_PROCESSORS: u32 = 128;

/// Returns findings about the machine.
pub(super) fn judge(machine: &MachineFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    kernel(&machine.system, &mut findings);
    rights(machine, &mut findings);
    limits(&machine.system, &mut findings);
    security(&machine.system, &mut findings);
    boot(&machine.boot, &mut findings);
    findings
}

fn kernel(system: &SystemFacts, findings: &mut Vec<Finding>) {
    let release = &system.release;
    let (severity, sentence) = match version(release) {
        None => (Severity::Attention, format!("The kernel's release \"{release}\" cannot be read.")),
        Some(version) if version < OLDEST && !is_rhel_8(release) => (
            Severity::Failed,
            format!("Linux {release} is older than 5.9, and has no links for XDP programs."),
        ),
        Some(version) if is_tested(version, release) => {
            (Severity::Good, format!("Linux {release} is of a version that pomguard was tested on."))
        }
        Some(_) => (
            Severity::Attention,
            format!(
                "Linux {release} is of no version that pomguard was tested on: try it in audit mode first."
            ),
        ),
    };
    findings.push(Finding::new(severity, "kernel", sentence, "uname -r"));
    if system.realtime {
        findings.push(Finding::new(
            Severity::Attention,
            "kernel",
            "This is a real-time kernel (PREEMPT_RT). pomguard was not tested on one, and its programs rely on one \
             packet at a time on a processor: use the standard kernel, or read docs/kernel-support.md.",
            "cat /sys/kernel/realtime",
        ));
    }
    if system.btf {
        findings.push(Finding::new(
            Severity::Good,
            "BTF",
            "The kernel describes its types (BTF).",
            "ls -l /sys/kernel/btf/vmlinux",
        ));
    } else {
        findings.push(Finding::new(
            Severity::Note,
            "BTF",
            "The kernel does not describe its own types (BTF); pomguard brings those of its maps along.",
            "ls -l /sys/kernel/btf/vmlinux",
        ));
    }
    if system.bpffs {
        findings.push(Finding::new(
            Severity::Good,
            "bpffs",
            "A BPF file system is mounted at /sys/fs/bpf.",
            "findmnt /sys/fs/bpf",
        ));
    } else {
        findings.push(Finding::new(
            Severity::Failed,
            "bpffs",
            "No BPF file system is mounted at /sys/fs/bpf, where everything that enforces is pinned.",
            "mount -t bpf bpf /sys/fs/bpf",
        ));
    }
}

fn rights(machine: &MachineFacts, findings: &mut Vec<Finding>) {
    if !machine.root {
        findings.push(Finding::new(
            Severity::Note,
            "rights",
            "Without root, programs of others and rules of other firewalls are not looked at.",
            "sudo pomguard doctor",
        ));
    } else if !machine.system.missing_capabilities.is_empty() {
        findings.push(Finding::new(
            Severity::Failed,
            "rights",
            format!(
                "This root lacks {}: the programs cannot be loaded from here, as in a container.",
                machine.system.missing_capabilities.join(", ")
            ),
            "capsh --print",
        ));
    } else {
        findings.push(Finding::new(
            Severity::Good,
            "rights",
            "This process has all capabilities that loading and attaching take.",
            "capsh --print",
        ));
    }
    if machine.system.unprivileged == Some(0) {
        findings.push(Finding::new(
            Severity::Note,
            "BPF",
            "Every user of this machine may load BPF programs.",
            "sysctl -w kernel.unprivileged_bpf_disabled=1",
        ));
    }
}

fn limits(system: &SystemFacts, findings: &mut Vec<Finding>) {
    match system.jit {
        Some(0) => findings.push(Finding::new(
            Severity::Attention,
            "JIT",
            "The kernel interprets BPF programs, and pomguard does not start on such a kernel.",
            "sysctl -w net.core.bpf_jit_enable=1",
        )),
        Some(_) => findings.push(Finding::new(
            Severity::Good,
            "JIT",
            "The kernel compiles BPF programs.",
            "sysctl net.core.bpf_jit_enable",
        )),
        // Only root may read the setting, and a kernel that always compiles does not have one.
        None => {}
    }
    // From 5.11 on maps are charged to the cgroup.
    if let Some(locked) = system.locked.filter(|_| version(&system.release).is_some_and(|it| it < (5, 11))) {
        findings.push(Finding::new(
            Severity::Note,
            "memory",
            format!(
                "This shell may lock {} KiB, which this kernel's maps count against; the unit lifts the limit.",
                locked / 1024
            ),
            "systemctl show --property LimitMEMLOCK pomguard",
        ));
    }
    if let Some(available) = system.available {
        let short = available < NEEDED;
        let sentence =
            format!("{} MiB of memory are available, of 256 MiB that pomguard may take.", available >> 20);
        let severity = if short { Severity::Attention } else { Severity::Good };
        findings.push(Finding::new(severity, "memory", sentence, "free -m"));
    }
    if let (Some(possible), Some(online)) = (system.possible, system.online)
        && possible > MANY_PROCESSORS
    {
        findings.push(Finding::new(
            Severity::Attention,
            "processors",
            format!(
                "The machine may have {possible} processors and has {online}: counters take memory for all of them."
            ),
            "cat /sys/devices/system/cpu/possible",
        ));
    }
}

fn security(system: &SystemFacts, findings: &mut Vec<Finding>) {
    match system.synchronized {
        Some(true) => findings.push(Finding::new(
            Severity::Good,
            "clock",
            "The clock is set by a time server.",
            "timedatectl",
        )),
        Some(false) => findings.push(Finding::new(
            Severity::Note,
            "clock",
            "No time server sets the clock: times in the history may be wrong, deadlines are not.",
            "timedatectl set-ntp true",
        )),
        None => {}
    }
    match system.lockdown.as_deref() {
        Some("confidentiality") => findings.push(Finding::new(
            Severity::Attention,
            "lockdown",
            "The kernel is locked down for confidentiality, which forbids some BPF helpers.",
            "cat /sys/kernel/security/lockdown",
        )),
        Some("integrity") => findings.push(Finding::new(
            Severity::Good,
            "lockdown",
            "The kernel is locked down for integrity, which allows all that pomguard does.",
            "cat /sys/kernel/security/lockdown",
        )),
        _ => {}
    }
    let labelled = system.selinux_label.as_deref().is_some_and(|label| label.contains("pomguard_exec_t"));
    match system.selinux {
        Some(enforcing) if !labelled => findings.push(Finding::new(
            Severity::Note,
            "SELinux",
            format!(
                "SELinux is {}, and pomguard runs without a domain of its own.",
                if enforcing { "enforcing" } else { "permissive" }
            ),
            "semodule --install=/usr/share/selinux/packages/pomguard.pp",
        )),
        Some(_) => findings.push(Finding::new(
            Severity::Good,
            "SELinux",
            "The binary has the label of pomguard's policy module.",
            "ls -Z /usr/sbin/pomguard",
        )),
        None => {}
    }
}

fn boot(boot: &Boot, findings: &mut Vec<Finding>) {
    match boot.enabled {
        Some(false) => findings.push(Finding::new(
            Severity::Attention,
            "boot",
            "The service is not enabled: after a reboot nothing is enforced.",
            "systemctl enable pomguard",
        )),
        Some(true) if boot.active == Some(false) => findings.push(Finding::new(
            Severity::Attention,
            "boot",
            "The service is enabled and does not run.",
            "systemctl status pomguard",
        )),
        _ => {}
    }
    if let Some(enforced) = boot.enforced {
        let seconds =
            |microseconds: u64| format!("{}.{} s", microseconds / 1_000_000, microseconds / 100_000 % 10);
        let (severity, about) = match boot.network {
            Some(network) if network < enforced => {
                (Severity::Attention, format!("the network was let up before that, at {}", seconds(network)))
            }
            Some(network) => {
                (Severity::Good, format!("the network was let up after that, at {}", seconds(network)))
            }
            None => (Severity::Good, "nothing waits for the network here".to_owned()),
        };
        findings.push(Finding::new(
            severity,
            "boot",
            format!("The policy was first in force {} after the kernel's start; {about}.", seconds(enforced)),
            "journalctl --boot --output=short-monotonic --unit=pomguard",
        ));
    }
    if let Some(next) = boot.newer.first() {
        let tested = version(next).is_some_and(|version| is_tested(version, next));
        let (severity, sentence) = if tested {
            (
                Severity::Good,
                format!("The next boot may start Linux {next}, a version that pomguard was tested on."),
            )
        } else {
            (
                Severity::Attention,
                format!("The next boot may start Linux {next}, a version that pomguard was not tested on."),
            )
        };
        findings.push(Finding::new(severity, "next boot", sentence, "ls /lib/modules"));
    }
}

/// Returns the first two numbers of a kernel release.
fn version(release: &str) -> Option<(u64, u64)> {
    let mut parts = release.split(|letter: char| !letter.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Returns true for a kernel of RHEL 8, which reports 4.18 and has the needed features from 8.4 on.
fn is_rhel_8(release: &str) -> bool {
    release.starts_with("4.18.") && release.contains(".el8")
}

/// Returns true if the tests boot this version. RHEL's kernel is a rebuild with different code under the same
/// number.
fn is_tested(version: (u64, u64), release: &str) -> bool {
    TESTED.contains(&version) && !release.contains(".el")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find<'a>(findings: &'a [Finding], subject: &str) -> Vec<(Severity, &'a str)> {
        let of = |finding: &&Finding| finding.subject == subject;
        findings.iter().filter(of).map(|finding| (finding.severity, finding.sentence.as_str())).collect()
    }

    fn system(release: &str) -> SystemFacts {
        SystemFacts { release: release.to_owned(), btf: true, bpffs: true, ..SystemFacts::default() }
    }

    #[test]
    fn kernels_are_judged_by_what_was_tested() {
        for (release, severity) in [
            ("6.12.118+deb13-amd64", Severity::Good),
            ("5.10.0-46-cloud-amd64", Severity::Good),
            ("6.18.0", Severity::Good),
            ("7.3.0", Severity::Attention),
            ("6.12.0-55.el10.x86_64", Severity::Attention),
            ("4.18.0-553.el8_10.x86_64", Severity::Attention),
            ("4.18.0-25-generic", Severity::Failed),
            ("5.4.0", Severity::Failed),
            ("odd", Severity::Attention),
        ] {
            let mut findings = Vec::new();
            kernel(&system(release), &mut findings);
            assert_eq!(find(&findings, "kernel")[0].0, severity, "{release}");
        }
    }

    #[test]
    fn network_before_the_policy_is_attention() {
        for (enforced, network, severity) in [
            (Some(2_000_000), Some(3_000_000), Severity::Good),
            (Some(3_000_000), Some(2_000_000), Severity::Attention),
        ] {
            let mut findings = Vec::new();
            boot(&Boot { enforced, network, enabled: Some(true), ..Boot::default() }, &mut findings);
            assert_eq!(find(&findings, "boot")[0].0, severity, "{enforced:?} {network:?}");
        }
        let mut findings = Vec::new();
        boot(&Boot { enabled: Some(true), active: Some(false), ..Boot::default() }, &mut findings);
        assert_eq!(find(&findings, "boot")[0].0, Severity::Attention);
        let mut findings = Vec::new();
        boot(
            &Boot { enabled: Some(false), newer: vec!["7.3.0".to_owned()], ..Boot::default() },
            &mut findings,
        );
        assert_eq!(find(&findings, "boot")[0].0, Severity::Attention);
        assert_eq!(find(&findings, "next boot")[0].0, Severity::Attention);
    }

    #[test]
    fn limits_are_named_with_their_numbers() {
        let mut findings = Vec::new();
        let few = SystemFacts {
            available: Some(64 << 20),
            jit: Some(0),
            possible: Some(255),
            online: Some(2),
            locked: Some(65_536),
            realtime: true,
            ..system("5.10.0")
        };
        kernel(&few, &mut findings);
        assert!(find(&findings, "kernel").iter().any(|(_, it)| it.contains("PREEMPT_RT")), "{findings:#?}");
        limits(&few, &mut findings);
        for (subject, number) in
            [("memory", "64 KiB"), ("memory", "64 MiB"), ("processors", "255"), ("JIT", "interprets")]
        {
            assert!(
                find(&findings, subject).iter().any(|(_, it)| it.contains(number)),
                "{subject}: {findings:#?}"
            );
        }
    }
}
