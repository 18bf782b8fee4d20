//! The hooks of an interface, held open and looked at: what a daemon needs to notice that one is gone.

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
    /// Of the XDP program.
    pub xdp: u32,
    /// Of the TC program.
    pub tc: u32,
}

impl Programs {
    /// Those of a loaded object.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn from_loaded(loaded: &mut Loaded) -> Result<Self, KernelError> {
        use pomguard_common::names::{PROGRAM_EGRESS, PROGRAM_INGRESS};
        let xdp = loaded.xdp()?.info().map_err(KernelError::program(PROGRAM_INGRESS))?.id();
        let tc = loaded.tc()?.info().map_err(KernelError::program(PROGRAM_EGRESS))?.id();
        Ok(Self { xdp, tc })
    }
}

/// What became of an interface since it was attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Both hooks are as they were made.
    Whole,
    /// These hooks are not, or not any more: `xdp`, `tc`.
    Broken(Vec<&'static str>),
    /// It has another name now; the programs are still on it.
    Renamed(String),
    /// It is in another network namespace, or nobody here knows where; the link lives.
    Away,
    /// It does not exist any more.
    Gone,
}

/// Both hooks of one interface. As long as this is held, the links live without their pins.
#[derive(Debug)]
pub struct HookHandles {
    interface: String,
    /// Its number when it was attached to, which no other interface gets while this one is there.
    ifindex: u32,
    xdp: OwnedFd,
    /// None where the egress program is a clsact filter: nothing can hold that.
    tcx: Option<OwnedFd>,
}

impl HookHandles {
    /// Holds what is pinned for an interface that was just attached to.
    ///
    /// # Errors
    /// When the XDP link is not pinned.
    pub fn take(pins: &Pins, interface: &str) -> Result<Self, KernelError> {
        let path = pins.link(XDP, interface);
        let xdp =
            raw::open_pin(&path).map_err(KernelError::system("BPF_OBJ_GET", path.display().to_string()))?;
        let facts = raw::link_facts(xdp.as_fd())
            .map_err(KernelError::system("BPF_OBJ_GET_INFO_BY_FD", path.display().to_string()))?;
        let tcx = raw::open_pin(&pins.link(TCX, interface)).ok();
        Ok(Self { interface: interface.to_owned(), ifindex: facts.ifindex, xdp, tcx })
    }

    /// The interface as it was called when it was attached to.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Whether the other one is on the same interface, and not on one that has its name now.
    #[must_use]
    pub fn is_of_same(&self, other: &Self) -> bool {
        self.ifindex == other.ifindex
    }

    /// Looks at both hooks: the links, and what the kernel says of the interface.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn inspect(&self, programs: Programs) -> Result<Finding, KernelError> {
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
                return Ok(Finding::Gone);
            }
            return Ok(match interface::name(xdp.ifindex) {
                Some(name) if runs_ours(xdp.ifindex)? => Finding::Renamed(name),
                _ => Finding::Away,
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
        Ok(if broken.is_empty() { Finding::Whole } else { Finding::Broken(broken) })
    }

    /// What runs on the egress hook before our program, in words.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn preceded(&self, programs: Programs) -> Result<Vec<String>, KernelError> {
        before_ours(interface::index(&self.interface)?, self.tcx.is_some().then_some(programs.tc))
    }

    /// Where the XDP link is now, if not on the interface that has the name: its device was renamed,
    /// and another one has taken the name.
    #[must_use]
    pub fn strayed(&self, programs: Programs) -> Option<String> {
        let facts = raw::link_facts(self.xdp.as_fd()).ok()?;
        let name = interface::name(facts.ifindex).filter(|name| *name != self.interface)?;
        interface::xdp(facts.ifindex).ok()??.program.eq(&programs.xdp).then_some(name)
    }

    /// Lets the pins follow the interface to its new name, so that they are found by it.
    ///
    /// # Errors
    /// When a pin cannot be moved.
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

    /// What has to be pinned for this interface, and where.
    pub fn pins<'a>(&'a self, pins: &Pins) -> impl Iterator<Item = (PathBuf, &'a OwnedFd)> {
        let tcx = self.tcx.as_ref().map(|link| (pins.link(TCX, &self.interface), link));
        std::iter::once((pins.link(XDP, &self.interface), &self.xdp)).chain(tcx)
    }
}
