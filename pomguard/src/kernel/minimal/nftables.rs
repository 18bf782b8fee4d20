//! The same rules as one nftables table, for a host whose kernel accepts no BPF program.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    net::{Ipv4Addr, Ipv6Addr},
    process::{Command, Stdio},
};

use pomguard_common::{Direction, control::Override, image::Family, protocol};

use super::Content;

/// Family and name of the table.
const TABLE: &str = "netdev pomguard_closed";
/// Paths of the program, for a caller whose PATH lacks the folder.
const PROGRAMS: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];

/// Writes the table for these interfaces in one transaction that replaces an earlier table. Returns false if
/// outbound packets should be filtered and are not, because the kernel has no egress hook (Linux 5.16).
///
/// # Errors
/// If nft is missing or refuses.
pub(super) fn put(interfaces: &[String], content: &Content) -> io::Result<bool> {
    let inbound = script(interfaces, content, &[Direction::Inbound]);
    if !content.outbound {
        return nft(&inbound).map(|()| true);
    }
    match nft(&script(interfaces, content, &Direction::ALL)) {
        Ok(()) => Ok(true),
        Err(_) => nft(&inbound).map(|()| false),
    }
}

/// Deletes the table if the table exists.
///
/// # Errors
/// If nft is missing or refuses.
pub(super) fn remove() -> io::Result<()> {
    nft(&format!("table {TABLE}\ndelete table {TABLE}\n"))
}

fn nft(script: &str) -> io::Result<()> {
    let mut missing = None;
    for program in PROGRAMS {
        let mut child = match Command::new(program)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
        {
            Ok(child) => child,
            Err(error) => {
                missing = Some(error);
                continue;
            }
        };
        if let Some(mut input) = child.stdin.take() {
            input.write_all(script.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let first = said.lines().next().unwrap_or("no reason given");
        return Err(io::Error::other(format!("nft: {first}")));
    }
    Err(missing.map_or_else(
        || io::ErrorKind::NotFound.into(),
        |error| io::Error::new(error.kind(), format!("no nft program: {error}")),
    ))
}

/// Returns the script of the whole table: a chain for each interface and hook.
fn script(interfaces: &[String], content: &Content, hooks: &[Direction]) -> String {
    let mut text = format!("table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n");
    for (number, interface) in interfaces.iter().enumerate() {
        for &hook in hooks {
            let (name, word) = match hook {
                Direction::Inbound => ("in", "ingress"),
                Direction::Outbound => ("out", "egress"),
            };
            // Writing to a `String` cannot fail.
            let _ = writeln!(text, "chain {name}{number} {{");
            let _ =
                writeln!(text, "type filter hook {word} device \"{interface}\" priority -500; policy drop;");
            for rule in rules(hook, content) {
                let _ = writeln!(text, "{rule}");
            }
            text.push_str("}\n");
        }
    }
    text.push_str("}\n");
    text
}

/// Returns the rules that pass packets at a hook. The kernel removes a VLAN tag before the hook but still knows
/// the VLAN.
fn rules(hook: Direction, content: &Content) -> Vec<String> {
    const DISCOVERY: &str = "nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert";
    let vlans: Vec<String> = [0].iter().chain(&content.vlans).map(u16::to_string).collect();
    let mut rules = vec![
        format!("vlan id != {{ {} }} drop", vlans.join(", ")),
        "ether type arp accept".to_owned(),
        format!("ip6 hoplimit 255 icmpv6 type {{ {DISCOVERY} }} icmpv6 code 0 accept"),
    ];
    if content.dhcp {
        let (v4, v6) = match hook {
            Direction::Inbound => {
                ("sport 67 udp dport 68", "ip6 saddr fe80::/10 udp sport 547 udp dport 546")
            }
            Direction::Outbound => ("sport 68 udp dport 67", "ip6 daddr ::/0 udp sport 546 udp dport 547"),
        };
        rules.push(format!("{WHOLE} udp {v4} accept"));
        rules.push(format!("{v6} accept"));
    }
    rules.extend(content.tuples.iter().filter_map(|tuple| rule(hook, tuple)));
    rules
}

/// Matches packets that are no fragments.
const WHOLE: &str = "ip frag-off & 0x3fff == 0";

/// Returns the rule for a failsafe tuple at a hook; `None` if no packet of the tuple goes in that direction.
fn rule(hook: Direction, tuple: &Override) -> Option<String> {
    let side = if hook == Direction::Inbound { "saddr" } else { "daddr" };
    let length: u32 = tuple.mask.iter().map(|word| word.count_ones()).sum();
    let peer = if tuple.marks & 0xf == Family::V4 as u8 {
        format!("ip {side} {}/{length} {WHOLE}", Ipv4Addr::from_bits(tuple.peer[0]))
    } else {
        let bits = tuple.peer.iter().fold(0_u128, |bits, &word| bits << 32 | u128::from(word));
        format!("ip6 {side} {}/{length}", Ipv6Addr::from_bits(bits))
    };
    let opens = if tuple.marks & Override::OUTBOUND == 0 { Direction::Inbound } else { Direction::Outbound };
    let name = match tuple.protocol {
        protocol::TCP => "tcp",
        protocol::UDP => "udp",
        protocol::ICMP | protocol::ICMPV6 => {
            let name = if tuple.protocol == protocol::ICMP { "icmp" } else { "icmpv6" };
            let kind = if opens == hook { "echo-request" } else { "echo-reply" };
            return Some(format!("{peer} {name} type {kind} accept"));
        }
        // In a protocol without ports, an answer cannot be told from a request.
        other => return (opens == hook).then(|| format!("{peer} meta l4proto {other} accept")),
    };
    let range = |ports: u32| format!("{}-{}", ports & 0xffff, ports >> 16);
    let (service, client) = (range(tuple.ports), range(tuple.client_ports));
    if opens == hook {
        return Some(format!("{peer} {name} dport {service} {name} sport {client} accept"));
    }
    // In the direction opposite to the opening one, only answers pass.
    let answers = if name == "tcp" { " tcp flags & (ack | rst) != 0" } else { "" };
    Some(format!("{peer} {name} sport {service} {name} dport {client}{answers} accept"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ssh() -> Override {
        Override {
            peer: [0x0a09_0000, 0, 0, 0],
            mask: [0xffff_ff00, 0, 0, 0],
            ports: 0x0016_0016,
            client_ports: 0xffff_0400,
            protocol: protocol::TCP,
            marks: Family::V4 as u8,
            ..Override::FREE
        }
    }

    #[test]
    fn failsafe_tuple_has_answers_at_the_other_hook() {
        assert_eq!(
            rule(Direction::Inbound, &ssh()).unwrap(),
            "ip saddr 10.9.0.0/24 ip frag-off & 0x3fff == 0 tcp dport 22-22 tcp sport 1024-65535 accept"
        );
        assert_eq!(
            rule(Direction::Outbound, &ssh()).unwrap(),
            "ip daddr 10.9.0.0/24 ip frag-off & 0x3fff == 0 tcp sport 22-22 tcp dport 1024-65535 \
             tcp flags & (ack | rst) != 0 accept"
        );
    }

    #[test]
    fn only_the_vlans_of_the_settings_are_judged() {
        let content = Content { tuples: vec![ssh()], vlans: vec![5], dhcp: false, outbound: true };
        let text = script(&["eth0".to_owned()], &content, &Direction::ALL);
        assert!(text.contains("vlan id != { 0, 5 } drop\n"), "{text}");
        assert_eq!(text.matches("policy drop;").count(), 2, "{text}");
    }
}
