//! A host whose kernel refuses the real programs, closed all the same: by a program of at most
//! [`CEILING`] instructions at each interface, or, where the kernel takes none, by one nftables table.
//!
//! Either passes failsafe tuples, ARP, neighbour discovery and leases, and drops the rest. The links of the
//! program lie where those of the real programs do: a start that succeeds takes them over and exchanges the
//! program behind them in one step, so that the host is never open in between.

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

/// What passes a closed host alongside ARP and neighbour discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Failsafe tuples.
    pub tuples: Vec<Override>,
    /// VLANs whose frames are judged like untagged ones.
    pub vlans: Vec<u16>,
    /// Leases.
    pub dhcp: bool,
    /// True if outbound packets are judged, too.
    pub outbound: bool,
}

/// How an interface is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// By the minimal program.
    Program,
    /// By the nftables table.
    Nftables,
    /// It does not exist.
    Missing,
    /// It is open; why.
    Open(String),
}

/// The hooks that hold a host closed.
#[derive(Debug)]
pub struct Closing {
    pins: Pins,
    content: Content,
    how: Attach,
    /// True if the minimal programs are loaded and pinned.
    loaded: Result<(), String>,
    /// Interfaces in the nftables table.
    table: Vec<String>,
    /// Why the table is not as it should be.
    refused: Option<String>,
    state: BTreeMap<String, Closed>,
}

impl Closing {
    /// Loads the minimal programs. Where the kernel refuses them, the table is used.
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

    /// Closes each interface that is not closed yet; to be called again and again, since one may appear.
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

    /// True if the table is in use.
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

    /// Attaches both programs to an interface that has neither.
    fn attach(&self, name: &str, ifindex: u32) -> Result<(), KernelError> {
        // The table does not read headers that are not there.
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
                // Closed in generic mode is better than open.
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

/// True if a link of this hook is pinned and on this interface. One of an interface that is gone is unpinned.
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

/// The map behind both programs, filled and frozen.
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

/// True if anything but the minimal program is behind a pinned link: the real programs enforce.
///
/// # Errors
/// When a link cannot be looked at.
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

/// Takes the table and the minimal programs away: the real ones are behind every hook, or the host is opened.
///
/// # Errors
/// When nft refuses, or a pin cannot be removed.
pub fn end(pins: &Pins, has_table: bool) -> Result<(), KernelError> {
    if has_table {
        nftables::remove().map_err(KernelError::system("nft", "delete the table of a closed host"))?;
    }
    pins.remove_minimal()
}
