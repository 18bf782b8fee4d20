//! The kernel, its limits and its security modules.

use std::{fs, path::Path};

use nix::sys::{
    resource::{Resource, getrlimit},
    statfs::{FsType, statfs},
};

use crate::kernel::capabilities;

/// Magic number of the BPF file system (include/uapi/linux/magic.h).
const BPF_FS: FsType = FsType(0xcafe_4a11);

/// Facts about the whole machine. A number that cannot be read is `None`.
#[derive(Clone, Debug, Default)]
pub struct SystemFacts {
    /// The kernel's release, as `uname -r` shows it.
    pub release: String,
    /// True if the kernel is a real-time kernel (PREEMPT_RT).
    pub realtime: bool,
    /// True if the kernel describes its own types (BTF).
    pub btf: bool,
    /// True if a bpffs is mounted at `/sys/fs/bpf`.
    pub bpffs: bool,
    /// Capabilities that this process lacks.
    pub missing_capabilities: Vec<&'static str>,
    /// `net.core.bpf_jit_enable`: 0 means that programs are interpreted.
    pub jit: Option<u64>,
    /// `kernel.unprivileged_bpf_disabled`: 0 lets every user load programs.
    pub unprivileged: Option<u64>,
    /// Limit of locked memory in bytes; `None` means no limit. The limit counts only before Linux 5.11.
    pub locked: Option<u64>,
    /// Available memory in bytes.
    pub available: Option<u64>,
    /// Number of possible processors: every per-CPU map has a copy for each.
    pub possible: Option<u32>,
    /// Number of processors that are online.
    pub online: Option<u32>,
    /// The clock source.
    pub clock_source: Option<String>,
    /// True if a time server disciplines the clock.
    pub synchronized: Option<bool>,
    /// The mode of the kernel's own lockdown (`/sys/kernel/security/lockdown`).
    pub lockdown: Option<String>,
    /// True if SELinux enforces, false if permissive; `None` without SELinux.
    pub selinux: Option<bool>,
    /// SELinux label of the binary, which shows if pomguard's policy module is loaded.
    pub selinux_label: Option<String>,
}

impl SystemFacts {
    /// Reads the facts from `/proc`, `/sys` and system calls.
    pub(super) fn read() -> Self {
        Self {
            release: line("/proc/sys/kernel/osrelease").unwrap_or_default(),
            realtime: number("/sys/kernel/realtime") == Some(1),
            btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
            bpffs: statfs("/sys/fs/bpf").is_ok_and(|facts| facts.filesystem_type() == BPF_FS),
            missing_capabilities: capabilities::missing(),
            jit: number("/proc/sys/net/core/bpf_jit_enable"),
            unprivileged: number("/proc/sys/kernel/unprivileged_bpf_disabled"),
            locked: getrlimit(Resource::RLIMIT_MEMLOCK)
                .ok()
                .map(|(soft, _)| soft)
                .filter(|&soft| soft != libc::RLIM_INFINITY),
            available: available(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
            possible: line("/sys/devices/system/cpu/possible").as_deref().and_then(count),
            online: line("/sys/devices/system/cpu/online").as_deref().and_then(count),
            clock_source: line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            synchronized: synchronized(),
            lockdown: line("/sys/kernel/security/lockdown").as_deref().and_then(chosen),
            selinux: number("/sys/fs/selinux/enforce").map(|enforce| enforce == 1),
            selinux_label: label("/usr/sbin/pomguard"),
        }
    }
}

/// Returns the first line of a file; `None` if the file is missing or the line empty.
pub(super) fn line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
}

fn number(path: &str) -> Option<u64> {
    line(path)?.parse().ok()
}

/// Returns the available memory in bytes from the text of `/proc/meminfo`.
fn available(text: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// Counts the numbers in a list of ranges such as `0-3,8`.
fn count(list: &str) -> Option<u32> {
    list.split(',').try_fold(0_u32, |sum, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

/// Returns the word in brackets, as in `none [integrity] confidentiality`.
fn chosen(list: &str) -> Option<String> {
    let (_, rest) = list.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word.to_owned())
}

/// Returns true if the kernel's clock is disciplined.
fn synchronized() -> Option<bool> {
    // SAFETY: an all-zero `timex` is a request that changes nothing.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills the whole `timex`, which outlives the call.
    let result = unsafe { libc::adjtimex(&raw mut state) };
    (result >= 0).then_some(state.status & libc::STA_UNSYNC == 0)
}

/// Returns the SELinux label of a file.
fn label(path: &str) -> Option<String> {
    let path = std::ffi::CString::new(path).ok()?;
    let mut value = [0_u8; 256];
    // SAFETY: both strings end with a zero, and the kernel writes at most the length of `value`.
    let length = unsafe {
        libc::getxattr(path.as_ptr(), c"security.selinux".as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    let bytes = value.get(..usize::try_from(length).ok()?)?;
    Some(String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_counted() {
        for (list, expected) in
            [("0", Some(1)), ("0-3", Some(4)), ("0-3,8", Some(5)), ("3-0", None), ("", None), ("0-x", None)]
        {
            assert_eq!(count(list), expected, "{list}");
        }
    }

    #[test]
    fn words_of_proc_and_sys_are_read() {
        assert_eq!(chosen("none [integrity] confidentiality"), Some("integrity".to_owned()));
        assert_eq!(chosen("none"), None);
        assert_eq!(available("MemFree: 1 kB\nMemAvailable:   2048 kB\n"), Some(2 * 1024 * 1024));
        assert_eq!(available(""), None);
    }

    #[test]
    fn running_kernel_has_a_release() {
        assert!(SystemFacts::read().release.contains('.'));
    }
}
