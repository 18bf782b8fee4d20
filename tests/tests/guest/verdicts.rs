//! One packet for each reason, judged by the programs as this kernel loads them.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Instant};

use anyhow::{Result, ensure};
use pomguard::policy::{
    Direction,
    own::{Addresses, Present},
};
use pomguard_common::{
    control::{Override, suspension},
    image::Family,
    protocol::TCP,
    reason::Reason,
};
use pomguard_tests::{
    control_state::ControlState,
    dispositions::{Outcome, Trial, sections},
    harness::{Bench, Subject, bench},
    packet::{Packet, eth, ether, flag::ACK},
    reference::{self, Places},
};

/// The reasons without a packet here. Filling the flow table takes a quarter of a million packets, and the
/// other reason counts a fault that no packet causes.
const WITHOUT_PACKET: [Reason; 2] = [Reason::FlowTableFull, Reason::Internal];
/// The number of ARP requests in a burst. The rate allows ten in a second.
const BURST: usize = 400;

/// Tries every verdict. Returns the result and the duration in seconds, including the load of the programs.
pub(crate) fn all() -> (Result<String>, f32) {
    let start = Instant::now();
    (try_all(), start.elapsed().as_secs_f32())
}

fn try_all() -> Result<String> {
    let Some(mut bench) = bench("verdicts", reference::policy()) else { anyhow::bail!("needs root") };
    let mut shown = of_packets(&mut *bench)?;
    shown.extend(of_circumstances(&mut bench)?);
    shown.extend(WITHOUT_PACKET);
    let missing: Vec<_> =
        Reason::ALL.iter().filter(|reason| !shown.contains(reason)).map(|reason| reason.name()).collect();
    ensure!(missing.is_empty(), "no packet for {}", missing.join(", "));
    Ok(format!("{} reasons", shown.len() - WITHOUT_PACKET.len()))
}

/// Tries the first packet of the published table for each reason.
fn of_packets(subject: &mut dyn Subject) -> Result<BTreeSet<Reason>> {
    let sections = sections();
    let outcomes = || sections.iter().flat_map(|section| &section.classes).flat_map(|class| &class.outcomes);
    // A change of policy takes the kernel longer than all packets, so the packets of the reference policy
    // come first.
    let ordered = outcomes().filter(|it| it.set.is_none()).chain(outcomes().filter(|it| it.set.is_some()));
    let mut trial = Trial::new(subject);
    let (mut shown, mut faults) = (BTreeSet::new(), Vec::new());
    for outcome in ordered {
        let Some(places) = outcome.families().next().filter(|_| !shown.contains(&outcome.reason)) else {
            continue;
        };
        shown.insert(outcome.reason);
        if let Some(error) = trial.error(outcome, &places, false)? {
            faults.push(format!("{}: {error}", name(outcome)));
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("; "));
    Ok(shown)
}

fn name(outcome: &Outcome) -> String {
    format!("{} {}", outcome.direction.name(), outcome.reason.name())
}

/// Tries the reasons that need more than a packet.
fn of_circumstances(bench: &mut Bench) -> Result<Vec<Reason>> {
    const MINUTES: u32 = 600;
    let places = Places::v4();
    let listed = eth().ip(places.stranger, places.host).tcp(40_000, 443);
    let unlisted = eth().ip(places.stranger, places.host).tcp(40_000, 8_443);
    let group = Ipv4Addr::new(224, 0, 0, 251).into();
    let own = eth().ip(places.host, group).udp(40_000, 4_446).payload(b"hello").bare();
    let circumstances = [
        (Reason::OwnMulticast, ControlState { generic: true, ..ControlState::default() }, own),
        (Reason::NoPolicy, ControlState { no_policy: true, ..ControlState::default() }, listed.clone()),
        (
            Reason::Isolated,
            ControlState { suspension: Some((suspension::LOCKDOWN, MINUTES)), ..ControlState::default() },
            listed,
        ),
        (
            Reason::Grace,
            ControlState { grace: Some(MINUTES), ..ControlState::default() },
            unlisted.clone().flags(ACK),
        ),
        (
            Reason::Exception,
            ControlState { overrides: vec![(exception(), MINUTES)], ..ControlState::default() },
            unlisted,
        ),
    ];
    bench.renew(reference::policy())?;
    let mut shown = Vec::new();
    for (reason, control_state, packet) in circumstances {
        bench.hold(&control_state)?;
        let found = bench.reason(Direction::Inbound, &packet.build())?;
        ensure!(found == (reason, false), "{}: {found:?}", reason.name());
        shown.push(reason);
    }
    // An address that this machine has, and that the site file gives to nobody.
    let here = Ipv4Addr::new(198, 51, 100, 9).into();
    let guarded = vec![Present { address: here, interface: "eth0".into() }];
    bench.renew(reference::policy().on(&Addresses { guarded, ..Addresses::default() }))?;
    bench.hold(&ControlState::default())?;
    let found = bench.reason(Direction::Inbound, &eth().ip(places.office, here).tcp(40_000, 443).build())?;
    ensure!(found == (Reason::NotLocalKnown, false), "not-local-known: {found:?}");
    shown.push(Reason::NotLocalKnown);
    let mut tight = reference::policy();
    tight.packets.rates.neighbours = 10;
    bench.renew(tight)?;
    let request = Packet::build(&eth().to([0xff; 6]).ether_type(ether::ARP).payload(&[0; 28]));
    for _ in 0..BURST {
        if bench.reason(Direction::Inbound, &request)? == (Reason::RateLimited, false) {
            shown.push(Reason::RateLimited);
            break;
        }
    }
    Ok(shown)
}

/// Returns the first and the last port in one word, the form of an override.
fn port_range(first: u16, last: u16) -> u32 {
    u32::from(first) | u32::from(last) << 16
}

/// Returns an override that lets the stranger open port 8443.
fn exception() -> Override {
    let std::net::IpAddr::V4(stranger) = Places::v4().stranger else { return Override::FREE };
    Override {
        peer: [u32::from(stranger), 0, 0, 0],
        mask: [u32::MAX; 4],
        ports: port_range(8_443, 8_443),
        client_ports: port_range(1_024, u16::MAX),
        protocol: TCP,
        marks: Family::V4 as u8 | Override::EXCEPTION,
        slots: Override::EVERY_SLOT,
        ..Override::FREE
    }
}
