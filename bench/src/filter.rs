//! The compared filters, each with the same policy in its own best form.

use std::{
    collections::HashSet,
    fmt::Write as _,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use pomguard_netlab::Namespace;
use pomguard_workspace::process;

use super::{
    policy::{Family, Policy, Tuple},
    sender::Sender,
};

/// The number of addresses in xdp-filter's own table (its `MAX_ENTRIES`), with a margin.
const XDP_FILTER_ADDRESSES: usize = 2_000;
/// The most rules for linear iptables: with more, one packet takes longer than the sender waits.
const LINEAR_RULES: usize = 10_000;

/// The filter between the wire and the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Filter {
    /// No filter.
    Nothing,
    /// An XDP program that reads the right answer from the packet: the floor.
    Floor,
    /// pomguard in native mode.
    Pomguard,
    /// pomguard in generic mode.
    PomguardGeneric,
    /// nftables without connection tracking: a netdev hook with a set of ports and a concatenated one.
    NftStateless,
    /// nftables with connection tracking, in the usual form.
    NftStateful,
    /// iptables with one set of ipset.
    Ipset,
    /// iptables, one rule per tuple.
    Iptables,
    /// xdp-filter, which can filter by addresses or by ports but not by both: the bench uses the addresses.
    Addresses,
}

impl Filter {
    /// All filters, in the order of the tables.
    pub(super) const SHOWN: [Self; 9] = [
        Self::Nothing,
        Self::Floor,
        Self::Pomguard,
        Self::PomguardGeneric,
        Self::Addresses,
        Self::NftStateless,
        Self::NftStateful,
        Self::Ipset,
        Self::Iptables,
    ];

    /// All filters except pomguard.
    pub(super) const PEERS: [Self; 7] = [
        Self::Nothing,
        Self::Floor,
        Self::Addresses,
        Self::NftStateless,
        Self::NftStateful,
        Self::Ipset,
        Self::Iptables,
    ];

    /// Returns the name of the filter in tables.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "no filter",
            Self::Floor => "XDP floor",
            Self::Pomguard => "pomguard",
            Self::PomguardGeneric => "pomguard, generic",
            Self::NftStateless => "nftables",
            Self::NftStateful => "nftables, stateful",
            Self::Ipset => "iptables + ipset",
            Self::Iptables => "iptables, linear",
            Self::Addresses => "xdp-filter",
        }
    }

    /// Returns true if the filter can hold the policy.
    pub(super) fn holds(self, policy: &Policy) -> bool {
        match self {
            Self::Iptables => policy.tuples.len() <= LINEAR_RULES,
            Self::Addresses => addresses(policy).is_some(),
            _ => true,
        }
    }

    /// Puts the policy in force on a host by this filter.
    pub(super) fn enforce(
        self,
        sender: &mut Sender,
        host: &Namespace,
        interface: &str,
        policy: &Policy,
    ) -> Result<()> {
        let nft = |text: String| feed(host, "nft", &["-f", "-"], &text);
        let iptables = |text: &str| feed(host, iptables_restore(policy.family), &[], text);
        match self {
            Self::Nothing => Ok(()),
            Self::Floor => sender.attach_oracle(host, interface),
            // The guard starts and stops a daemon.
            Self::Pomguard | Self::PomguardGeneric => bail!("pomguard is no other filter"),
            Self::NftStateless => nft(nft_stateless(interface, policy)?),
            Self::NftStateful => {
                // The bench's packets have wrong checksums on purpose: TCP discards them for that reason,
                // and conntrack must not check them before.
                host.set_sysctl("net/netfilter/nf_conntrack_checksum", "0")?;
                nft(nft_stateful(policy)?)
            }
            Self::Ipset => {
                feed(host, "ipset", &["restore"], &ipset(policy)?)?;
                iptables(
                    "*filter\n:INPUT DROP [0:0]\n\
                    -A INPUT -p tcp -m set --match-set allowed src,dst -j ACCEPT\nCOMMIT\n",
                )
            }
            Self::Iptables => iptables(&linear(policy)?),
            Self::Addresses => xdp_filter(host, interface, policy),
        }
    }
}

/// Returns the cheapest nftables form: everything in the netdev hook, unlisted ports first.
pub(super) fn nft_stateless(interface: &str, policy: &Policy) -> Result<String> {
    let (ip, _) = nft_names(policy.family);
    let ports: Vec<String> = policy.ports().map(|port| port.to_string()).collect();
    Ok(format!(
        "table netdev bench {{\n{}\n set ports {{ type inet_service; elements = {{ {} }}; }}\n \
         chain in {{\n  type filter hook ingress device \"{interface}\" priority 0; policy accept;\n  \
         tcp dport != @ports counter drop\n  {ip} saddr . tcp dport @allowed counter accept\n  \
         meta l4proto tcp counter drop\n }}\n}}\n",
        nft_set(policy)?,
        ports.join(", "),
    ))
}

/// Returns the form that administrators usually write: established connections first, then the set.
pub(super) fn nft_stateful(policy: &Policy) -> Result<String> {
    let (ip, _) = nft_names(policy.family);
    Ok(format!(
        "table {ip} bench {{\n{}\n chain in {{\n  type filter hook input priority 0; policy drop;\n  \
         ct state established,related counter accept\n  {ip} saddr . tcp dport @allowed counter accept\n  \
         counter drop\n }}\n}}\n",
        nft_set(policy)?,
    ))
}

fn nft_set(policy: &Policy) -> Result<String> {
    let (_, kind) = nft_names(policy.family);
    let mut text = format!(" set allowed {{ type {kind} . inet_service; flags interval; elements = {{\n");
    for tuple in apart(policy) {
        writeln!(text, "{} . {},", tuple.peer, tuple.port)?;
    }
    text.push_str("}; }");
    Ok(text)
}

/// Returns the tuples that no wider tuple covers. An interval set of nftables takes no overlapping elements.
fn apart(policy: &Policy) -> impl Iterator<Item = &Tuple> {
    let all: HashSet<_> = policy.tuples.iter().map(|tuple| (tuple.peer, tuple.port)).collect();
    policy.tuples.iter().filter(move |tuple| {
        let mut wider = std::iter::successors(tuple.peer.supernet(), IpNet::supernet);
        !wider.any(|prefix| all.contains(&(prefix, tuple.port)))
    })
}

const fn nft_names(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::V4 => ("ip", "ipv4_addr"),
        Family::V6 => ("ip6", "ipv6_addr"),
    }
}

fn ipset(policy: &Policy) -> Result<String> {
    let family = if policy.family == Family::V4 { "inet" } else { "inet6" };
    let mut text = format!("create allowed hash:net,port family {family} hashsize 65536 maxelem 131072\n");
    for tuple in &policy.tuples {
        writeln!(text, "add allowed {},tcp:{}", tuple.peer, tuple.port)?;
    }
    Ok(text)
}

fn linear(policy: &Policy) -> Result<String> {
    let mut text = "*filter\n:INPUT DROP [0:0]\n".to_owned();
    for tuple in &policy.tuples {
        writeln!(text, "-A INPUT -s {} -p tcp -m tcp --dport {} -j ACCEPT", tuple.peer, tuple.port)?;
    }
    text.push_str("COMMIT\n");
    Ok(text)
}

const fn iptables_restore(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables-restore",
        Family::V6 => "ip6tables-restore",
    }
}

/// Returns the single addresses that xdp-filter needs for the policy, or `None` if xdp-filter cannot hold
/// them.
fn addresses(policy: &Policy) -> Option<Vec<IpAddr>> {
    let mut all = Vec::new();
    for tuple in &policy.tuples {
        let free = tuple.peer.max_prefix_len() - tuple.peer.prefix_len();
        if free > 8 || all.len() + (1 << free) > XDP_FILTER_ADDRESSES {
            return None;
        }
        match tuple.peer {
            IpNet::V4(prefix) => {
                let first = u32::from(prefix.network());
                all.extend((0..1 << free).map(|host| IpAddr::from(Ipv4Addr::from(first + host))));
            }
            IpNet::V6(prefix) => {
                let first = u128::from(prefix.network());
                all.extend((0..1 << free).map(|host| IpAddr::from(Ipv6Addr::from(first + host))));
            }
        }
    }
    Some(all)
}

fn xdp_filter(host: &Namespace, interface: &str, policy: &Policy) -> Result<()> {
    let feature = if policy.family == Family::V4 { "ipv4" } else { "ipv6" };
    let load = ["load", "--mode", "native", "--policy", "deny", "--features", feature, interface];
    feed(host, "xdp-filter", &load, "")?;
    for address in addresses(policy).unwrap_or_default() {
        feed(host, "xdp-filter", &["ip", &address.to_string(), "--mode", "src"], "")?;
    }
    Ok(())
}

/// Runs a program on a host with `text` as the standard input.
pub(super) fn feed(host: &Namespace, program: &str, arguments: &[&str], text: &str) -> Result<()> {
    let path =
        process::find(program).with_context(|| format!("{program} is not here: `cargo xtask setup`"))?;
    let mut command = host.command(path)?;
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let line = process::line(&command);
    let mut child = command.spawn().with_context(|| line.clone())?;
    // A program that ends early closes its side of the pipe. Its own error message gives the reason.
    let written = child.stdin.take().map_or(Ok(()), |mut input| input.write_all(text.as_bytes()));
    let output = child.wait_with_output().with_context(|| line.clone())?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        // nft repeats the whole line that contains the error.
        bail!("{line}: {}: {}", output.status, said.chars().take(400).collect::<String>().trim_end());
    }
    written.with_context(|| line)
}
