//! Starts that must fail, with their remains, and starts that must not fail.

use std::{
    fs::{self, Permissions},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
        process::ExitStatusExt as _,
    },
    path::PathBuf,
};

use aya::{
    Ebpf, EbpfLoader,
    programs::{Xdp, XdpMode},
};
use nix::sys::signal::Signal;
use pomguard::kernel::object::OBJECT;
use pomguard_common::names::{MAP_CONTROL, MAP_HOST, MAP_POLICY, PROGRAM_INGRESS};
use pomguard_tests::daemon::{Daemon, INTERFACE, LISTED, Lab, SERVER, Settings, UNLISTED, is_shut, opens};

use super::cli::done;

/// Waits for the end of a daemon that cannot start, and returns its log.
fn refusal(lab: &Lab) -> String {
    let mut daemon = Daemon::spawn(lab);
    let status = daemon.wait_end();
    assert_eq!(status.code(), Some(1), "{status}:\n{}", daemon.log());
    daemon.log()
}

#[test]
fn basic_broken_file_ends_the_first_start_without_pins() {
    let Some(lab) = Lab::new("basic_broken_file_ends_the_first_start_without_pins") else {
        return;
    };
    lab.write_site("[[peer]]\nsystems = [\"Agent Scratch\"]\naddresses = [\"10.77.0.9\"]\n");
    let log = refusal(&lab);
    assert!(log.contains("site.toml:14: ") && log.contains("Agent Scratch"), "file, line, text:\n{log}");
    assert!(lab.pinned().is_empty(), "pinned: {:?}", lab.pinned());
    assert!(opens(&lab.stranger, SERVER, UNLISTED), "a host that was never guarded is not cut off");
}

/// LC-07.
#[test]
fn a_second_daemon_names_the_lock_and_leaves_the_first_alone() {
    let Some(lab) = Lab::new("a_second_daemon_names_the_lock_and_leaves_the_first_alone") else { return };
    let daemon = Daemon::start(&lab);
    let program = lab.xdp_program();
    let log = refusal(&lab);
    assert!(log.contains(&lab.lock().display().to_string()), "{log}");
    assert_eq!(lab.xdp_program(), program);
    daemon.reload();
    assert!(opens(&lab.peer, SERVER, LISTED) && is_shut(&lab.peer, SERVER, UNLISTED));
}

/// Attaches a foreign program for as long as the object is kept.
fn attach_foreign(lab: &Lab) -> Ebpf {
    let mut object = EbpfLoader::new().load(OBJECT).unwrap();
    let program: &mut Xdp = object.program_mut(PROGRAM_INGRESS).unwrap().try_into().unwrap();
    program.load().unwrap();
    lab.server.run(|| program.attach(INTERFACE, XdpMode::Driver).map(drop)).unwrap().unwrap();
    object
}

/// LC-15.
#[test]
fn somebody_elses_program_is_named_and_left_in_place() {
    let Some(lab) = Lab::new("somebody_elses_program_is_named_and_left_in_place") else { return };
    let foreign = attach_foreign(&lab);
    let id = lab.xdp_program().unwrap();
    let log = refusal(&lab);
    assert!(log.contains(INTERFACE) && log.contains(&id.to_string()), "{log}");
    assert_eq!(lab.xdp_program(), Some(id), "the foreign program is still there");
    assert!(lab.pinned().is_empty(), "pinned: {:?}", lab.pinned());
    drop(foreign);
    let _daemon = Daemon::start(&lab);
    assert!(is_shut(&lab.peer, SERVER, UNLISTED), "with the place free, it enforces");
}

#[test]
fn a_sighup_during_the_start_does_not_end_the_daemon() {
    let Some(lab) = Lab::new("a_sighup_during_the_start_does_not_end_the_daemon") else { return };
    let daemon = Daemon::spawn(&lab);
    daemon.wait_log("loading the programs");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_ready();
    assert!(daemon.stop().success());
}

#[test]
fn a_sigterm_during_the_start_ends_the_daemon() {
    let Some(lab) = Lab::new("a_sigterm_during_the_start_ends_the_daemon") else { return };
    let mut daemon = Daemon::spawn(&lab);
    daemon.wait_log("loading the programs");
    daemon.signal(Signal::SIGTERM);
    let status = daemon.wait_end();
    assert!(status.success() || status.signal() == Some(Signal::SIGTERM as i32), "{status}");
}

/// LC-08.
#[test]
fn incomplete_pins_of_an_interrupted_start_do_not_stop_the_next() {
    let Some(lab) = Lab::new("incomplete_pins_of_an_interrupted_start_do_not_stop_the_next") else {
        return;
    };
    Daemon::start(&lab).kill();
    // Without the secret of the flow table, without the policy, and without the word that names the
    // generation in force.
    for gone in [MAP_HOST, MAP_POLICY, MAP_CONTROL] {
        fs::remove_file(lab.pins().join("maps").join(gone)).unwrap();
        let daemon = Daemon::start(&lab);
        assert!(opens(&lab.peer, SERVER, LISTED), "without {gone}");
        assert!(is_shut(&lab.peer, SERVER, UNLISTED), "without {gone}");
        daemon.kill();
    }
}

#[test]
fn cp_04_foreign_pin_folder_is_refused_and_left_alone() {
    let name = "cp_04_foreign_pin_folder_is_refused_and_left_alone";
    let Some(lab) = Lab::new(name) else { return };
    let pins = lab.pins().display().to_string();
    // A bpffs in which every user may make folders, as some systems mount it.
    fs::create_dir(lab.pins()).unwrap();
    chown(lab.pins(), Some(65_534), Some(65_534)).unwrap();
    let log = refusal(&lab);
    assert!(log.contains(&pins) && log.contains("it belongs to another user"), "{log}");
    assert_eq!(fs::metadata(lab.pins()).unwrap().uid(), 65_534);
    fs::remove_dir(lab.pins()).unwrap();

    let elsewhere = PathBuf::from(format!("{pins}-theirs"));
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, lab.pins()).unwrap();
    let log = refusal(&lab);
    assert!(log.contains(&pins) && log.contains("it is not a folder"), "{log}");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0, "nothing was pinned there");
    assert_eq!(lab.xdp_program(), None, "nothing was attached");
    fs::remove_file(lab.pins()).unwrap();

    // A folder of root's that is open to others is closed before anything is pinned there.
    fs::create_dir(lab.pins()).unwrap();
    fs::set_permissions(lab.pins(), Permissions::from_mode(0o777)).unwrap();
    let _daemon = Daemon::start(&lab);
    assert_eq!(fs::metadata(lab.pins()).unwrap().mode() & 0o777, 0o700);
    assert!(is_shut(&lab.peer, SERVER, UNLISTED));
}

#[test]
fn a_detached_host_is_enforced_again_by_the_next_start() {
    let Some(lab) = Lab::new("a_detached_host_is_enforced_again_by_the_next_start") else { return };
    let daemon = Daemon::start(&lab);
    assert!(lab.pomguard(&["detach", "--yes"]).status.success());
    assert!(opens(&lab.stranger, SERVER, UNLISTED), "open");
    let status = daemon.reload();
    assert!(status.contains("refused"), "a reload does not close it by the way: {status}");
    assert!(opens(&lab.stranger, SERVER, UNLISTED), "still open");
    assert!(daemon.stop().success());
    let _daemon = Daemon::start(&lab);
    assert!(is_shut(&lab.stranger, SERVER, UNLISTED), "closed again");
}

#[test]
fn cf_15_interface_is_guarded_by_any_name_and_once_by_two() {
    let Some(lab) = Lab::new("cf_15_interface_is_guarded_by_any_name_and_once_by_two") else {
        return;
    };
    // A name with a dot, which a bpffs allows in no name, and of the greatest length.
    const ODD: &str = "br.0-of-fifteen";
    lab.server.add_bridge(ODD).unwrap();
    lab.write_settings(&Settings { interfaces: &[INTERFACE, ODD], ..Settings::default() });
    let daemon = Daemon::start(&lab);
    assert_eq!(lab.stats().attached().len(), 2, "{}", lab.stats());
    lab.write_settings(&Settings::default());
    daemon.reload();
    assert!(
        daemon.log().contains("br.0-of-fifteen would lose its guard"),
        "a reload takes no guard off: {}",
        daemon.log()
    );
    assert_eq!(lab.stats().attached().len(), 2, "{}", lab.stats());
    done(&lab, &["apply", "--yes", "--quiet", "--why", "the bridge goes"]);
    assert_eq!(lab.stats().attached(), ["native"], "left as it was taken");
    daemon.kill();

    let mut ip = lab.command("ip");
    assert!(
        ip.args(["link", "property", "add", "dev", INTERFACE, "altname", "uplink0"])
            .status()
            .unwrap()
            .success()
    );
    for interfaces in [&[INTERFACE, "uplink0"][..], &["uplink0"]] {
        lab.write_settings(&Settings { interfaces, ..Settings::default() });
        let log = refusal(&lab);
        assert!(log.contains("pomguard.toml:3: uplink0 is another name of eth0: write eth0"), "{log}");
    }
    assert!(is_shut(&lab.peer, SERVER, UNLISTED), "what was attached stays attached");
}
