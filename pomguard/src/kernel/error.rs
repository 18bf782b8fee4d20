//! What can go wrong between us and the kernel.

use std::{io, path::PathBuf};

use aya::{EbpfError, maps::MapError, pin::PinError, programs::ProgramError};

/// A step that the kernel did not take.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A system call failed.
    #[error("{call} {what}")]
    System {
        /// The call.
        call: &'static str,
        /// On what.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The folder for the pins is not ours to use.
    #[error("{} is not safe to use: {problem}", path.display())]
    Pins {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// This process may not look at the pins: what it cannot see may well be there.
    #[error("{} cannot be looked into: permission denied; only root may, so type it with sudo", path.display())]
    Denied {
        /// The folder.
        path: PathBuf,
    },
    /// There are no pinned maps: pomguard was never started, or was detached.
    #[error("nothing is pinned under {}: pomguard is not enforcing here (`systemctl restart pomguard` starts it)", path.display())]
    NotInstalled {
        /// The folder.
        path: PathBuf,
    },
    /// The pinned maps are of another version.
    #[error("the maps under {} are of layout {found}, this pomguard knows layout {known}: `systemctl restart pomguard` replaces them, `pomguard check` says what that loses", path.display())]
    Layout {
        /// The folder.
        path: PathBuf,
        /// Layout of the pins.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// The programs with pinned maps of another layout are not pinned: nobody could put them back.
    #[error("{} is not pinned, so that it could not be put back if this start failed: start the version before once more, or open the host with `pomguard detach --yes`, then start this one", path.display())]
    NoWayBack {
        /// Where the program should be.
        path: PathBuf,
        /// Why it cannot be had.
        #[source]
        source: io::Error,
    },
    /// The object could not be loaded.
    #[error("load the eBPF object")]
    Load(#[source] Box<EbpfError>),
    /// The verifier or the kernel refused a program.
    #[error("load or attach program {name}")]
    Program {
        /// The program.
        name: &'static str,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// A map operation failed.
    #[error("map {name}")]
    Map {
        /// The map.
        name: &'static str,
        /// Why.
        #[source]
        source: Box<MapError>,
    },
    /// A pin could not be made.
    #[error("pin {}", path.display())]
    Pin {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<PinError>,
    },
    /// The object lacks something that it always has.
    #[error("the eBPF object has no {0}: it is not pomguard's")]
    Missing(&'static str),
    /// No such interface.
    #[error("no interface {0}: see `ip link` for those there are, and `interfaces` in pomguard.toml")]
    NoInterface(String),
    /// The interface's frames have no Ethernet header.
    #[error(
        "{interface} is {kind}, and pomguard reads Ethernet alone: name the Ethernet interface below it in `interfaces`, or take {interface} out"
    )]
    NotEthernet {
        /// The interface.
        interface: String,
        /// Its link type.
        kind: String,
    },
    /// Somebody else's program is attached.
    #[error(
        "{interface} already has {hook} program {program} of somebody else: it is not replaced; detach it, or take {interface} out of `interfaces`"
    )]
    Foreign {
        /// The interface.
        interface: String,
        /// `XDP` or `TC`.
        hook: &'static str,
        /// Its id.
        program: u32,
    },
    /// A device above the interface has a program of somebody else.
    #[error(
        "the kernel takes no program on {interface} while {above}, which stands on top of it, has one, and XDP program {program} on {above} is somebody else's: detach it, or take {interface} out of `interfaces`"
    )]
    ForeignAbove {
        /// The interface.
        interface: String,
        /// The device above it.
        above: String,
        /// The id of its program.
        program: u32,
    },
    /// The driver refused native XDP and generic is not wanted.
    #[error(
        "{interface} does not take native XDP ({reason}); use `attach.mode = \"auto\"` or \"generic\" in pomguard.toml, or see `ethtool -i {interface}` for a driver that does"
    )]
    NoNative {
        /// The interface.
        interface: String,
        /// What the kernel said.
        reason: String,
    },
    /// The table of failsafe tuples and timed exceptions is full.
    #[error(
        "{needed} failsafe tuples and timed exceptions at once, and there is room for {}: take back exceptions \
         (each prefix and port range counts), or name fewer, wider prefixes in failsafe rows",
        pomguard_common::limits::OVERRIDES
    )]
    Overrides {
        /// How many there would be.
        needed: usize,
    },
    /// Every counter slot is in use.
    #[error(
        "every one of the {} counter slots is in use: take back exceptions that are over",
        pomguard_common::limits::ROW_SLOTS
    )]
    NoSlot,
    /// What was written to a map is not what is in it.
    #[error("line {line} of the new image is not what was written: the change was not made")]
    ReadBack {
        /// The first line that differs.
        line: usize,
    },
    /// A program did not judge a packet of our own as it must.
    #[error("program {name} answers {verdict} to a packet that every policy passes, or does not count it")]
    SelfProbe {
        /// The program.
        name: &'static str,
        /// What it answered.
        verdict: u32,
    },
    /// What is in the kernel is not an image.
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
