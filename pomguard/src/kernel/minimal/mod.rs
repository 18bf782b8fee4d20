//! Closes a host whose kernel refuses the real programs: with a program of at most [`CEILING`] instructions at
//! each interface, or, if the kernel accepts no program, with one nftables table.
//!
//! Both pass failsafe tuples, ARP, neighbour discovery and DHCP leases, and drop everything else. The program's
//! links have the same pins as the links of the real programs: a start that succeeds takes the links over and
//! exchanges the program behind each in one step, so the host is never open in between.

mod assembler;
mod nftables;
mod program;

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use aya::programs::{SchedClassifier, Xdp, XdpMode};
use aya_obj::{
    generated::{bpf_attach_type, bpf_prog_type},
    programs::XdpAttachType,
};
use pomguard_common::{
    Direction,
    control::Override,
    names::{PROGRAM_EGRESS, PROGRAM_INGRESS},
};

pub use self::program::CEILING;
use super::{
    KernelError,
    attach::{self, TCX, XDP},
    interface, link_pin,
    pins::Pins,
    raw,
};
use crate::input::settings::{Attach, AttachMode};

/// The packets that pass a closed host in addition to ARP and neighbour discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Failsafe tuples.
    pub tuples: Vec<Override>,
    /// VLANs whose frames are judged like untagged frames.
    pub vlans: Vec<u16>,
    /// True if DHCP leases pass.
    pub dhcp: bool,
    /// True if outbound packets are judged, too.
    pub outbound: bool,
}

/// The state of an interface of a closed host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Closed by the minimal program.
    Program,
    /// Closed by the nftables table.
    Nftables,
    /// The interface does not exist.
    Missing,
    /// The interface is open, for this reason.
    Open(String),
}

/// The hooks that keep a host closed.
#[derive(Debug)]
pub struct Closing {
    pins: Pins,
    content: Content,
    how: Attach,
    /// `Ok` if the minimal programs are loaded and pinned, otherwise the kernel's refusal.
    loaded: Result<(), String>,
    /// Interfaces in the nftables table.
    table: Vec<String>,
    /// The error of the last attempt to write the table.
    refused: Option<String>,
    state: BTreeMap<String, Closed>,
}

impl Closing {
    /// Loads the minimal programs. If the kernel refuses them, the table is used.
    pub fn begin(pins: &Pins, content: Content, how: Attach) -> Self {
        let loaded = load(pins, &content).map_err(|error| format!("{:#}", anyhow::anyhow!(error)));
        Self {
            pins: pins.clone(),
            content,
            how,
            loaded,
            table: Vec::new(),
            refused: None,
            state: BTreeMap::new(),
        }
    }

    /// Closes each interface that is not closed yet. Call this repeatedly, since an interface may appear later.
    pub fn check<'a>(&mut self, interfaces: impl Iterator<Item = &'a String>) -> &BTreeMap<String, Closed> {
        let mut in_table = Vec::new();
        for name in interfaces {
            let Ok(ifindex) = interface::index(name) else {
                self.state.insert(name.clone(), Closed::Missing);
                continue;
            };
            let by_program = match &self.loaded {
                Ok(()) => self.attach(name, ifindex).map_err(|error| format!("{:#}", anyhow::anyhow!(error))),
                Err(error) => Err(error.clone()),
            };
            match by_program {
                Ok(()) => {
                    self.state.insert(name.clone(), Closed::Program);
                }
                Err(error) => {
                    in_table.push(name.clone());
                    self.state.insert(name.clone(), Closed::Open(error));
                }
            }
        }
        if in_table != self.table || self.refused.is_some() {
            self.refused = self.fill(&in_table).err().map(|error| error.to_string());
            self.table.clone_from(&in_table);
        }
        for name in in_table {
            let state = self.state.entry(name).or_insert(Closed::Missing);
            match (&self.refused, &state) {
                (None, _) => *state = Closed::Nftables,
                (Some(table), Closed::Open(program)) => *state = Closed::Open(format!("{program}; {table}")),
                _ => {}
            }
        }
        &self.state
    }

    /// Returns true if the table is in use.
    #[must_use]
    pub fn has_table(&self) -> bool {
        !self.table.is_empty() && self.refused.is_none()
    }

    fn fill(&self, interfaces: &[String]) -> io::Result<()> {
        if interfaces.is_empty() {
            return nftables::remove();
        }
        if !nftables::put(interfaces, &self.content)? {
            log::error!("outbound packets are not filtered: this kernel's nftables has no egress hook");
        }
        Ok(())
    }

    /// Attaches the programs that an interface lacks.
    fn attach(&self, name: &str, ifindex: u32) -> Result<(), KernelError> {
        // Refuse an interface without Ethernet headers: the program would misread the frames. The table would
        // not, so the caller then uses the table.
        interface::refuse_other_links(name, ifindex)?;
        if !is_at(&self.pins, XDP, name, ifindex)? {
            attach::refuse_foreign(name, ifindex)?;
            let path = self.pins.minimal(PROGRAM_INGRESS);
            let mut program = Xdp::from_pin(&path, XdpAttachType::Interface)
                .map_err(KernelError::program(PROGRAM_INGRESS))?;
            let native = attach::mode(name, self.how) != AttachMode::Generic;
            let id = native.then(|| program.attach_to_if_index(ifindex, XdpMode::Driver).ok()).flatten();
            let id = match id {
                Some(id) => id,
                // An interface that is closed in generic mode is better than an open one.
                None => program
                    .attach_to_if_index(ifindex, XdpMode::Skb)
                    .map_err(KernelError::program(PROGRAM_INGRESS))?,
            };
            link_pin::pin_xdp(&mut program, id, name, &self.pins)?;
        }
        if self.content.outbound
            && !is_at(&self.pins, TCX, name, ifindex)?
            && attach::clsact_program(ifindex)?.is_none()
        {
            let mut program = SchedClassifier::from_pin(self.pins.minimal(PROGRAM_EGRESS))
                .map_err(KernelError::program(PROGRAM_EGRESS))?;
            attach::attach_egress(&mut program, &self.pins, name, ifindex, self.how.tc)?;
        }
        Ok(())
    }
}

/// Returns true if a link of this hook is pinned and attached to this interface. Removes the pin if the link's
/// interface is gone.
fn is_at(pins: &Pins, hook: &str, name: &str, ifindex: u32) -> Result<bool, KernelError> {
    attach::adopt(&pins.link(hook, name), name, ifindex).map(|link| link.is_some())
}

/// Loads and pins both programs.
fn load(pins: &Pins, content: &Content) -> Result<(), KernelError> {
    pins.prepare_minimal()?;
    let map = table(content)?;
    for hook in Direction::ALL {
        let (name, kind, expected) = match hook {
            Direction::Inbound => {
                (PROGRAM_INGRESS, bpf_prog_type::BPF_PROG_TYPE_XDP, bpf_attach_type::BPF_XDP as u32)
            }
            Direction::Outbound => (PROGRAM_EGRESS, bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS, 0),
        };
        let code = program::program(hook, content, map.as_raw_fd()).ok_or(KernelError::Missing(name))?;
        let program = raw::load_program(kind, expected, name, &code)
            .map_err(KernelError::system("BPF_PROG_LOAD", format!("of the minimal program {name}")))?;
        link_pin::unpin(&pins.minimal(name))?;
        raw::pin(program.as_fd(), &pins.minimal(name))
            .map_err(KernelError::system("BPF_OBJ_PIN", pins.minimal(name).display().to_string()))?;
    }
    Ok(())
}

/// Creates, fills and freezes the map of both programs.
fn table(content: &Content) -> Result<OwnedFd, KernelError> {
    let map = raw::create_array(&raw::ArrayDefinition {
        name: "pomguard_min",
        value_size: program::VALUE as u32,
        length: 1,
        flags: 0,
        types: None,
    })
    .map_err(KernelError::system("BPF_MAP_CREATE", "of the minimal program"))?;
    raw::set_first(map.as_fd(), &program::value(content))
        .map_err(KernelError::system("BPF_MAP_UPDATE_ELEM", "of the minimal program"))?;
    raw::freeze(map.as_fd()).map_err(KernelError::system("BPF_MAP_FREEZE", "of the minimal program"))?;
    Ok(map)
}

/// Returns true if a pinned link runs a program other than the minimal one: the real programs enforce.
///
/// # Errors
/// If a link cannot be examined.
pub fn real_programs_enforce(pins: &Pins) -> Result<bool, KernelError> {
    let minimal = raw::open_pin(&pins.minimal(PROGRAM_INGRESS))
        .and_then(|program| raw::identity(program.as_fd()))
        .map_or(0, |[_, id]| id);
    for interface in pins.linked(XDP) {
        let path = pins.link(XDP, &interface);
        let facts = raw::open_pin(&path)
            .and_then(|link| raw::link_facts(link.as_fd()))
            .map_err(KernelError::system("BPF_OBJ_GET_INFO_BY_FD", path.display().to_string()))?;
        if facts.ifindex != 0 && facts.program != minimal {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes the table and the minimal programs after the real programs are attached to every hook, or when the
/// host is opened.
///
/// # Errors
/// If nft refuses, or a pin cannot be removed.
pub fn end(pins: &Pins, has_table: bool) -> Result<(), KernelError> {
    if has_table {
        nftables::remove().map_err(KernelError::system("nft", "delete the table of a closed host"))?;
    }
    pins.remove_minimal()
}
