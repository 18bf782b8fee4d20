//! The kernel's compiler of BPF programs.

use std::fs;

use aya::programs::ProgramInfo;

use super::KernelError;

/// 0 if the kernel interprets programs. Network namespaces other than the first one do not have the file, and
/// neither does a kernel without the compiler.
const SETTING: &str = "/proc/sys/net/core/bpf_jit_enable";

/// Refuses a kernel that is set to interpret programs, before the programs are loaded: every packet would cost
/// several times as much, and a flood that the host withstands otherwise would cut its calls.
///
/// # Errors
/// [`KernelError::Interpreted`].
pub(super) fn require() -> Result<(), KernelError> {
    match fs::read_to_string(SETTING) {
        Ok(text) if text.trim() == "0" => Err(KernelError::Interpreted),
        _ => Ok(()),
    }
}

/// Refuses a program that the kernel has loaded without compiling it.
///
/// # Errors
/// [`KernelError::Interpreted`].
pub(super) fn require_compiled(program: &ProgramInfo) -> Result<(), KernelError> {
    if program.size_jitted() == 0 { Err(KernelError::Interpreted) } else { Ok(()) }
}
