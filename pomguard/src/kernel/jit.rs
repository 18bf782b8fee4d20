//! The kernel's compiler of BPF programs.

use std::fs;

use super::KernelError;

/// 0 if the kernel interprets programs. A kernel that always compiles them may not have the file.
const SETTING: &str = "/proc/sys/net/core/bpf_jit_enable";

/// Refuses a kernel that interprets programs: every packet would cost several times as much, and a flood that the
/// host withstands otherwise would cut its calls.
///
/// # Errors
/// [`KernelError::Interpreted`].
pub(super) fn require() -> Result<(), KernelError> {
    match fs::read_to_string(SETTING) {
        Ok(text) if text.trim() == "0" => Err(KernelError::Interpreted),
        _ => Ok(()),
    }
}
