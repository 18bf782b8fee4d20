//! Sends one packet through each loaded program before the daemon reports the programs as in force.
//!
//! The kernel runs the program as if the packet used the loopback interface, where nothing is guarded. The
//! programs recognize a self-test by that interface: they count the packet separately from traffic and apply no
//! rate limit that traffic uses up.

use aya::programs::{TestRun as _, TestRunOptions};
use pomguard_common::{Direction, names, reason::Reason};

use super::{KernelError, counters, load::Loaded, pins::Pins};

/// An ARP request for an address that nobody has (RFC 5737), from a locally administered station: passed under
/// the reason `arp` by every policy, and dropped without a policy.
const ARP: [u8; 42] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x08, 0x06, // broadcast, from 02:…:01, ARP
    0, 1, 0x08, 0, 6, 4, 0, 1, // Ethernet, IPv4, request
    2, 0, 0, 0, 0, 1, 192, 0, 2, 1, // from
    0, 0, 0, 0, 0, 0, 192, 0, 2, 1, // for
];

const XDP_PASS: u32 = 2;
/// TC_ACT_UNSPEC and TCX_NEXT, -1, as the kernel returns it.
const TC_NEXT: u32 = u32::MAX;

/// Runs both programs with a packet and the pinned maps. The packet is counted as `arp` among the self-tests.
///
/// # Errors
/// [`KernelError::SelfProbe`] if a program returns the wrong verdict or does not count the packet.
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
