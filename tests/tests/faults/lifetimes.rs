//! Daemons that stop and start in order, and starts that the kernel refuses, while an operator changes the
//! interface.

use std::{thread, time::Duration};

use pomguard_tests::{
    daemon::{Daemon, INTERFACE, Lab},
    faults::{
        Leftovers, Load,
        policies::{Policy, Touchstone},
        report, times,
    },
};

/// CAP_PERFMON: without this capability the verifier accepts no access at a variable offset.
const PERFMON: u64 = 38;

/// Returns the number of carrier changes of the interface.
fn carrier_changes(lab: &Lab) -> String {
    // The test's own /sys shows the namespace of the machine.
    let look = format!("mount -t sysfs sysfs /mnt && cat /mnt/class/net/{INTERFACE}/carrier_changes");
    let output = lab.command("unshare").args(["--mount", "sh", "-c", &look]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn lc_04_restarts_under_load_lose_nothing_on_the_link() {
    let Some(lab) = Lab::new("lc_04_restarts_under_load_lose_nothing_on_the_link") else {
        return;
    };
    let restarts = times("POMGUARD_FAULT_RESTARTS", 3);
    let mut daemon = Daemon::start(&lab);
    let changes = carrier_changes(&lab);
    let pins = lab.pinned();
    let mut load = Load::start(&lab, 64, 10_000);
    for restart in 1..=restarts {
        let when = format!("LC-04, LC-36, restart {restart}");
        let before = lab.stats();
        assert!(daemon.stop().success(), "{when}");
        Leftovers::of(&lab).assert_whole(&when);
        load.assert_none_delivered(&when);
        daemon = Daemon::start(&lab);
        Leftovers::of(&lab).assert_whole(&when);
        lab.stats().assert_not_behind(&before);
        load.assert_none_delivered(&when);
    }
    assert_eq!(carrier_changes(&lab), changes, "LC-04: the link was reset");
    // Each start puts the image into another slot.
    let besides = |pins: Vec<std::path::PathBuf>| -> Vec<_> {
        pins.into_iter().filter(|pin| !pin.parent().is_some_and(|it| it.ends_with("images"))).collect()
    };
    assert_eq!(besides(lab.pinned()), besides(pins), "LC-04: pinned besides");
    assert!(daemon.stop().success());
    let outcome = load.finish(&lab, "LC-04").assert_none_delivered_none_lost();
    report(&format!("{restarts} restarts: {outcome}, 0 carrier changes"));
}

#[test]
fn lc_06_refused_programs_leave_the_old_ones_working() {
    let name = "lc_06_refused_programs_leave_the_old_ones_working";
    let Some(lab) = Lab::new(name) else { return };
    Policy::One.write(&lab);
    Daemon::start(&lab).kill();
    let program = lab.xdp_program();
    let mut touchstone = Touchstone::new(&lab);
    let mut load = Load::start(&lab, 32, 10_000);
    Policy::Other.write(&lab);
    let mut daemon = Daemon::spawn_without(&lab, PERFMON);
    assert_eq!(daemon.wait_end().code(), Some(1), "LC-06: {}", daemon.log());
    let log = daemon.log();
    assert!(log.contains("Verifier output"), "LC-06, LC-37: the verifier refused it: {log}");
    assert!(log.contains("lacks CAP_PERFMON"), "LC-06, LC-37: it says what it lacks: {log}");
    assert_eq!(touchstone.which("LC-06"), Policy::One);
    assert_eq!(lab.xdp_program(), program, "LC-06: the program at the hook");
    Leftovers::of(&lab).assert_whole("LC-06");
    load.assert_none_delivered("LC-06");
    let daemon = Daemon::start(&lab);
    assert_eq!(touchstone.which("LC-06, with all powers"), Policy::Other);
    assert!(daemon.stop().success());
    let outcome = load.finish(&lab, "LC-06").assert_none_delivered_none_lost();
    report(&format!("programs that the verifier refuses: the old ones and the old policy, {outcome}"));
}

#[test]
fn lc_10_interface_operations_interrupt_no_enforcement() {
    let name = "lc_10_interface_operations_interrupt_no_enforcement";
    let Some(lab) = Lab::new(name) else { return };
    let daemon = Daemon::start(&lab);
    let program = lab.xdp_program();
    let mut load = Load::start(&lab, 32, 10_000);
    let mut refused = Vec::new();
    for words in [
        "ip link set eth0 mtu 1400",
        "ip link set eth0 mtu 9000",
        "ip link set eth0 mtu 1500",
        "ip link set eth0 promisc on",
        "ip link set eth0 promisc off",
        "ip link set eth0 allmulticast on",
        "ip link set eth0 txqueuelen 10",
        "ip link set eth0 gso_max_size 4096",
        "ethtool -K eth0 tso off gso off",
        "ethtool -K eth0 gro on",
        "ethtool -K eth0 gro off",
        "ethtool -K eth0 rxvlan off txvlan off",
        "ethtool -K eth0 rx off tx off sg off",
        "ethtool -K eth0 sg on rx on tx on tso on gso on",
        "ethtool -L eth0 rx 1 tx 1",
        "tc qdisc replace dev eth0 root pfifo limit 1000",
        "tc qdisc del dev eth0 root",
        "ip link set eth0 down",
        "ip link set eth0 up",
    ] {
        let when = format!("LC-10, after `{words}`");
        let mut split = words.split(' ');
        let output = lab.command(split.next().unwrap()).args(split).output().unwrap();
        if !output.status.success() {
            refused.push(words);
        }
        if words.ends_with("up") {
            lab.dress(INTERFACE);
        }
        // Time for some hundred denied packets.
        thread::sleep(Duration::from_millis(100));
        assert_eq!(lab.xdp_program(), program, "{when}: the program at the hook");
        Leftovers::of(&lab).assert_whole(&when);
        load.assert_none_delivered(&when);
    }
    assert!(!daemon.log().contains("was taken away"), "LC-10: {}", daemon.log());
    assert!(daemon.stop().success());
    let outcome = load.finish(&lab, "LC-10").assert_none_delivered_none_lost();
    report(&format!(
        "19 changes of the interface, {} of them refused ({refused:?}): {outcome}",
        refused.len()
    ));
}
