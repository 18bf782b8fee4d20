//! The life of a guarded host, from before the first start until after `detach`.

use std::{fs, path::Path};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use pomguard_tests::daemon::{
    Daemon, LISTED, LISTED_OUT, Lab, PEER, PEER6, SERVER, SERVER6, STRANGER, STRANGER6, Settings, UNLISTED,
    is_shut, opens,
};

/// Asserts that every machine reaches every port of the server, and that the server reaches theirs.
fn assert_open(lab: &Lab, when: &str) {
    for (from, name) in [(&lab.peer, "the peer"), (&lab.stranger, "the stranger")] {
        for port in [LISTED, UNLISTED] {
            assert!(opens(from, SERVER, port), "{when}: {name} does not reach {port} over IPv4");
            assert!(opens(from, SERVER6, port), "{when}: {name} does not reach {port} over IPv6");
        }
    }
    assert!(opens(&lab.server, STRANGER, UNLISTED), "{when}: the server does not reach the stranger");
}

/// Asserts that the listed connections can be opened, and no others.
fn assert_enforced(lab: &Lab, when: &str) {
    for server in [SERVER.into(), std::net::IpAddr::from(SERVER6)] {
        assert!(
            opens(&lab.peer, server, LISTED),
            "{when}: the peer does not reach {server} at a listed port"
        );
        assert!(
            is_shut(&lab.peer, server, UNLISTED),
            "{when}: the peer reaches {server} at an unlisted port"
        );
        assert!(is_shut(&lab.stranger, server, LISTED), "{when}: the stranger reaches {server}");
        assert!(is_shut(&lab.stranger, server, UNLISTED), "{when}: the stranger reaches {server}");
    }
    for peer in [PEER.into(), std::net::IpAddr::from(PEER6)] {
        assert!(opens(&lab.server, peer, LISTED_OUT), "{when}: the server does not reach {peer} as listed");
        assert!(
            is_shut(&lab.server, peer, UNLISTED),
            "{when}: the server reaches {peer} at an unlisted port"
        );
    }
    assert!(is_shut(&lab.server, STRANGER6, LISTED_OUT), "{when}: the server reaches the stranger");
}

fn is_open_before_enforced_during_and_open_again_after(lab: &Lab, attached: &str) {
    assert_open(lab, "before");
    let daemon = Daemon::start(lab);
    assert_enforced(lab, "with pomguard");
    assert_eq!(lab.stats().attached(), [attached]);
    assert!(daemon.stop().success(), "SIGTERM ends it well");
    assert!(!lab.pinned().is_empty(), "what is pinned outlives the daemon");
    assert_enforced(lab, "after the daemon's end");
    let detach = lab.pomguard(&["detach", "--yes"]);
    assert!(detach.status.success(), "{}", String::from_utf8_lossy(&detach.stderr));
    assert!(lab.pinned().is_empty(), "pinned still: {:?}", lab.pinned());
    assert_eq!(lab.xdp_program(), None, "no XDP program stays on the interface");
    assert_open(lab, "after detach");
}

/// LC-36, and LC-34 except for the part of the package.
#[test]
fn basic_host_is_open_before_enforced_during_and_open_after() {
    let Some(lab) = Lab::new("basic_host_is_open_before_enforced_during_and_open_after") else {
        return;
    };
    is_open_before_enforced_during_and_open_again_after(&lab, "native");
}

/// LC-28.
#[test]
fn generic_mode_gives_the_same_results() {
    let Some(lab) = Lab::new("generic_mode_gives_the_same_results") else { return };
    lab.write_settings(&Settings { attach: "generic", ..Settings::default() });
    is_open_before_enforced_during_and_open_again_after(&lab, "generic");
}

#[test]
fn an_emergency_needs_no_settings_the_usual_paths_will_do() {
    let Some(lab) = Lab::new("an_emergency_needs_no_settings_the_usual_paths_will_do") else { return };
    // From here on the bpffs and /run belong to this test alone.
    let run = Path::new("/run");
    mount(Some("run"), run, Some("tmpfs"), MsFlags::empty(), Some("size=1m")).unwrap();
    let settings = fs::read_to_string(lab.config()).unwrap();
    let usual: String = settings
        .lines()
        .filter(|line| !line.starts_with("pins") && !line.starts_with("runtime"))
        .fold(String::new(), |text, line| text + line + "\n");
    assert_ne!(usual, settings);
    fs::write(lab.config(), &usual).unwrap();
    let daemon = Daemon::start(&lab);
    assert_enforced(&lab, "with pomguard");

    for (broken, why) in [(Some("interfaces = [\n"), "pomguard.toml:"), (None, "pomguard.toml")] {
        match broken {
            Some(text) => fs::write(lab.config(), text).unwrap(),
            None => fs::remove_file(lab.config()).unwrap(),
        }
        for verb in ["status", "stats", "history"] {
            let output = lab.pomguard(&[verb]);
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{verb}: {complaint}");
            assert!(complaint.contains(why), "{verb} says what is wrong: {complaint}");
            assert!(complaint.contains("/sys/fs/bpf/pomguard"), "{verb} says where it looks: {complaint}");
        }
    }
    let open = lab.pomguard(&["bypass", "--for", "10m", "--yes", "--quiet", "--why", "lost"]);
    assert!(open.status.success(), "{}", String::from_utf8_lossy(&open.stderr));
    let status = lab.pomguard(&["status"]);
    assert_eq!(status.status.code(), Some(3), "something is to be attended to");
    let said = String::from_utf8_lossy(&status.stdout);
    assert!(said.contains("ATTENTION: bypass"), "the daemon was found, and did it: {said}");
    assert!(lab.pomguard(&["bypass", "--off", "--quiet"]).status.success());
    assert!(daemon.stop().success());
    assert_enforced(&lab, "after the daemon's end");

    let detach = lab.pomguard(&["detach", "--yes"]);
    assert!(detach.status.success(), "{}", String::from_utf8_lossy(&detach.stderr));
    assert_eq!(lab.xdp_program(), None, "no XDP program stays on the interface");
    assert_open(&lab, "after detach");
    umount2(run, MntFlags::MNT_DETACH).unwrap();
}
