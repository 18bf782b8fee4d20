//! The minimal program, which closes a host whose kernel refuses the real programs.
//!
//! The program is assembled here instead of compiled and needs as little of the kernel as possible: no helper,
//! no type information, no packet access at a variable offset, one loop over the failsafe tuples with a fixed
//! end. Packets that need more parsing (IP options, extension headers, fragments, two tags) are dropped.

use pomguard_common::{Direction, control::Override, protocol};

use super::{
    Content,
    assembler::{Assembler, Register, When, Width},
};

/// Maximum number of instructions of the program.
pub const CEILING: usize = 200;

/// Bytes of a tuple in the map: prefix and mask in network order, the two port ranges, and the kind.
pub(super) const TUPLE: usize = 48;
const STRIDE: u8 = TUPLE as u8;
const MASK: i16 = 16;
const SERVICE: i16 = 32;
const CLIENT: i16 = 36;
const KIND: i16 = 40;
/// Number of tuples that fit in the map.
pub(super) const TUPLES: usize = pomguard_common::limits::OVERRIDES;
/// Bytes of the set of VLAN ids that follows the tuples.
const VLANS: usize = 4_096 / 8;
/// Bytes of the map's only value.
pub(super) const VALUE: usize = TUPLES * TUPLE + VLANS;

/// Bits of a kind next to the protocol.
const V4: i32 = 4 << 8;
const V6: i32 = 6 << 8;
const OUTBOUND: i32 = 1 << 16;

/// Returns the value of the map.
pub(super) fn value(content: &Content) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(VALUE);
    for tuple in content.tuples.iter().take(TUPLES) {
        bytes.extend(tuple_bytes(tuple));
    }
    bytes.resize(TUPLES * TUPLE, 0);
    let mut vlans = [0_u8; VLANS];
    // A priority tag has id 0: the frame is judged like an untagged one.
    for id in content.vlans.iter().copied().chain([0]) {
        if let Some(byte) = vlans.get_mut(usize::from(id / 8)) {
            *byte |= 1 << (id % 8);
        }
    }
    bytes.extend(vlans);
    bytes
}

fn tuple_bytes(tuple: &Override) -> Vec<u8> {
    let outbound = tuple.marks & Override::OUTBOUND != 0;
    let family = if tuple.marks & 0xf == pomguard_common::image::Family::V4 as u8 { V4 } else { V6 };
    let kind = i32::from(tuple.protocol) | family | if outbound { OUTBOUND } else { 0 };
    let words = tuple.peer.iter().chain(&tuple.mask);
    let mut bytes: Vec<u8> = words.flat_map(|word| word.to_be_bytes()).collect();
    // First port in the low half, last port in the high half: two words of 16 bits each.
    bytes.extend(tuple.ports.to_le_bytes());
    bytes.extend(tuple.client_ports.to_le_bytes());
    bytes.extend(kind.to_le_bytes());
    bytes.resize(TUPLE, 0);
    bytes
}

/// Offsets on the stack.
const PEER: i16 = -16;
const OWN_PORT: i16 = -24;
const PEER_PORT: i16 = -32;
const MAY_BE: i16 = -40;

/// Registers, named after their contents.
const RESULT: Register = Register(0);
const CONTEXT: Register = Register(1);
/// Scratch.
const A: Register = Register(2);
const B: Register = Register(3);
const C: Register = Register(4);
const D: Register = Register(5);
/// The header that is being parsed.
const HEADER: Register = Register(6);
/// The end of the packet, later the index of the tuple.
const END: Register = Register(7);
/// The address of the tuple.
const AT: Register = Register(8);
/// Protocol and family of the packet.
const OWN_KIND: Register = Register(9);
const STACK: Register = Register(10);

/// Returns the program for a hook, over a map of [`VALUE`] bytes; `None` only if this code has a bug.
pub(super) fn program(hook: Direction, content: &Content, map: i32) -> Option<Vec<u64>> {
    let mut code = Assembler::default();
    link(&mut code, hook, map);
    network(&mut code, hook);
    transport(&mut code, hook, content.dhcp);
    tuples(&mut code, hook, content.tuples.len().min(TUPLES) as u8, map);
    let (drop, pass) = match hook {
        // XDP_DROP and XDP_PASS, TC_ACT_SHOT and TC_ACT_UNSPEC.
        Direction::Inbound => (1, 2),
        Direction::Outbound => (2, -1),
    };
    code.label("drop");
    code.set(RESULT, drop);
    code.exit();
    code.label("pass");
    code.set(RESULT, pass);
    code.exit();
    code.finish()
}

/// Drops the packet if the current header has fewer bytes than `bytes`.
fn need(code: &mut Assembler, bytes: i32) {
    code.copy(A, HEADER);
    code.add(A, bytes);
    code.jump_if_register(A, When::Greater, END, "drop");
}

/// Parses Ethernet with at most one tag. Leaves the EtherType in `B`.
fn link(code: &mut Assembler, hook: Direction, map: i32) {
    const TAG: i32 = 0x8100;
    const ARP: i32 = 0x0806;
    // The first two words of `xdp_md`; `data` and `data_end` of `__sk_buff`.
    let (start, end) = match hook {
        Direction::Inbound => (0, 4),
        Direction::Outbound => (76, 80),
    };
    code.load(Width::Word, HEADER, CONTEXT, start);
    code.load(Width::Word, END, CONTEXT, end);
    need(code, 14);
    code.load(Width::Half, B, HEADER, 12);
    code.network_to_host(B);
    code.jump_if(B, When::Differs, TAG, "untagged");
    need(code, 18);
    code.load(Width::Half, B, HEADER, 14);
    code.network_to_host(B);
    code.and(B, 0xfff);
    code.copy(C, B);
    code.shift_right(C, 3);
    code.map_value(AT, map);
    code.add(AT, i32::from(TUPLES as u16 * u16::from(STRIDE)));
    code.add_register(AT, C);
    code.load(Width::Byte, A, AT, 0);
    code.and(B, 7);
    code.shift_right_by(A, B);
    code.and(A, 1);
    code.jump_if(A, When::Equal, 0, "drop");
    code.load(Width::Half, B, HEADER, 16);
    code.network_to_host(B);
    code.add(HEADER, 4);
    code.label("untagged");
    code.jump_if(B, When::Equal, ARP, "pass");
}

/// Parses IPv4 or IPv6. Leaves protocol and family in `OWN_KIND` and the peer's address on the stack, and
/// advances `HEADER` to the transport header.
fn network(code: &mut Assembler, hook: Direction) {
    let inbound = hook == Direction::Inbound;
    code.jump_if(B, When::Equal, 0x86dd, "v6");
    code.jump_if(B, When::Differs, 0x0800, "drop");
    need(code, 34);
    // Require version 4 without options.
    code.load(Width::Byte, A, HEADER, 14);
    code.jump_if(A, When::Differs, 0x45, "drop");
    // Require an unfragmented packet.
    code.load(Width::Half, A, HEADER, 20);
    code.network_to_host(A);
    code.and(A, 0x3fff);
    code.jump_if(A, When::Differs, 0, "drop");
    code.load(Width::Byte, OWN_KIND, HEADER, 23);
    code.load(Width::Word, A, HEADER, if inbound { 26 } else { 30 });
    code.set(B, 0);
    code.store(Width::Double, STACK, PEER, B);
    code.store(Width::Double, STACK, PEER + 8, B);
    code.store(Width::Word, STACK, PEER, A);
    code.or(OWN_KIND, V4);
    code.add(HEADER, 34);
    code.jump("transport");

    code.label("v6");
    need(code, 54);
    code.load(Width::Byte, A, HEADER, 14);
    code.and(A, 0xf0);
    code.jump_if(A, When::Differs, 0x60, "drop");
    code.load(Width::Byte, OWN_KIND, HEADER, 20);
    let peer = if inbound { 22 } else { 38 };
    for half in [0, 8] {
        code.load(Width::Double, A, HEADER, peer + half);
        code.store(Width::Double, STACK, PEER + half, A);
    }
    code.jump_if(OWN_KIND, When::Differs, protocol::ICMPV6.into(), "not-discovery");
    // Router and neighbour solicitations and advertisements from a machine on the link.
    code.load(Width::Byte, B, HEADER, 21);
    code.jump_if(B, When::Differs, 255, "not-discovery");
    code.copy(A, HEADER);
    code.add(A, 56);
    code.jump_if_register(A, When::Greater, END, "not-discovery");
    code.load(Width::Byte, B, HEADER, 55);
    code.jump_if(B, When::Differs, 0, "not-discovery");
    code.load(Width::Byte, B, HEADER, 54);
    code.jump_if(B, When::Less, 133, "not-discovery");
    code.jump_if(B, When::Less, 137, "pass");
    code.label("not-discovery");
    code.or(OWN_KIND, V6);
    code.add(HEADER, 54);
}

/// Bits of the roles that a packet may have: opens a flow or continues one that the sender opened; answers.
const OPENS_SOME: i32 = 1;
const ANSWERS_SOME: i32 = 2;

/// Reads the ports. Leaves both on the stack and the possible roles of the packet in `D`.
fn transport(code: &mut Assembler, hook: Direction, dhcp: bool) {
    /// SYN and ACK: a packet with both can only answer, SYN alone can only open.
    const SYN: i32 = 0x02;
    const SYN_ACK: i32 = 0x12;
    let (own, peer) = if hook == Direction::Inbound { (2, 0) } else { (0, 2) };
    code.label("transport");
    code.set(D, OPENS_SOME);
    code.copy(C, OWN_KIND);
    code.and(C, 0xff);
    code.jump_if(C, When::Equal, protocol::TCP.into(), "tcp");
    code.jump_if(C, When::Equal, protocol::UDP.into(), "udp");
    // In tuples of protocols without ports, the service port is the number of the protocol.
    code.store(Width::Double, STACK, OWN_PORT, C);
    code.store(Width::Double, STACK, PEER_PORT, C);
    for (number, request, reply, other) in
        [(protocol::ICMP, 8, 0, "not-icmp"), (protocol::ICMPV6, 128, 129, "not-icmpv6")]
    {
        code.jump_if(C, When::Differs, number.into(), other);
        need(code, 8);
        code.load(Width::Byte, A, HEADER, 0);
        code.jump_if(A, When::Equal, request, "compare");
        code.set(D, ANSWERS_SOME);
        code.jump_if(A, When::Equal, reply, "compare");
        code.jump("drop");
        code.label(other);
    }
    code.jump("compare");
    code.label("tcp");
    need(code, 20);
    code.load(Width::Byte, A, HEADER, 13);
    code.and(A, SYN_ACK);
    code.jump_if(A, When::Equal, SYN, "ports");
    code.set(D, ANSWERS_SOME);
    code.jump_if(A, When::Equal, SYN_ACK, "ports");
    code.set(D, OPENS_SOME | ANSWERS_SOME);
    code.label("ports");
    code.load(Width::Half, B, HEADER, own);
    code.network_to_host(B);
    code.load(Width::Half, C, HEADER, peer);
    code.network_to_host(C);
    code.store(Width::Double, STACK, OWN_PORT, B);
    code.store(Width::Double, STACK, PEER_PORT, C);
    code.jump("compare");
    code.label("udp");
    need(code, 8);
    code.set(D, OPENS_SOME | ANSWERS_SOME);
    if dhcp {
        // A lease: from the server's port to the client's, or back.
        code.load(Width::Half, B, HEADER, own);
        code.network_to_host(B);
        code.load(Width::Half, C, HEADER, peer);
        code.network_to_host(C);
        code.jump_if(B, When::Differs, 68, "lease-v6");
        code.jump_if(C, When::Differs, 67, "ports");
        code.jump_if(OWN_KIND, When::Equal, i32::from(protocol::UDP) | V4, "pass");
        code.label("lease-v6");
        code.jump_if(B, When::Differs, 546, "ports");
        code.jump_if(C, When::Differs, 547, "ports");
        if hook == Direction::Inbound {
            // Servers and relays answer from link-local addresses (RFC 8415 sections 18.3.10 and 19.2).
            code.load(Width::Half, A, STACK, PEER);
            code.network_to_host(A);
            code.and(A, 0xffc0);
            code.jump_if(A, When::Differs, 0xfe80, "ports");
        }
        code.jump_if(OWN_KIND, When::Equal, i32::from(protocol::UDP) | V6, "pass");
    }
    code.jump("ports");
}

/// Compares the packet with every tuple.
fn tuples(code: &mut Assembler, hook: Direction, count: u8, map: i32) {
    code.label("compare");
    code.store(Width::Double, STACK, MAY_BE, D);
    if count == 0 {
        return;
    }
    code.map_value(AT, map);
    code.set(END, 0);
    code.label("tuple");
    code.load(Width::Word, A, AT, KIND);
    code.xor_register(A, OWN_KIND);
    // For inbound tuples the service is at this host, for outbound tuples at the peer. In the direction
    // opposite to the opening one, only answers pass.
    code.load(Width::Double, C, STACK, OWN_PORT);
    code.load(Width::Double, D, STACK, PEER_PORT);
    let must = |code: &mut Assembler, opened: Direction| {
        code.load(Width::Double, B, STACK, MAY_BE);
        code.and(B, if opened == hook { OPENS_SOME } else { ANSWERS_SOME });
        code.jump_if(B, When::Equal, 0, "next");
    };
    code.jump_if(A, When::Differs, 0, "outbound-tuple");
    must(code, Direction::Inbound);
    code.jump("ranges");
    code.label("outbound-tuple");
    code.jump_if(A, When::Differs, OUTBOUND, "next");
    must(code, Direction::Outbound);
    code.load(Width::Double, C, STACK, PEER_PORT);
    code.load(Width::Double, D, STACK, OWN_PORT);
    code.label("ranges");
    for (port, range) in [(C, SERVICE), (D, CLIENT)] {
        code.load(Width::Half, A, AT, range);
        code.jump_if_register(port, When::Less, A, "next");
        code.load(Width::Half, A, AT, range + 2);
        code.jump_if_register(port, When::Greater, A, "next");
    }
    for half in [0, 8] {
        code.load(Width::Double, A, STACK, PEER + half);
        code.load(Width::Double, B, AT, MASK + half);
        code.and_register(A, B);
        code.load(Width::Double, B, AT, half);
        code.jump_if_register(A, When::Differs, B, "next");
    }
    code.jump("pass");
    code.label("next");
    code.add(AT, i32::from(STRIDE));
    code.add(END, 1);
    code.jump_if(END, When::Less, i32::from(count), "tuple");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_with_all_options_stay_below_their_ceiling() {
        for hook in Direction::ALL {
            let full = Content {
                tuples: vec![Override::FREE; TUPLES],
                vlans: (1..4_095).collect(),
                dhcp: true,
                outbound: true,
            };
            let length = program(hook, &full, 3).unwrap().len();
            println!("{}: {length} instructions", hook.name());
            assert!((100..=CEILING).contains(&length), "{}: {length} instructions", hook.name());
        }
    }
}
