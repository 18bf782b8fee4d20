//! The capabilities that this process needs and lacks.

use std::fs;

/// The capabilities that loading and attaching need, with their numbers of linux/capability.h.
const NEEDED: [(&str, u32); 3] = [("CAP_NET_ADMIN", 12), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];
/// `CAP_SYS_ADMIN`, which includes `CAP_PERFMON` and `CAP_BPF`.
const SYS_ADMIN: u32 = 21;

/// Returns the names of the missing capabilities; empty if the kernel does not report the set.
#[must_use]
pub fn missing() -> Vec<&'static str> {
    missing_in(&fs::read_to_string("/proc/self/status").unwrap_or_default())
}

/// Returns the names of the capabilities that are missing in the text of a `/proc/PID/status`.
fn missing_in(status: &str) -> Vec<&'static str> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(effective) = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()) else {
        return Vec::new();
    };
    let has = |number: u32| effective >> number & 1 == 1;
    let covered = |number| number > SYS_ADMIN && has(SYS_ADMIN);
    NEEDED.into_iter().filter(|&(_, number)| !has(number) && !covered(number)).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::missing_in;

    #[test]
    fn what_a_process_lacks_is_named() {
        for (effective, missing) in [
            ("000001ffffffffff", &[][..]),
            // As the unit grants.
            ("000000c000001000", &[]),
            ("0000008000001000", &["CAP_PERFMON"]),
            // An older way to run pomguard: all powers of the administrator.
            ("0000000000201000", &[]),
            ("0000000000200000", &["CAP_NET_ADMIN"]),
            ("0000000000000000", &["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"]),
        ] {
            assert_eq!(missing_in(&format!("Name:\tx\nCapEff:\t{effective}\n")), missing, "{effective}");
        }
        assert!(missing_in("Name:\tx\n").is_empty(), "what is not told is not claimed");
    }
}
