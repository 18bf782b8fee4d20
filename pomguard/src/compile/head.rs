//! The fixed lines of an image: everything that does not depend on rows.

use std::net::IpAddr;

use pomguard_common::{
    flow::State,
    image::{
        self, AGES, BUDGETS, CLOCK_WORD, GENERATION_WORD, LOCAL_V4, LOCAL_V6, Line, SECTIONS, VLANS, mode,
        switch,
    },
    limits::{LOCAL_ADDRESSES, OWN_ADDRESSES},
    rate::Rated,
};

use super::{
    Clock,
    error::CompileError,
    prefix::{Family, left_aligned},
};
use crate::policy::{Mode, OwnAddresses, PacketSettings, Policy, Rates};

/// Fills the IPv4 list of a host without IPv4: 240.0.0.0. Class E (RFC 1112 section 4) belongs to nobody, the
/// programs refuse it as a source before they check if it is local, and no DHCP client sends from this address
/// (as from 0.0.0.0) nor to this address (as to the broadcast address).
const NOBODY_V4: u32 = 0xf000_0000;
/// Fills the IPv6 list of a host without IPv6: ::1. The address never occurs on the wire (RFC 4291 section
/// 2.5.3); the stack drops such packets, and the programs refuse the address as a source. The unspecified
/// address is not suitable: duplicate address detection sends from it.
const NOBODY_V6: u128 = 1;

/// Builds line 0 to the first section, except the section words of the head.
pub(super) fn fixed(policy: &Policy, clock: Clock, generation: u32) -> Result<Vec<Line>, CompileError> {
    let mut lines = vec![Line::ZERO; SECTIONS as usize];
    let head = &mut lines[image::HEAD as usize].0;
    head[image::head::ABI as usize] = pomguard_common::ABI_VERSION;
    head[image::head::MODES as usize] =
        u32::from(inbound(policy.inbound)) | u32::from(outbound(policy.outbound)) << 8;
    head[image::head::SWITCHES as usize] = switches(&policy.packets);
    local(policy, &mut lines)?;
    vlans(&policy.served_vlans(), &mut lines[VLANS as usize])?;
    let ages = &mut lines[AGES as usize];
    budgets(&policy.packets.rates, clock, ages);
    for state in State::ALL {
        ages.0[state as usize] = clock.ticks(policy.flows.age(state));
    }
    date(ages, clock, generation);
    Ok(lines)
}

/// Writes the generation and the clock's offset.
pub(super) fn date(line: &mut Line, clock: Clock, generation: u32) {
    line.0[GENERATION_WORD as usize] = generation;
    line.0[CLOCK_WORD as usize] = clock.offset;
}

/// Converts the ages and budgets from the ticks of another clock. The ages keep their seconds exactly if a tick
/// is no longer than a second.
pub(super) fn convert(line: &mut Line, from: u32, clock: Clock) {
    if from == 0 || from == clock.ticks_per_1000s {
        return;
    }
    let (from, to) = (u64::from(from), u64::from(clock.ticks_per_1000s));
    let clamped = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).max(1);
    for state in State::ALL {
        let seconds = u64::from(line.0[state as usize]) * 1_000 / from;
        line.0[state as usize] = clock.ticks(u32::try_from(seconds).unwrap_or(u32::MAX));
    }
    for word in line.0.iter_mut().skip(BUDGETS as usize).take(Rated::COUNT) {
        *word = clamped((u64::from(*word) * from).checked_div(to).unwrap_or(u64::MAX));
    }
}

/// Writes the budgets in packets per tick, at least one.
fn budgets(rates: &Rates, clock: Clock, line: &mut Line) {
    let Rates { neighbours, echo_v6, icmp_errors, path_mtu } = *rates;
    for (rated, rate) in [
        (Rated::Neighbours, neighbours),
        (Rated::EchoV6, echo_v6),
        (Rated::Errors, icmp_errors),
        (Rated::PathMtu, path_mtu),
    ] {
        let budget = u64::from(rate) * 1_000 / u64::from(clock.ticks_per_1000s).max(1);
        line.0[(BUDGETS + rated as u32) as usize] = u32::try_from(budget).unwrap_or(u32::MAX).max(1);
    }
}

const fn inbound(mode: Mode) -> u8 {
    match mode {
        // Inbound connections are not tracked; the reader of settings refuses `track` for them.
        Mode::Track | Mode::Audit => mode::AUDIT,
        Mode::Enforce => mode::ENFORCE,
    }
}

const fn outbound(mode: Mode) -> u8 {
    match mode {
        Mode::Track => mode::TRACK,
        Mode::Audit => mode::AUDIT,
        Mode::Enforce => mode::ENFORCE,
    }
}

fn switches(packets: &PacketSettings) -> u32 {
    [
        (packets.vrrp, switch::VRRP),
        (packets.link_control, switch::LINK_CONTROL),
        (packets.group_membership, switch::GROUP_MEMBERSHIP),
        (packets.dhcp, switch::DHCP),
        (packets.echo_v6, switch::ECHO_V6),
        (packets.redirects, switch::REDIRECTS),
    ]
    .into_iter()
    .filter_map(|(on, bit)| on.then_some(bit))
    .sum()
}

fn local(policy: &Policy, lines: &mut [Line]) -> Result<(), CompileError> {
    let alone = || policy.local.iter().chain(&policy.machine.taken).copied();
    // Addresses of the machine may come later.
    let listed = policy.own_addresses == OwnAddresses::Listed;
    if listed && alone().next().is_none() && policy.shared.is_empty() {
        return Err(CompileError::NoLocalAddress);
    }
    let of = |family: Family| -> Result<Vec<u128>, CompileError> {
        let mut found: Vec<u128> = Vec::new();
        let shared = policy.shared.iter().filter(|prefix| family.has(prefix.addr())).count();
        let own = alone().filter(|&address: &IpAddr| family.has(address)).count() + shared;
        if own > OWN_ADDRESSES {
            return Err(CompileError::LocalAddresses { family, found: own });
        }
        for address in alone().filter(|&address: &IpAddr| family.has(address)) {
            let address = left_aligned(address);
            if !found.contains(&address) {
                found.push(address);
            }
        }
        let nobody = match family {
            Family::V4 => u128::from(NOBODY_V4) << 96,
            Family::V6 => NOBODY_V6,
        };
        let first = found.first().copied().unwrap_or(nobody);
        found.resize(LOCAL_ADDRESSES, first);
        Ok(found)
    };
    for (address, at) in of(Family::V4)?.into_iter().zip(0..) {
        lines[LOCAL_V4 as usize].0[at] = (address >> 96) as u32;
    }
    for (address, at) in of(Family::V6)?.into_iter().zip(0..) {
        let words = &mut lines[LOCAL_V6 as usize + at / 4].0[4 * (at % 4)..][..4];
        words.iter_mut().zip([96, 64, 32, 0]).for_each(|(word, shift)| *word = (address >> shift) as u32);
    }
    Ok(())
}

/// Writes VLAN ids, each once.
fn vlans(ids: &[u16], line: &mut Line) -> Result<(), CompileError> {
    if ids.len() > image::VLAN_IDS {
        return Err(CompileError::Vlans { found: ids.len() });
    }
    for (id, at) in ids.iter().zip(0..) {
        line.0[at / 2] |= u32::from(*id) << (16 * (at % 2));
    }
    Ok(())
}
