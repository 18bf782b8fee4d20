//! One packet through each of the loaded programs, before anybody is told that they are in force.
//!
//! The kernel runs it as if it came in or left by the loopback interface, where nothing is guarded. By that the
//! programs know a self-test: it is counted apart from traffic, and no rate that traffic uses up applies to it.

use aya::programs::{TestRun as _, TestRunOptions};
use pomguard_common::{Direction, names, reason::Reason};

use super::{KernelError, counters, load::Loaded, pins::Pins};

/// An ARP request for an address of nobody's (RFC 5737) by a locally administered station: passed under
/// its own reason by every policy, and dropped where there is none.
const ARP: [u8; 42] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x08, 0x06, // broadcast, from 02:…:01, ARP
    0, 1, 0x08, 0, 6, 4, 0, 1, // Ethernet, IPv4, request
    2, 0, 0, 0, 0, 1, 192, 0, 2, 1, // from
    0, 0, 0, 0, 0, 0, 192, 0, 2, 1, // for
];

/// XDP_PASS.
const XDP_PASS: u32 = 2;
/// TC_ACT_UNSPEC and TCX_NEXT, -1, as the kernel returns it.
const TC_NEXT: u32 = u32::MAX;

/// Asks both programs about a packet, by the pinned maps: it is counted as `arp`, among the self-tests.
///
/// # Errors
/// [`KernelError::SelfProbe`] when one does not judge it as it must.
pub fn judge(loaded: &mut Loaded, pins: &Pins) -> Result<(), KernelError> {
    let options = || TestRunOptions { data_in: Some(&ARP), ..TestRunOptions::default() };
    let counted = |direction: Direction| {
        counters::self_tests(pins)
            .map(|all| all.direction[direction.index()].judged[Reason::Arp.index()].packets)
    };
    for (direction, name, passes) in [
        (Direction::Inbound, names::PROGRAM_INGRESS, XDP_PASS),
        (Direction::Outbound, names::PROGRAM_EGRESS, TC_NEXT),
    ] {
        let before = counted(direction)?;
        let run = match direction {
            Direction::Inbound => loaded.xdp()?.test_run(options()),
            Direction::Outbound => loaded.tc()?.test_run(options()),
        };
        let verdict = run.map_err(KernelError::program(name))?.return_value;
        if verdict != passes || counted(direction)? == before {
            return Err(KernelError::SelfProbe { name, verdict });
        }
    }
    Ok(())
}
