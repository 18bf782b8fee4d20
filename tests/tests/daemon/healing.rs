//! Objects that someone removes or changes without the daemon, and that the daemon restores.

use std::{fs, path::Path, thread, time::Duration};

use crate::watch::{is_state, repairs, wait_until};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData, ProgramArray},
    programs::{
        LinkOrder, SchedClassifier, Xdp, XdpMode,
        tc::{TcAttachOptions, TcAttachType},
    },
};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::Signal,
};
use pomguard::kernel::{interface, object::OBJECT};
use pomguard_common::{
    control::{Control, word},
    counter::RowLabel,
    names::{ARRAYS, MAP_CONTROL, MAP_LABELS, MAP_POLICY, PROGRAM_EGRESS, PROGRAM_INGRESS},
    text::FixedText,
};
use pomguard_netlab::{Namespace, sandbox::BPFFS};
use pomguard_tests::daemon::{
    Connection, Daemon, INTERFACE, LISTED, LISTED_OUT, Lab, MENDED, PEER, SERVER, SERVER6, Settings,
    TABLES_MENDED, UNLISTED, is_shut, opens,
};

/// Handle of the daemon's clsact filter.
const HANDLE: u32 = 0x706f_6d67;
/// Priority of the daemon's clsact filter.
const PRIORITY: u16 = 50;

fn assert_guarded(lab: &Lab, when: &str) {
    for server in [SERVER.into(), std::net::IpAddr::from(SERVER6)] {
        assert!(opens(&lab.peer, server, LISTED), "{when}: {server} does not answer at a listed port");
        assert!(is_shut(&lab.peer, server, UNLISTED), "{when}: {server} answers at an unlisted port");
    }
    assert!(opens(&lab.server, PEER, LISTED_OUT), "{when}: the server does not reach what it may");
    assert!(is_shut(&lab.server, PEER, UNLISTED), "{when}: the server reaches what it may not");
}

/// Returns the id of the XDP program that the interface has now.
fn xdp_of(namespace: &Namespace, link: &str) -> Option<u32> {
    let index = namespace.link(link).index().ok()?;
    namespace.run(|| interface::xdp(index)).unwrap().unwrap().map(|state| state.program)
}

#[test]
fn basic_late_interface_is_enforced_on_as_it_appears() {
    let Some(lab) = Lab::with_one_cable("basic_late_interface_is_enforced_on_as_it_appears") else {
        return;
    };
    lab.unplug();
    let daemon = Daemon::start(&lab);
    assert!(daemon.log().contains("not there yet"), "{}", daemon.log());
    assert!(is_state(&lab, "interface-missing"));
    lab.plug();
    daemon.keeps(MENDED, "attached to an interface that came later", || {
        xdp_of(&lab.server, INTERFACE).is_some()
    });
    daemon.wait_log("is there now");
    assert_guarded(&lab, "after it came");
    wait_until("no longer missing", &daemon, || !is_state(&lab, "interface-missing"));
    assert_eq!(repairs(&lab, "interface"), 0, "a first attachment repairs nothing");
}

#[test]
fn lc_11_an_interface_that_is_made_anew_is_attached_to_again() {
    let Some(lab) = Lab::with_one_cable("lc_11_an_interface_that_is_made_anew_is_attached_to_again") else {
        return;
    };
    let daemon = Daemon::start(&lab);
    for round in 1..=3 {
        lab.unplug();
        lab.plug();
        daemon
            .keeps(MENDED, "attached to an interface made anew", || xdp_of(&lab.server, INTERFACE).is_some());
        assert_guarded(&lab, "after it was made anew");
        wait_until("counted", &daemon, || repairs(&lab, "interface") == round);
        assert_eq!(lab.stats().attached(), ["native"]);
    }
}

#[test]
fn lc_25_recreated_interface_is_found_without_an_announcement() {
    let Some(lab) = Lab::with_one_cable("lc_25_recreated_interface_is_found_without_an_announcement") else {
        return;
    };
    let daemon = Daemon::start(&lab);
    daemon.signal(Signal::SIGSTOP);
    let link = lab.server.link(INTERFACE);
    // More messages than the socket of a stopped daemon can hold.
    for mtu in (0..500).map(|round| 1_400 + round % 2) {
        link.set_mtu(mtu).unwrap();
    }
    lab.unplug();
    lab.plug();
    daemon.signal(Signal::SIGCONT);
    daemon.wait_log("announced more than could be read");
    daemon.keeps(MENDED, "attached", || xdp_of(&lab.server, INTERFACE).is_some());
    assert_guarded(&lab, "after lost announcements");
    wait_until("counted", &daemon, || repairs(&lab, "interface") == 1);
    // Nobody removed a program: the interface disappeared with both programs.
    assert_eq!((repairs(&lab, "xdp"), repairs(&lab, "tc")), (0, 0), "{}", daemon.log());
}

#[test]
fn lc_12_interface_back_from_a_namespace_has_both_hooks() {
    let name = "lc_12_interface_back_from_a_namespace_has_both_hooks";
    for tc in ["auto", "clsact"] {
        let Some(lab) = Lab::with_one_cable(name) else { return };
        lab.write_settings(&Settings { tc, ..Settings::default() });
        let daemon = Daemon::start(&lab);
        let away = Namespace::new("away").unwrap();
        let link = lab.server.link(INTERFACE).move_to(&away).unwrap();
        wait_until("missed", &daemon, || is_state(&lab, "interface-missing"));
        println!("{tc}: away, its XDP program is {:?}", xdp_of(&away, INTERFACE));
        link.move_to(&lab.server).unwrap();
        lab.dress(INTERFACE);
        wait_until("found again", &daemon, || !is_state(&lab, "interface-missing"));
        let whole = || lab.stats().attachment() == ["native", if tc == "auto" { "tcx" } else { "clsact" }];
        wait_until("whole again", &daemon, whole);
        assert_guarded(&lab, "back from another namespace");
    }
}

#[test]
fn renamed_interface_and_its_name_successor_stay_guarded() {
    let name = "renamed_interface_and_its_name_successor_stay_guarded";
    let Some(lab) = Lab::with_one_cable(name) else { return };
    let daemon = Daemon::start(&lab);
    let program = xdp_of(&lab.server, INTERFACE);
    lab.server.link(INTERFACE).rename("wan0").unwrap();
    daemon.wait_log("eth0 is now wan0");
    lab.dress("wan0");
    assert_eq!(xdp_of(&lab.server, "wan0"), program, "the programs stay on it");
    assert_guarded(&lab, "under another name");
    assert!(is_state(&lab, "interface-renamed") && is_state(&lab, "interface-missing"));

    lab.server.add_bridge(INTERFACE).unwrap();
    daemon.keeps(MENDED, "attached to the new eth0", || xdp_of(&lab.server, INTERFACE) == program);
    assert_eq!(xdp_of(&lab.server, "wan0"), program, "and the old one still is");
    assert_guarded(&lab, "with another interface under its name");
    wait_until("no longer missing", &daemon, || !is_state(&lab, "interface-missing"));
    assert!(is_state(&lab, "interface-renamed"), "the settings do not name it");
}

#[test]
fn lc_13_a_deleted_clsact_or_replaced_filter_is_put_back() {
    let Some(lab) = Lab::new("lc_13_a_deleted_clsact_or_replaced_filter_is_put_back") else { return };
    lab.write_settings(&Settings { tc: "clsact", ..Settings::default() });
    let daemon = Daemon::start(&lab);
    assert_eq!(lab.stats().attachment(), ["native", "clsact"]);
    let index = lab.server.link(INTERFACE).index().unwrap();
    let filter =
        || lab.server.run(|| interface::clsact_filter(index, HANDLE, PRIORITY)).unwrap().ok().flatten();
    let ours = filter();
    assert!(ours.is_some());
    for round in 1..=2 {
        run(&lab, &["tc", "qdisc", "del", "dev", INTERFACE, "clsact"]);
        daemon.keeps(MENDED, "clsact and filter are back", || filter() == ours);
        wait_until("counted", &daemon, || repairs(&lab, "tc") == round);
        assert_guarded(&lab, "after clsact was deleted");
    }
    run(&lab, &["tc", "filter", "del", "dev", INTERFACE, "egress"]);
    daemon.keeps(MENDED, "the filter is back", || filter() == ours);
    wait_until("counted", &daemon, || repairs(&lab, "tc") == 3);
    assert_guarded(&lab, "after the filter was deleted");
    assert!(daemon.log().contains("eth0: tc was taken away: attached again"), "{}", daemon.log());

    // A foreign program in the place of the daemon's.
    let mut object = foreign();
    let program: &mut SchedClassifier = object.program_mut(PROGRAM_EGRESS).unwrap().try_into().unwrap();
    program.load().unwrap();
    let pin = Path::new("/sys/fs/bpf/theirs");
    program.pin(pin).unwrap();
    let (handle, priority, pin) = (format!("{HANDLE:#x}"), PRIORITY.to_string(), pin.to_str().unwrap());
    let filter_at =
        ["tc", "filter", "replace", "dev", INTERFACE, "egress", "prio", &priority, "handle", &handle];
    run(&lab, &[&filter_at[..], &["bpf", "direct-action", "object-pinned", pin]].concat());
    daemon.keeps(MENDED, "our program is back", || filter() == ours);
    wait_until("counted", &daemon, || repairs(&lab, "tc") == 4);
    assert_guarded(&lab, "after the filter was replaced");
}

#[test]
fn a_detached_tcx_link_is_made_anew() {
    let Some(lab) = Lab::new("a_detached_tcx_link_is_made_anew") else { return };
    let daemon = Daemon::start(&lab);
    assert_eq!(lab.stats().attachment(), ["native", "tcx"]);
    detach_link(&lab, "tcx-eth0");
    let guards = || {
        let found = SchedClassifier::query_tcx(INTERFACE, TcAttachType::Egress);
        found.is_ok_and(|(_, programs)| !programs.is_empty())
    };
    daemon.keeps(MENDED, "a new link at TCX", || lab.server.run(guards).unwrap());
    wait_until("counted", &daemon, || repairs(&lab, "tc") == 1);
    assert_eq!(lab.stats().attachment(), ["native", "tcx"]);
    detach_link(&lab, "xdp-eth0");
    daemon.keeps(MENDED, "a new link at XDP", || xdp_of(&lab.server, INTERFACE).is_some());
    wait_until("counted", &daemon, || repairs(&lab, "xdp") == 1);
    assert_guarded(&lab, "after both links were detached");
}

#[test]
fn lc_14_xdp_off_is_refused_and_nothing_changes() {
    let Some(lab) = Lab::new("lc_14_xdp_off_is_refused_and_nothing_changes") else { return };
    for mode in ["native", "generic"] {
        lab.write_settings(&Settings { attach: mode, ..Settings::default() });
        let daemon = Daemon::start(&lab);
        let program = xdp_of(&lab.server, INTERFACE);
        for off in ["xdp", "xdpgeneric", "xdpdrv"] {
            let refused = command(&lab, &["ip", "link", "set", INTERFACE, off, "off"]);
            println!("{mode}: {off} off: {}", if refused { "no error" } else { "refused" });
            assert_eq!(xdp_of(&lab.server, INTERFACE), program, "{mode}: {off} off");
        }
        assert_guarded(&lab, mode);
        assert!(daemon.stop().success());
        assert!(lab.pomguard(&["detach", "--yes"]).status.success());
    }
}

#[test]
fn removed_pins_come_back_and_enforcement_never_stops() {
    let Some(lab) = Lab::new("removed_pins_come_back_and_enforcement_never_stops") else { return };
    let daemon = Daemon::start(&lab);
    let (before, program) = (lab.pinned(), xdp_of(&lab.server, INTERFACE));
    let mut connection = Connection::open(&lab.server, PEER, LISTED_OUT);
    for pin in &before {
        fs::remove_file(pin).unwrap();
    }
    assert_eq!(xdp_of(&lab.server, INTERFACE), program, "the daemon holds what lost its pin");
    daemon.keeps(MENDED, "all pins are back", || lab.pinned() == before);
    wait_until("counted", &daemon, || repairs(&lab, "pin") == before.len() as u64);
    assert!(connection.answers());
    assert_guarded(&lab, "after the pins were removed");
    fs::remove_dir_all(lab.pins()).unwrap();
    daemon.keeps(MENDED, "folder and pins are back", || lab.pinned() == before);
    assert!(connection.answers());
    // A second bpffs mounted over the first.
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=0700")).unwrap();
    daemon.keeps(MENDED, "pinned in the new one", || lab.pinned() == before);
    assert_guarded(&lab, "with a second bpffs");
    assert_eq!(lab.stats().attached(), ["native"]);
    umount2(BPFFS, MntFlags::MNT_DETACH).unwrap();
    assert_eq!(lab.pinned(), before, "those below it were never touched");
    assert_guarded(&lab, "with the first bpffs again");

    // The pins that were made again are in force: the next daemon takes them over.
    daemon.kill();
    let _daemon = Daemon::start(&lab);
    assert!(connection.answers());
    assert_guarded(&lab, "with the next daemon");
}

#[test]
fn cp_05_foreign_map_writes_are_undone_within_seconds() {
    let name = "cp_05_foreign_map_writes_are_undone_within_seconds";
    let Some(lab) = Lab::new(name) else { return };
    let daemon = Daemon::start(&lab);
    // A second image.
    lab.write_site(MORE);
    daemon.reload();
    the_word_in_force_is_put_back(&lab, &daemon);
    the_image_in_force_is_put_back(&lab, &daemon);
    labels_are_put_back(&lab, &daemon);
    the_general_programs_are_put_back(&lab, &daemon);
}

/// A row that grants one more address something.
const MORE: &str = "[[allow]]\nname = \"more\"\nfrom = [\"10.77.0.9\"]\nto = [\"every-host\"]\nprotocol = \"tcp\"\nports = \"9005\"\n";

fn the_general_programs_are_put_back(lab: &Lab, daemon: &Daemon) {
    for (round, (array, _)) in (1..).zip(ARRAYS) {
        let mut map: ProgramArray<MapData> =
            ProgramArray::try_from(opened(&lab.pins().join("programs").join(array))).unwrap();
        map.clear_index(&0).unwrap();
        daemon.keeps(MENDED, "the program is back in its array", || map.indices().count() == 1);
        wait_until("counted", daemon, || repairs(lab, "general") == round);
    }
    assert_guarded(lab, "after the arrays were emptied");
    lab.assert_general("after the arrays were emptied");
}

fn the_word_in_force_is_put_back(lab: &Lab, daemon: &Daemon) {
    let before = (lab.stats().image(), lab.stats().generation());
    let path = lab.pins().join("maps").join(MAP_CONTROL);
    let mut map: Array<MapData, [u64; Control::WORDS]> = Array::try_from(opened(&path)).unwrap();
    let good = map.get(&0, 0).unwrap();
    // Another slot, without a generation. Without a repair every packet would be dropped.
    let mut bad = good;
    bad[word::ACTIVE] ^= 0x0303;
    map.set(0, bad, 0).unwrap();
    // The daemon renews other words of the map on its own.
    daemon.keeps(MENDED, "the word is back", || map.get(&0, 0).unwrap()[word::ACTIVE] == good[word::ACTIVE]);
    wait_until("counted", daemon, || repairs(lab, "control") == 1);
    assert_eq!((lab.stats().image(), lab.stats().generation()), before);
    assert_guarded(lab, "after the word was written");
}

fn the_image_in_force_is_put_back(lab: &Lab, daemon: &Daemon) {
    let images = lab.pins().join("images");
    let image = |slot: u32| images.join(slot.to_string());
    let pinned: Vec<u32> = (0..4).filter(|&slot| image(slot).exists()).collect();
    assert_eq!(pinned.len(), 2, "{pinned:?}");
    // Exchanges the two images, of which one is in force.
    let at = |path: &Path| path.to_str().unwrap().to_owned();
    let policy = at(&lab.pins().join("maps").join(MAP_POLICY));
    for (slot, other) in [(pinned[0], pinned[1]), (pinned[1], pinned[0])] {
        let (slot, other) = (slot.to_string(), at(&image(other)));
        let hang_in = ["bpftool", "map", "update", "pinned", &policy, "key", &slot, "0", "0", "0"];
        run(lab, &[&hang_in[..], &["value", "pinned", &other]].concat());
    }
    daemon.keeps(TABLES_MENDED, "the image is back", || repairs(lab, "policy") >= 1);
    assert_guarded(lab, "after another image hung in its place");
}

fn labels_are_put_back(lab: &Lab, daemon: &Daemon) {
    let mut map: Array<MapData, RowLabel> =
        Array::try_from(opened(&lab.pins().join("maps").join(MAP_LABELS))).unwrap();
    let slot = (0..64).find(|slot| map.get(slot, 0).unwrap().id[0] != 0).unwrap();
    let good = map.get(&slot, 0).unwrap();
    map.set(slot, RowLabel { id: FixedText::from_bytes([b'x'; 64]), live: 0, ..good }, 0).unwrap();
    daemon.keeps(TABLES_MENDED, "the label is back", || map.get(&slot, 0).unwrap() == good);
    wait_until("counted", daemon, || repairs(lab, "labels") == 1);
}

#[test]
fn lc_15_foreign_program_on_a_free_hook_is_named_and_left() {
    let name = "lc_15_foreign_program_on_a_free_hook_is_named_and_left";
    let Some(lab) = Lab::with_one_cable(name) else { return };
    let daemon = Daemon::start(&lab);
    daemon.signal(Signal::SIGSTOP);
    lab.unplug();
    lab.plug();
    let mut object = foreign();
    let program: &mut Xdp = object.program_mut(PROGRAM_INGRESS).unwrap().try_into().unwrap();
    program.load().unwrap();
    let link = lab.server.run(|| program.attach(INTERFACE, XdpMode::Driver)).unwrap().unwrap();
    let theirs = xdp_of(&lab.server, INTERFACE);
    daemon.signal(Signal::SIGCONT);
    wait_until("named", &daemon, || is_state(&lab, "interface-refused"));
    assert_eq!(xdp_of(&lab.server, INTERFACE), theirs, "it is not replaced");
    assert!(daemon.log().contains("NOT protected"), "{}", daemon.log());
    program.detach(link).unwrap();
    wait_until("attached", &daemon, || !is_state(&lab, "interface-refused"));
    assert_guarded(&lab, "with the foreign program gone");
}

#[test]
fn lc_08_foreign_program_before_egress_is_named_and_left() {
    let name = "lc_08_foreign_program_before_egress_is_named_and_left";
    let mut object = foreign();
    let program: &mut SchedClassifier = object.program_mut(PROGRAM_EGRESS).unwrap().try_into().unwrap();
    program.load().unwrap();
    let theirs = program.info().unwrap().id();
    for tc in ["auto", "clsact"] {
        let Some(lab) = Lab::new(name) else { return };
        lab.write_settings(&Settings { tc, ..Settings::default() });
        let daemon = Daemon::start(&lab);
        let preceded = || is_state(&lab, "egress-preceded");
        assert!(!preceded(), "{tc}: {}", daemon.log());
        let at_tcx = |order, program: &mut SchedClassifier| {
            let order = TcAttachOptions::TcxOrder(order);
            let attach = || program.attach_with_options(INTERFACE, TcAttachType::Egress, order);
            lab.server.run(attach).unwrap().unwrap()
        };
        if tc == "auto" {
            let link = at_tcx(LinkOrder::last(), program);
            thread::sleep(Duration::from_secs(1));
            assert!(!preceded(), "behind ours it changes nothing");
            program.detach(link).unwrap();
        } else {
            let pin = Path::new("/sys/fs/bpf/theirs");
            program.pin(pin).unwrap();
            let filter = ["tc", "filter", "add", "dev", INTERFACE, "egress", "prio", "10", "handle", "1"];
            run(
                &lab,
                &[&filter[..], &["bpf", "direct-action", "object-pinned", pin.to_str().unwrap()]].concat(),
            );
            daemon.keeps(MENDED, "named", || daemon.log().contains("clsact filter 0x1 of priority 10"));
            wait_until("in the metrics", &daemon, preceded);
            run(&lab, &["tc", "filter", "del", "dev", INTERFACE, "egress", "prio", "10"]);
            daemon.wait_log("egress-preceded: no more");
        }
        let link = at_tcx(LinkOrder::first(), program);
        let named = format!("egress-preceded: {INTERFACE}: before ours runs TCX program {theirs}");
        daemon.keeps(MENDED, "named", || daemon.log().contains(&named));
        wait_until("in the metrics", &daemon, preceded);
        program.detach(link).unwrap();
        wait_until("no more", &daemon, || !preceded());
        assert_guarded(&lab, "with the foreign program gone");
        assert_eq!(repairs(&lab, "tc"), 0, "nothing of it was ours to mend");
    }
}

#[test]
fn lc_02_the_watchdog_is_fed_only_while_all_can_be_looked_at() {
    let Some(lab) = Lab::new("lc_02_the_watchdog_is_fed_only_while_all_can_be_looked_at") else { return };
    let daemon = Daemon::spawn_with(&lab, &[("WATCHDOG_USEC", "2000000")]);
    daemon.wait_ready();
    assert!(daemon.fed(Duration::from_secs(3)) >= 2, "{}", daemon.log());
    // No bpffs at the folder of pins, and none can be mounted: the self-check fails.
    mount(Some("none"), BPFFS, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    daemon.wait_log("self-check-failed: ");
    daemon.fed(Duration::from_millis(100));
    assert_eq!(daemon.fed(Duration::from_secs(3)), 0, "{}", daemon.log());
    umount2(BPFFS, MntFlags::MNT_DETACH).unwrap();
    daemon.wait_log("self-check-failed: no more");
    assert!(daemon.fed(Duration::from_secs(3)) >= 2, "{}", daemon.log());
    // A stopped daemon sends no watchdog messages, and the policy stays in force.
    daemon.signal(Signal::SIGSTOP);
    daemon.fed(Duration::from_millis(100));
    assert_eq!(daemon.fed(Duration::from_secs(3)), 0);
    assert_guarded(&lab, "with a daemon that hangs");
    daemon.signal(Signal::SIGCONT);
}

#[test]
fn a_host_that_is_detached_stays_open_though_the_daemon_runs() {
    let Some(lab) = Lab::new("a_host_that_is_detached_stays_open_though_the_daemon_runs") else { return };
    let daemon = Daemon::start(&lab);
    assert!(lab.pomguard(&["detach", "--yes"]).status.success());
    assert_eq!(xdp_of(&lab.server, INTERFACE), None);
    daemon.wait_log("detached: ");
    // Longer than any interval of the reconciler: the program does not come back.
    thread::sleep(Duration::from_secs(2));
    assert_eq!(xdp_of(&lab.server, INTERFACE), None, "{}", daemon.log());
    assert!(lab.pinned().is_empty(), "{:?}", lab.pinned());
    assert!(opens(&lab.stranger, SERVER, UNLISTED));
}

/// Loads a foreign object: a second copy of pomguard's object.
fn foreign() -> Ebpf {
    EbpfLoader::new().load(OBJECT).unwrap()
}

fn opened(path: &Path) -> aya::maps::Map {
    aya::maps::Map::from_map_data(MapData::from_pin(path).unwrap()).unwrap()
}

fn detach_link(lab: &Lab, pin: &str) {
    let pin = lab.pins().join("links").join(pin);
    run(lab, &["bpftool", "link", "detach", "pinned", pin.to_str().unwrap()]);
}

/// Runs a command on the server. Returns true if the command succeeds.
fn command(lab: &Lab, words: &[&str]) -> bool {
    let output = lab.server.command(words[0]).unwrap().args(&words[1..]).output().unwrap();
    println!("{words:?}: {}{}", output.status, String::from_utf8_lossy(&output.stderr));
    output.status.success()
}

fn run(lab: &Lab, words: &[&str]) {
    assert!(command(lab, words), "{words:?}");
}
