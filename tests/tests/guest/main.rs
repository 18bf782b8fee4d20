//! One boot of an emulated machine: everything that differs between kernels and network cards.
//!
//! The machine has two emulated cards, whose far ends are outside, two veth pairs, and a bond over two more. Loading the programs
//! takes half a minute in emulation, so the test loads them only three times: one start of the daemon, a
//! second start after SIGKILL, and the programs that judge the test packets. `cargo xtask test --only guests`
//! boots the machine and judges the report.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic keeps the place where it happened")]

mod machine;
mod processors;
mod report;
mod standstill;
mod verdicts;
mod vlan;
mod ways;

use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use pomguard::kernel::{attach, interface, sight::Seen};
use pomguard_tests::daemon::{Daemon, Lab, Settings, Stats};

use self::{
    machine::{BOND, End, GENERIC, MEMBERS, Machine},
    report::Report,
    ways::Kernel,
};

/// The interfaces of the first start.
const AT_FIRST: &[&str] = &["veth-native", "vmxnet3", "virtio_net", BOND];
/// All interfaces: the one that joins later is the last.
const ALL: &[&str] = &["veth-native", "vmxnet3", "virtio_net", BOND, GENERIC];
/// The changed MTU of an interface. The least MTU of IPv6 is 1,280.
const OTHER_MTU: u32 = 1_400;

#[test]
#[ignore = "needs an emulated machine of its own: `cargo xtask test --only guests`"]
fn basic_guest() {
    let Some(lab) = Lab::in_guest("basic_guest") else { panic!("needs root") };
    let kernel = Kernel::running();
    let mut report = Report::new();
    let machine = Machine::new(lab);
    thread::scope(|scope| {
        // In parallel with the first start: both wait for the verifier.
        let verdicts = scope.spawn(verdicts::all);
        for end in machine.ends() {
            report.step(&format!("open {end}"), || machine.is_open(end));
        }
        let daemon = report.step_with("start", || Ok(start(&machine, AT_FIRST, BEST_WAY)));
        report.timed("verdicts", verdicts.join());
        if let Some(daemon) = daemon {
            guarded(&mut report, &machine, &kernel, daemon);
        } else {
            not_reached(&mut report, &machine);
        }
    });
    report.end();
}

/// Runs all steps from the first start to the end.
fn guarded(report: &mut Report, machine: &Machine, kernel: &Kernel, daemon: Daemon) {
    for end in machine.first() {
        report.step(&format!("attach {end}"), || is_attached(machine, end, kernel.first(end.interface)));
        change(report, machine, end);
    }
    report.step(&format!("failover {BOND}"), || failover(machine));
    let join = || {
        settings(machine, ALL, OTHER_WAY);
        let message = daemon.reload();
        ensure!(!message.contains("FAILED") && !message.contains("refused"), "{message}");
        is_attached(machine, machine.last(), ["generic", "clsact"])
    };
    report.step(&format!("attach {GENERIC}"), join);
    change(report, machine, machine.last());
    report.step("vlan", || vlan::check(machine, &daemon));

    let before = machine.lab.stats();
    let programs = programs(machine);
    report.step("kill", || {
        machine.watch_all(|| {
            daemon.kill();
            Ok(String::new())
        })
    });
    for end in machine.ends() {
        report.step(&format!("killed {end}"), || end.was_shut().and_then(|()| machine.is_guarded(end)));
    }
    let mut next = None;
    report.step("re-adopt", || {
        let message = machine.watch_all(|| {
            let (daemon, message) = start(machine, ALL, IN_ENFORCE);
            next = Some(daemon);
            Ok(message)
        })?;
        is_taken_over(machine, &before, &programs)?;
        Ok(message)
    });
    for end in machine.ends() {
        let guarded = || end.was_shut().and_then(|()| machine.is_guarded(end));
        report.step(&format!("re-adopted {end}"), guarded);
        report.step(&format!("leave {end}"), || machine.keeps_in(end));
    }
    if standstill::suspends() {
        report.step("suspend", || standstill::suspend(machine));
    }
    report.step("stop", || standstill::stop(machine));
    report.step("restore", || standstill::restore(machine));
    report.step("processor", || processors::plug(machine, kernel));
    report.step("detach", || {
        let detach = machine.lab.pomguard(&["detach", "--yes"]);
        ensure!(detach.status.success(), "{}", String::from_utf8_lossy(&detach.stderr));
        ensure!(machine.lab.pinned().is_empty(), "still pinned: {:?}", machine.lab.pinned());
        for end in machine.ends() {
            ensure!(program(machine, end)?.is_none(), "{end} still has an XDP program");
        }
        ensure!(next.take().context("no daemon to stop")?.stop().success(), "SIGTERM ends the daemon badly");
        Ok(String::new())
    });
    for end in machine.ends() {
        report.step(&format!("detached {end}"), || machine.is_open(end));
    }
}

/// Checks that an interface judges packets, and still does after typical operations of an administrator.
fn change(report: &mut Report, machine: &Machine, end: &End) {
    report.step(&format!("judge {end}"), || machine.is_guarded(end));
    let link = machine.lab.server.link(end.interface);
    report.step(&format!("flap {end}"), || {
        machine.watched_at(end, || {
            link.down()?;
            link.up()?;
            machine.dress(end);
            Ok(())
        })?;
        machine.is_guarded(end)
    });
    report.step(&format!("mtu {end}"), || {
        machine.watched_at(end, || {
            link.set_mtu(OTHER_MTU)?;
            machine.dress(end);
            Ok(())
        })?;
        ensure!(link.state()?.mtu == OTHER_MTU, "the MTU is {}", link.state()?.mtu);
        machine.is_guarded(end)
    });
}

/// Takes the active member of the bond down, and checks that the guard continues on the other member. In native
/// mode the members' drivers run the program, so the packets of each member count for the bond.
fn failover(machine: &Machine) -> Result<String> {
    let (server, end) = (&machine.lab.server, machine.bond());
    let index = server.link(BOND).index()?;
    let native = interface::xdp(index)?.context("the bond has no program")?.native;
    let cards = Seen::open(&machine.pins())?.check(index, native)?;
    let mut members =
        MEMBERS.map(|member| server.link(member).index()).into_iter().collect::<Result<Vec<_>>>()?;
    if !native {
        members = vec![index];
    }
    let found: Vec<u32> = cards.iter().map(|card| card.card).collect();
    ensure!(found == members, "the guard is compared with the cards {found:?}, not {members:?}");
    let mut told = Vec::new();
    for (down, up) in [(MEMBERS[0], MEMBERS[1]), (MEMBERS[1], MEMBERS[0])] {
        machine.watched_at(end, || server.link(down).down())?;
        told.push(format!("{up} alone: {}", machine.is_guarded(end)?));
        server.link(down).up()?;
    }
    let status = machine.lab.pomguard(&["status", "--json"]);
    let status = String::from_utf8_lossy(&status.stdout);
    ensure!(!status.contains("unseen"), "{status}");
    Ok(told.join("; "))
}

/// Reports everything that needs the first start as not reached.
fn not_reached(report: &mut Report, machine: &Machine) {
    for end in machine.ends() {
        for step in ["attach", "judge", "flap", "mtu", "killed", "re-adopted", "leave", "detached"] {
            report.not_reached(&format!("{step} {end}"), "start");
        }
    }
    let failover = format!("failover {BOND}");
    for step in [&failover, "vlan", "kill", "re-adopt", "stop", "restore", "processor", "detach"] {
        report.not_reached(step, "start");
    }
}

/// The settings of a start: the attach modes, and the outbound mode.
#[derive(Clone, Copy)]
struct Way {
    xdp: &'static str,
    tc: &'static str,
    outbound: &'static str,
}

/// With outbound track the answers to a packet that got through leave, so that the outside notices it.
const BEST_WAY: Way = Way { xdp: "auto", tc: "auto", outbound: "track" };
/// The settings for the interface that joins later. The others stay attached as they are.
const OTHER_WAY: Way = Way { xdp: "generic", tc: "clsact", ..BEST_WAY };
/// The settings of the second start.
const IN_ENFORCE: Way = Way { outbound: "enforce", ..OTHER_WAY };

fn settings(machine: &Machine, interfaces: &'static [&'static str], way: Way) {
    let Way { xdp, tc, outbound } = way;
    machine.lab.write_settings(&Settings { interfaces, attach: xdp, tc, outbound, ..Settings::default() });
}

/// Starts the daemon, and returns the daemon and a note for the report.
fn start(machine: &Machine, interfaces: &'static [&'static str], way: Way) -> (Daemon, String) {
    settings(machine, interfaces, way);
    let daemon = Daemon::spawn_by(&machine.lab, &processors::within_limit());
    daemon.wait_ready();
    let message = format!("generation {}, {}", machine.lab.stats().generation(), processors::memory());
    (daemon, message)
}

fn is_attached(machine: &Machine, end: &End, wanted: [&str; 2]) -> Result<String> {
    let found = attach::describe(&machine.pins(), end.interface);
    if [&found.xdp, &found.tc] != wanted {
        bail!("XDP {}, TC {}; expected XDP {}, TC {}", found.xdp, found.tc, wanted[0], wanted[1]);
    }
    Ok(wanted.join(", "))
}

/// Returns the id of an interface's XDP program.
fn program(machine: &Machine, end: &End) -> Result<Option<u32>> {
    let index = machine.lab.server.link(end.interface).index()?;
    Ok(interface::xdp(index)?.map(|state| state.program))
}

fn programs(machine: &Machine) -> Vec<Option<u32>> {
    machine.ends().map(|end| program(machine, end).ok().flatten()).collect()
}

/// Checks that the second daemon's programs have replaced the first one's, and that the counters continue.
fn is_taken_over(machine: &Machine, before: &Stats, programs_before: &[Option<u32>]) -> Result<()> {
    for ((end, before), now) in machine.ends().zip(programs_before).zip(programs(machine)) {
        ensure!(before.is_some() && now.is_some(), "{end}: program {before:?} before, {now:?} now");
        ensure!(*before != now, "{end}: the program is still the first daemon's");
    }
    machine.lab.stats().assert_not_behind(before);
    Ok(())
}
