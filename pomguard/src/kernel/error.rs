//! Errors of operations on the kernel.

use std::{io, path::PathBuf};

use aya::{EbpfError, maps::MapError, pin::PinError, programs::ProgramError};

/// An error of an operation on the kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A system call failed.
    #[error("{call} {what}")]
    System {
        /// The system call.
        call: &'static str,
        /// The object of the call.
        what: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The folder for the pins is not safe to use.
    #[error("{} is not safe to use: {problem}", path.display())]
    Pins {
        /// The path of the folder.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// This process has no permission to look into the folder: there may be pins that the process cannot see.
    #[error("{} cannot be looked into: permission denied; only root may, so type it with sudo", path.display())]
    Denied {
        /// The path of the folder.
        path: PathBuf,
    },
    /// There are no pinned maps: pomguard was never started, or was detached.
    #[error("nothing is pinned under {}: pomguard is not enforcing here (`systemctl restart pomguard` starts it)", path.display())]
    NotInstalled {
        /// The path of the folder.
        path: PathBuf,
    },
    /// The pinned maps are of another version.
    #[error("the maps under {} are of layout {found}, this pomguard knows layout {known}: `systemctl restart pomguard` replaces them, `pomguard check` says what that loses", path.display())]
    Layout {
        /// The path of the folder.
        path: PathBuf,
        /// The layout version of the pinned maps.
        found: u32,
        /// The layout version of this pomguard.
        known: u32,
    },
    /// The programs that use pinned maps of another layout are not pinned, so nobody could restore them.
    #[error("{} is not pinned, so that it could not be put back if this start failed: start the version before once more, or open the host with `pomguard detach --yes`, then start this one", path.display())]
    NoWayBack {
        /// The path at which the program should be pinned.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The image was compiled for another place: another change came in between.
    #[error("the image is generation {image}, and the next one is {next}: another change came in between")]
    Outdated {
        /// The generation of the image.
        image: u32,
        /// The next generation.
        next: u32,
    },
    /// The kernel would interpret the programs.
    #[error(
        "the kernel interprets BPF programs, so that every packet costs several times as much: `sysctl -w net.core.bpf_jit_enable=1`, then start again (if that is set, net.core.bpf_jit_limit is too low, or this kernel has no compiler)"
    )]
    Interpreted,
    /// The object could not be loaded.
    #[error("load the eBPF object")]
    Load(#[source] Box<EbpfError>),
    /// The verifier or the kernel refused a program.
    #[error("load or attach program {name}")]
    Program {
        /// Name of the program.
        name: &'static str,
        /// The cause.
        #[source]
        source: Box<ProgramError>,
    },
    /// A map operation failed.
    #[error("map {name}")]
    Map {
        /// Name of the map.
        name: &'static str,
        /// The cause.
        #[source]
        source: Box<MapError>,
    },
    /// A pin could not be created.
    #[error("pin {}", path.display())]
    Pin {
        /// The path of the pin.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<PinError>,
    },
    /// The object lacks a map or program that every pomguard object has.
    #[error("the eBPF object has no {0}: it is not pomguard's")]
    Missing(&'static str),
    /// The interface does not exist.
    #[error("no interface {0}: see `ip link` for those there are, and `interfaces` in pomguard.toml")]
    NoInterface(String),
    /// The interface's frames have no Ethernet header.
    #[error(
        "{interface} is {kind}, and pomguard reads Ethernet alone: name the Ethernet interface below it in `interfaces`, or take {interface} out"
    )]
    NotEthernet {
        /// Name of the interface.
        interface: String,
        /// The link type.
        kind: String,
    },
    /// A foreign program is attached.
    #[error(
        "{interface} already has {hook} program {program} of somebody else: it is not replaced; detach it, or take {interface} out of `interfaces`"
    )]
    Foreign {
        /// Name of the interface.
        interface: String,
        /// `XDP` or `TC`.
        hook: &'static str,
        /// Id of the program.
        program: u32,
    },
    /// A device above the interface has a foreign program.
    #[error(
        "the kernel takes no program on {interface} while {above}, which stands on top of it, has one, and XDP program {program} on {above} is somebody else's: detach it, or take {interface} out of `interfaces`"
    )]
    ForeignAbove {
        /// Name of the interface.
        interface: String,
        /// Name of the device above.
        above: String,
        /// Id of the device's program.
        program: u32,
    },
    /// The driver refused native XDP, and generic mode is not wanted.
    #[error(
        "{interface} does not take native XDP ({reason}); use `attach.mode = \"auto\"` or \"generic\" in pomguard.toml, or see `ethtool -i {interface}` for a driver that does"
    )]
    NoNative {
        /// Name of the interface.
        interface: String,
        /// The kernel's message.
        reason: String,
    },
    /// The table of failsafe tuples and timed exceptions is full.
    #[error(
        "{needed} failsafe tuples and timed exceptions at once, and there is room for {}: take back exceptions \
         (each prefix and port range counts), or name fewer, wider prefixes in failsafe rows",
        pomguard_common::limits::OVERRIDES
    )]
    Overrides {
        /// Number of lines that the table would need.
        needed: usize,
    },
    /// Every counter slot is in use.
    #[error(
        "every one of the {} counter slots is in use: take back exceptions that are over",
        pomguard_common::limits::ROW_SLOTS
    )]
    NoSlot,
    /// A map does not contain the lines that were written.
    #[error("line {line} of the new image is not what was written: the change was not made")]
    ReadBack {
        /// The first line that differs.
        line: usize,
    },
    /// A program returned the wrong verdict for a probe packet.
    #[error("program {name} answers {verdict} to a packet that every policy passes, or does not count it")]
    SelfProbe {
        /// Name of the program.
        name: &'static str,
        /// The verdict of the program.
        verdict: u32,
    },
    /// The installed data is not a readable image.
    #[error(
        "the generation in force is not a readable image: reload the policy (`systemctl reload pomguard`)"
    )]
    Unreadable,
}

impl KernelError {
    pub(super) fn system(call: &'static str, what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { call, what, source }
    }

    pub(crate) fn map(name: &'static str) -> impl FnOnce(MapError) -> Self {
        move |source| Self::Map { name, source: Box::new(source) }
    }

    pub(super) fn program(name: &'static str) -> impl FnOnce(ProgramError) -> Self {
        move |source| Self::Program { name, source: Box::new(source) }
    }
}
