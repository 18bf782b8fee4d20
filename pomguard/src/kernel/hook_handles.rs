//! File descriptors of an interface's hooks. A daemon holds the descriptors and notices with their help if a
//! hook is gone.

use std::{
    fs,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
};

use super::{
    KernelError,
    attach::{TCX, XDP, before_ours, clsact_program},
    interface,
    load::Loaded,
    pins::Pins,
    raw,
};

/// Ids of the programs that a daemon loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Programs {
    /// Id of the XDP program.
    pub xdp: u32,
    /// Id of the TC program.
    pub tc: u32,
}

impl Programs {
    /// Returns the ids of a loaded object's programs.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn from_loaded(loaded: &mut Loaded) -> Result<Self, KernelError> {
        use pomguard_common::names::{PROGRAM_EGRESS, PROGRAM_INGRESS};
        let xdp = loaded.xdp()?.info().map_err(KernelError::program(PROGRAM_INGRESS))?.id();
        let tc = loaded.tc()?.info().map_err(KernelError::program(PROGRAM_EGRESS))?.id();
        Ok(Self { xdp, tc })
    }
}

/// The state of an interface's hooks, compared with the attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookState {
    /// Both hooks are intact.
    Whole,
    /// These hooks (`xdp`, `tc`) do not run pomguard's program.
    Broken(Vec<&'static str>),
    /// The interface has another name now; the programs are still attached.
    Renamed(String),
    /// The interface is in another network namespace, or cannot be found here; the link still exists.
    Away,
    /// The interface no longer exists.
    Gone,
}

/// Both hooks of one interface. While this value exists, the links stay attached without their pins.
#[derive(Debug)]
pub struct HookHandles {
    interface: String,
    /// Index of the interface at the attachment. No other interface gets this index while this one exists.
    ifindex: u32,
    xdp: OwnedFd,
    /// `None` if the egress program is a clsact filter: a filter has no link that could be held.
    tcx: Option<OwnedFd>,
}

impl HookHandles {
    /// Opens the pinned links of an interface that was just attached.
    ///
    /// # Errors
    /// If the XDP link is not pinned.
    pub fn take(pins: &Pins, interface: &str) -> Result<Self, KernelError> {
        let path = pins.link(XDP, interface);
        let xdp =
            raw::open_pin(&path).map_err(KernelError::system("BPF_OBJ_GET", path.display().to_string()))?;
        let facts = raw::link_facts(xdp.as_fd())
            .map_err(KernelError::system("BPF_OBJ_GET_INFO_BY_FD", path.display().to_string()))?;
        let tcx = raw::open_pin(&pins.link(TCX, interface)).ok();
        Ok(Self { interface: interface.to_owned(), ifindex: facts.ifindex, xdp, tcx })
    }

    /// Returns the name that the interface had at the attachment.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Returns the name that the interface has now, or `None` if it is gone or in another network namespace.
    #[must_use]
    pub fn present_name(&self) -> Option<String> {
        interface::name(self.ifindex)
    }

    /// Returns true if `other` is attached to the same interface, by index and not by name.
    #[must_use]
    pub fn is_of_same(&self, other: &Self) -> bool {
        self.ifindex == other.ifindex
    }

    /// Inspects both hooks: the links, and the kernel's report on the interface.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn inspect(&self, programs: Programs) -> Result<HookState, KernelError> {
        let facts = |link: &OwnedFd| {
            raw::link_facts(link.as_fd())
                .map_err(KernelError::system("BPF_OBJ_GET_INFO_BY_FD", format!("link on {}", self.interface)))
        };
        let xdp = facts(&self.xdp)?;
        let runs_ours = |ifindex| {
            Ok::<_, KernelError>(interface::xdp(ifindex)?.is_some_and(|it| it.program == programs.xdp))
        };
        let Ok(ifindex) = interface::index(&self.interface) else {
            if xdp.ifindex == 0 {
                return Ok(HookState::Gone);
            }
            return Ok(match interface::name(xdp.ifindex) {
                Some(name) if runs_ours(xdp.ifindex)? => HookState::Renamed(name),
                _ => HookState::Away,
            });
        };
        let mut broken = Vec::new();
        if xdp.ifindex != ifindex || xdp.program != programs.xdp || !runs_ours(ifindex)? {
            broken.push(XDP);
        }
        let tc = match &self.tcx {
            Some(link) => {
                let facts = facts(link)?;
                facts.ifindex == ifindex && facts.program == programs.tc
            }
            None => clsact_program(ifindex)? == Some(programs.tc),
        };
        if !tc {
            broken.push("tc");
        }
        Ok(if broken.is_empty() { HookState::Whole } else { HookState::Broken(broken) })
    }

    /// Describes the programs on the egress hook that run before pomguard's program.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn preceded(&self, programs: Programs) -> Result<Vec<String>, KernelError> {
        before_ours(interface::index(&self.interface)?, self.tcx.is_some().then_some(programs.tc))
    }

    /// Returns the interface of the XDP link if that is not the interface with this name: the device was
    /// renamed, and another device took the name.
    #[must_use]
    pub fn strayed(&self, programs: Programs) -> Option<String> {
        let facts = raw::link_facts(self.xdp.as_fd()).ok()?;
        let name = interface::name(facts.ifindex).filter(|name| *name != self.interface)?;
        interface::xdp(facts.ifindex).ok()??.program.eq(&programs.xdp).then_some(name)
    }

    /// Renames the pins after the new name of the interface, so that they are found by that name.
    ///
    /// # Errors
    /// If a pin cannot be moved.
    pub fn rename(&mut self, pins: &Pins, name: String) -> Result<(), KernelError> {
        for hook in [XDP, TCX] {
            let (from, to) = (pins.link(hook, &self.interface), pins.link(hook, &name));
            if from.exists() {
                fs::rename(&from, &to).map_err(KernelError::system("rename", from.display().to_string()))?;
            }
        }
        self.interface = name;
        Ok(())
    }

    /// Returns the links of this interface, each with the path at which the link must be pinned.
    pub fn pins<'a>(&'a self, pins: &Pins) -> impl Iterator<Item = (PathBuf, &'a OwnedFd)> {
        let tcx = self.tcx.as_ref().map(|link| (pins.link(TCX, &self.interface), link));
        std::iter::once((pins.link(XDP, &self.interface), &self.xdp)).chain(tcx)
    }
}
