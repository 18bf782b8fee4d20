//! Queries the kernel for the network interfaces of this namespace.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, XdpAttached},
    tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::{KernelError, netlink};

/// The XDP program of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpState {
    /// Id of the program.
    pub program: u32,
    /// True if the program runs in the driver, not on the socket buffer.
    pub native: bool,
}

/// Returns the index of an interface.
///
/// # Errors
/// [`KernelError::NoInterface`].
pub fn index(name: &str) -> Result<u32, KernelError> {
    nix::net::if_::if_nametoindex(name).map_err(|_| KernelError::NoInterface(name.to_owned()))
}

/// Returns the name of the interface with this index; `None` if this namespace has no such interface.
#[must_use]
pub fn name(ifindex: u32) -> Option<String> {
    nix::net::if_::if_indextoname(ifindex).ok()?.into_string().ok()
}

/// Returns every address of this machine except loopback addresses.
///
/// # Errors
/// If the addresses cannot be read.
pub fn addresses() -> Result<Vec<IpAddr>, KernelError> {
    let mut found: Vec<IpAddr> = addresses_by_name()?.into_iter().map(|(_, address)| address).collect();
    found.sort();
    found.dedup();
    Ok(found)
}

/// Returns every address of this machine except loopback addresses, each with the name of the interface.
///
/// # Errors
/// If the addresses cannot be read.
pub(super) fn addresses_by_name() -> Result<Vec<(String, IpAddr)>, KernelError> {
    let all = nix::ifaddrs::getifaddrs()
        .map_err(io::Error::from)
        .map_err(KernelError::system("getifaddrs", "for this machine's addresses"))?;
    let found = all.filter_map(|interface| {
        let address = interface.address?;
        let address = match address.as_sockaddr_in() {
            Some(v4) => SocketAddr::from(std::net::SocketAddrV4::from(*v4)).ip(),
            None => IpAddr::V6(address.as_sockaddr_in6()?.ip()),
        };
        (!address.is_loopback()).then_some((interface.interface_name, address))
    });
    Ok(found.collect())
}

/// Returns the MTU of an interface in bytes; `None` if the interface does not exist.
///
/// # Errors
/// If the kernel does not answer.
pub fn mtu(ifindex: u32) -> Result<Option<u32>, KernelError> {
    Ok(attributes(ifindex)?.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(mtu),
        _ => None,
    }))
}

/// Refuses an interface whose frames do not begin with an Ethernet header: the programs would take other bytes
/// for the header.
///
/// # Errors
/// [`KernelError::NotEthernet`], and if the kernel does not answer.
pub fn refuse_other_links(name: &str, ifindex: u32) -> Result<(), KernelError> {
    match link(ifindex)?.map(|link| link.header.link_layer_type) {
        None | Some(LinkLayerType::Ether) => Ok(()),
        Some(other) => Err(KernelError::NotEthernet { interface: name.to_owned(), kind: kind_of(other) }),
    }
}

/// Returns a description of a link type, with the number of linux/if_arp.h.
fn kind_of(kind: LinkLayerType) -> String {
    let words = match kind {
        LinkLayerType::Loopback => "the loopback",
        LinkLayerType::None => "a tunnel of bare IP packets, as tun and WireGuard make it",
        LinkLayerType::Tunnel | LinkLayerType::Tunnel6 | LinkLayerType::Sit => "an IP tunnel",
        LinkLayerType::Ipgre | LinkLayerType::Ip6gre => "a GRE tunnel",
        LinkLayerType::Ppp => "PPP",
        LinkLayerType::Infiniband => "InfiniBand",
        _ => "another link type",
    };
    format!("{words} (type {})", u16::from(kind))
}

/// Returns true if an interface belongs to a bridge, a bond or another device that receives the interface's
/// packets.
///
/// # Errors
/// If the kernel does not answer.
pub fn has_controller(ifindex: u32) -> Result<bool, KernelError> {
    Ok(attributes(ifindex)?.iter().any(|attribute| matches!(attribute, LinkAttribute::Controller(1..))))
}

/// Returns the number of packets that an interface's driver counted as received; `None` if the interface does
/// not exist.
///
/// # Errors
/// If the kernel does not answer.
pub fn received(ifindex: u32) -> Result<Option<u64>, KernelError> {
    Ok(attributes(ifindex)?.iter().find_map(packets))
}

fn packets(attribute: &LinkAttribute) -> Option<u64> {
    match attribute {
        LinkAttribute::Stats64(stats) => Some(stats.rx_packets),
        _ => None,
    }
}

/// Returns the members of a bond, each with the number of packets that the driver counted as received; empty if
/// the interface is no bond.
///
/// # Errors
/// If the kernel does not answer.
pub fn bond_members(ifindex: u32) -> Result<Vec<(u32, u64)>, KernelError> {
    let is_bond = attributes(ifindex)?.into_iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(info) => info.contains(&LinkInfo::Kind(InfoKind::Bond)),
        _ => false,
    });
    if !is_bond {
        return Ok(Vec::new());
    }
    // The kernel filters by controller; a kernel that does not know the filter returns all interfaces.
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::Controller(ifindex));
    let answers = ask(&RouteNetlinkMessage::GetLink(message), NLM_F_DUMP)?;
    let members = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(link) => {
            let member = link.attributes.contains(&LinkAttribute::Controller(ifindex));
            member.then(|| Some((link.header.index, link.attributes.iter().find_map(packets)?)))?
        }
        _ => None,
    });
    Ok(members.collect())
}

/// Returns the kernel's attributes of an interface; empty if the interface does not exist.
pub(super) fn attributes(ifindex: u32) -> Result<Vec<LinkAttribute>, KernelError> {
    Ok(link(ifindex)?.map(|link| link.attributes).unwrap_or_default())
}

/// Returns the kernel's record of an interface; `None` if the interface does not exist.
fn link(ifindex: u32) -> Result<Option<LinkMessage>, KernelError> {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    let answers = match ask(&RouteNetlinkMessage::GetLink(message), 0) {
        Err(KernelError::System { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {
            return Ok(None);
        }
        answers => answers?,
    };
    Ok(answers.into_iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(link) if link.header.index == ifindex => Some(link),
        _ => None,
    }))
}

/// Returns the XDP program of an interface; `None` if the interface does not exist or has no program.
///
/// # Errors
/// If the kernel does not answer.
pub fn xdp(ifindex: u32) -> Result<Option<XdpState>, KernelError> {
    let Some(xdp) = attributes(ifindex)?.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::Xdp(xdp) => Some(xdp),
        _ => None,
    }) else {
        return Ok(None);
    };
    let mut program = None;
    let mut native = false;
    for fact in xdp {
        match fact {
            LinkXdp::ProgId(id) => program = Some(id),
            LinkXdp::DrvProgId(id) | LinkXdp::HwProgId(id) => {
                native = true;
                program = program.or(Some(id));
            }
            LinkXdp::Attached(XdpAttached::Driver | XdpAttached::Hardware) => native = true,
            _ => {}
        }
    }
    Ok(program.map(|program| XdpState { program, native }))
}

/// A filter on a clsact hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClsactFilter {
    /// Handle of the filter; 0 in an entry that represents all filters of a priority.
    pub handle: u32,
    /// Priority of the filter: lower ones run first.
    pub priority: u16,
    /// Id of the program, if this is a BPF filter.
    pub program: Option<u32>,
}

/// Returns every filter on the clsact egress hook, in the order of execution.
///
/// # Errors
/// If the kernel does not answer.
pub fn clsact_filters(ifindex: u32) -> Result<Vec<ClsactFilter>, KernelError> {
    /// Parent of the clsact egress filters (TC_H_CLSACT with TC_H_MIN_EGRESS, linux/pkt_sched.h).
    const EGRESS: u32 = 0xffff_fff3;
    filters(ifindex, EGRESS)
}

/// Returns the program of the BPF filter with this handle and priority on the clsact ingress hook; `None` if
/// there is no such filter.
///
/// # Errors
/// If the kernel does not answer.
pub fn ingress_filter(ifindex: u32, handle: u32, priority: u16) -> Result<Option<u32>, KernelError> {
    /// TC_H_CLSACT with TC_H_MIN_INGRESS.
    const INGRESS: u32 = 0xffff_fff2;
    let ours = |filter: &ClsactFilter| filter.handle == handle && filter.priority == priority;
    Ok(filters(ifindex, INGRESS)?.into_iter().find(ours).and_then(|filter| filter.program))
}

pub(super) fn filters(ifindex: u32, parent: u32) -> Result<Vec<ClsactFilter>, KernelError> {
    let mut message = TcMessage::default();
    message.header.index = ifindex.cast_signed();
    message.header.parent = TcHandle::from(parent);
    let answers = ask(&RouteNetlinkMessage::GetTrafficFilter(message), NLM_F_DUMP)?;
    let filters = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewTrafficFilter(filter) => Some(ClsactFilter {
            handle: filter.header.handle.into(),
            priority: (filter.header.info >> 16) as u16,
            program: filter.attributes.iter().find_map(program_of_filter),
        }),
        _ => None,
    });
    Ok(filters.collect())
}

/// Returns the program of the BPF filter with this handle and priority on the clsact egress hook; `None` if
/// there is no such filter.
///
/// # Errors
/// If the kernel does not answer.
pub fn clsact_filter(ifindex: u32, handle: u32, priority: u16) -> Result<Option<u32>, KernelError> {
    let ours = |filter: &ClsactFilter| filter.handle == handle && filter.priority == priority;
    Ok(clsact_filters(ifindex)?.into_iter().find(ours).and_then(|filter| filter.program))
}

/// Returns the id of the program in the options of a BPF filter.
fn program_of_filter(attribute: &TcAttribute) -> Option<u32> {
    let TcAttribute::Options(options) = attribute else { return None };
    options.iter().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
        _ => None,
    })
}

/// Sends a request to rtnetlink and collects the answers.
pub(super) fn ask(
    request: &RouteNetlinkMessage,
    flags: u16,
) -> Result<Vec<RouteNetlinkMessage>, KernelError> {
    netlink::ask(NETLINK_ROUTE, request, flags)
        .map_err(KernelError::system("netlink", "request to the kernel's routing socket"))
}
