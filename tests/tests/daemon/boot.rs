//! Starts with unusable files or an unusable state, and with disks that accept no data.

use std::{fs, process::ExitStatus};

use crate::watch::{is_state, wait_until};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use pomguard_tests::daemon::{Daemon, LISTED, LISTED_OUT, Lab, PEER, SERVER, UNLISTED, is_shut, opens};

const IMAGE: &str = "confirmed.image";

fn assert_guarded(lab: &Lab, when: &str) {
    assert!(opens(&lab.peer, SERVER, LISTED), "{when}: the listed port does not answer");
    assert!(is_shut(&lab.peer, SERVER, UNLISTED), "{when}: the unlisted port answers");
    assert!(is_shut(&lab.stranger, SERVER, LISTED), "{when}: the stranger is answered");
    assert!(opens(&lab.server, PEER, LISTED_OUT), "{when}: the server does not reach what it may");
}

/// Simulates a reboot after a daemon has run: only the disk is left.
fn reboot(lab: &Lab, daemon: Daemon) {
    assert!(daemon.stop().success());
    assert!(lab.pomguard(&["detach", "--yes"]).status.success());
    assert!(opens(&lab.peer, SERVER, UNLISTED), "nothing is in force");
}

fn refused(lab: &Lab) -> (ExitStatus, String) {
    let mut daemon = Daemon::spawn(lab);
    (daemon.wait_end(), daemon.log())
}

/// CF-16, LC-19.
#[test]
fn basic_boot_with_broken_files_enforces_the_confirmed_policy() {
    let Some(lab) = Lab::new("basic_boot_with_broken_files_enforces_the_confirmed_policy") else {
        return;
    };
    let daemon = Daemon::start(&lab);
    let before = lab.stats();
    assert!(!is_state(&lab, "files-refused"));
    reboot(&lab, daemon);
    let good = fs::read_to_string(lab.site()).unwrap();
    fs::write(lab.site(), format!("{good}\nsystems = 7\n")).unwrap();

    let daemon = Daemon::spawn(&lab);
    let status = daemon.wait_ready();
    assert!(status.contains("files-refused: the last confirmed policy is in force, since"), "{status}");
    assert!(daemon.log().contains("site.toml:"), "the log names the file:\n{}", daemon.log());
    assert_guarded(&lab, "with a broken site file");
    let after = lab.stats();
    assert_eq!(after.image(), before.image());
    assert_eq!(after.row("pom-4.0/15", "inbound", "connections"), 1, "the labels came with it:\n{after}");
    assert!(is_state(&lab, "files-refused"));

    // The settings are broken, too. systemd's environment variable names the state folder, which holds a copy
    // of the settings.
    let settings = fs::read_to_string(lab.config()).unwrap();
    daemon.kill();
    fs::write(lab.config(), "interfaces = [\n").unwrap();
    let daemon = Daemon::start(&lab);
    assert_guarded(&lab, "with broken settings, taken over");
    assert!(is_state(&lab, "files-refused"));
    fs::write(lab.config(), &settings).unwrap();
    reboot(&lab, daemon);
    fs::write(lab.config(), "interfaces = [\n").unwrap();
    let daemon = Daemon::start(&lab);
    assert_guarded(&lab, "with broken settings, after a reboot");

    fs::write(lab.config(), settings).unwrap();
    fs::write(lab.site(), good).unwrap();
    let status = daemon.reload();
    assert!(!status.contains("refused"), "{status}");
    wait_until("as it should be", &daemon, || !is_state(&lab, "files-refused"));
    assert_eq!(lab.stats().image(), before.image());
}

/// LC-22, CF-16.
#[test]
fn broken_state_is_named_and_a_pinned_policy_is_used() {
    let name = "broken_state_is_named_and_a_pinned_policy_is_used";
    let Some(lab) = Lab::new(name) else { return };
    Daemon::start(&lab).kill();
    let good = fs::read_to_string(lab.site()).unwrap();
    fs::write(lab.site(), format!("{good}\nsystems = 7\n")).unwrap();
    let image = lab.state().join(IMAGE);
    let mut bytes = fs::read(&image).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&image, bytes).unwrap();

    let daemon = Daemon::spawn(&lab);
    let status = daemon.wait_ready();
    assert!(status.contains("state-unreadable: ") && status.contains("checksum"), "{status}");
    assert!(status.contains("files-refused: "), "{status}");
    assert_guarded(&lab, "with neither files nor state");
    assert!(is_state(&lab, "state-unreadable"));

    reboot(&lab, daemon);
    let (status, log) = refused(&lab);
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("site.toml:") && log.contains("checksum"), "it says both:\n{log}");
    assert!(lab.pinned().is_empty(), "{:?}", lab.pinned());
}

#[test]
fn boot_before_the_network_uses_the_last_host_name() {
    let Some(lab) = Lab::with_one_cable("boot_before_the_network_uses_the_last_host_name") else {
        return;
    };
    let settings = fs::read_to_string(lab.config()).unwrap().replace("host = \"server\"\n", "");
    fs::write(lab.config(), settings).unwrap();
    reboot_with_one_cable(&lab, Daemon::start(&lab));
    lab.unplug();
    let daemon = Daemon::start(&lab);
    assert!(daemon.log().contains("it goes by its last name, server"), "{}", daemon.log());
    assert!(!is_state(&lab, "files-refused"));
    lab.plug();
    wait_until("attached", &daemon, || lab.stats().attached() == ["native"]);
    assert!(opens(&lab.peer, SERVER, LISTED) && is_shut(&lab.peer, SERVER, UNLISTED));
}

fn reboot_with_one_cable(lab: &Lab, daemon: Daemon) {
    assert!(daemon.stop().success());
    assert!(lab.pomguard(&["detach", "--yes"]).status.success());
}

#[test]
fn lc_21_full_disk_is_named_and_retried_while_enforcing() {
    let Some(lab) = Lab::new("lc_21_full_disk_is_named_and_retried_while_enforcing") else {
        return;
    };
    fs::create_dir_all(lab.state()).unwrap();
    let daemon = Daemon::start(&lab);
    let image = lab.state().join(IMAGE);
    // A full disk, a disk without inodes, and a read-only disk.
    for (what, options, flags) in [
        ("full", "size=8k", MsFlags::empty()),
        ("without inodes", "nr_inodes=1", MsFlags::empty()),
        ("read-only", "size=64m", MsFlags::MS_RDONLY),
    ] {
        mount(Some("small"), &lab.state(), Some("tmpfs"), flags, Some(options)).unwrap();
        let before = lab.stats().generation();
        lab.write_site(&format!(
            "[[allow]]\nname = \"more\"\nfrom = [\"10.77.0.{}\"]\nto = [\"every-host\"]\nprotocol = \"tcp\"\nports = \"9005\"\n",
            20 + before
        ));
        daemon.reload();
        assert_eq!(lab.stats().generation(), before + 1, "{what}: the change is in force all the same");
        wait_until("named", &daemon, || is_state(&lab, "state-unsaved"));
        assert_guarded(&lab, what);
        umount2(&lab.state(), MntFlags::MNT_DETACH).unwrap();
        fs::remove_file(&image).unwrap();
        wait_until("saved after all", &daemon, || !is_state(&lab, "state-unsaved") && image.exists());
    }
}
