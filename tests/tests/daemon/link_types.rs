//! Interfaces whose frames are not Ethernet: the programs would read wrong bytes as headers.

use pomguard_tests::daemon::{Daemon, INTERFACE, LISTED, Lab, SERVER, Settings, UNLISTED, is_shut, opens};

use crate::watch::{is_state, wait_until};

/// Interfaces of other link types: the command that makes each, and the words of the error message.
const OTHERS: [(&str, &str); 4] = [
    ("tuntap add dev other mode tun", "a tunnel of bare IP packets"),
    ("link add other type ipip local 10.77.0.1 remote 10.77.0.2", "an IP tunnel"),
    ("link add other type gre local 10.77.0.1 remote 10.77.0.2", "a GRE tunnel"),
    ("link add other type wireguard", "a tunnel of bare IP packets"),
];

fn ip(lab: &Lab, words: &str) -> bool {
    lab.command("ip").args(words.split(' ')).output().unwrap().status.success()
}

#[test]
fn other_link_types_are_refused_at_the_start_by_name() {
    let Some(lab) = Lab::new("other_link_types_are_refused_at_the_start_by_name") else { return };
    lab.write_settings(&Settings { interfaces: &[INTERFACE, "other"], ..Settings::default() });
    let mut tried = 0;
    for (making, words) in OTHERS {
        // Not every kernel has every type.
        if !ip(&lab, making) {
            continue;
        }
        tried += 1;
        let mut daemon = Daemon::spawn(&lab);
        assert_eq!(daemon.wait_end().code(), Some(1), "{making}: {}", daemon.log());
        let log = daemon.log();
        assert!(log.contains("other is") && log.contains(words), "{making}: {log}");
        assert!(log.contains("reads Ethernet alone"), "{making}: {log}");
        assert!(lab.pinned().is_empty(), "{making}: {:?}", lab.pinned());
        assert!(ip(&lab, "link del other"));
    }
    assert!(tried > 0, "this kernel has some other link type");
}

#[test]
fn name_that_comes_back_as_another_type_is_refused_by_name() {
    let Some(lab) = Lab::new("name_that_comes_back_as_another_type_is_refused_by_name") else { return };
    lab.write_settings(&Settings { interfaces: &[INTERFACE, "side0"], ..Settings::default() });
    assert!(ip(&lab, "link add side0 type veth peer name side1"));
    let daemon = Daemon::start(&lab);
    assert!(lab.stats().attached().iter().all(|mode| mode == "native"), "{}", daemon.log());
    assert!(ip(&lab, "link del side0") && ip(&lab, "tuntap add dev side0 mode tun"));
    wait_until("refused", &daemon, || is_state(&lab, "interface-refused"));
    assert!(daemon.log().contains("side0 is NOT protected: side0 is a tunnel"), "{}", daemon.log());
    // A tap interface has an Ethernet header.
    assert!(ip(&lab, "link del side0") && ip(&lab, "tuntap add dev side0 mode tap"));
    wait_until("attached", &daemon, || !is_state(&lab, "interface-refused"));
    assert!(opens(&lab.peer, SERVER, LISTED) && is_shut(&lab.peer, SERVER, UNLISTED));
    assert!(daemon.stop().success());
}
