//! Copies of a disk on other machines, and machines that lost a part.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use pomguard::{
    compile::{Clock, ImagePlace},
    state::confirmed::{self, Confirmed},
};
use pomguard_tests::daemon::{Daemon, INTERFACE, LISTED, Lab, SERVER, SERVER6, UNLISTED, is_shut, opens};

use crate::watch::{is_state, wait_until};

/// An address that the site file does not have, as a DHCP server gives it.
const EXTRA: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 77);
/// The address of the second host.
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 4);
/// A second host, and a failsafe row for the stranger.
const SITE: &str = r#"
[[host]]
name = "second"
addresses = ["10.77.0.4"]
systems = ["Agent Manager"]

[[allow]]
name = "way-in"
from = ["10.77.0.3"]
to = ["every-host"]
ports = "9000"
protocol = "tcp"
failsafe = true
"#;
const MACHINE_ID: &str = "/etc/machine-id";
const CLASSES: &str = "/sys/class";
const FIRMWARE: &str = "/sys/class/dmi/id";

/// The facts about a machine that this test's mount namespace shows.
struct Facts {
    machine_id: PathBuf,
    product_uuid: PathBuf,
}

impl Facts {
    /// Shows other facts than this machine's: its files in `/etc` and `/sys` are covered.
    fn cover(lab: &Lab) -> Self {
        let bind = |from: &Path, to: &Path| {
            mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>).unwrap();
        };
        let (machine_id, product_uuid) = (lab.file("machine-id"), lab.file("product_uuid"));
        fs::write(&machine_id, "").unwrap();
        fs::write(&product_uuid, "").unwrap();
        bind(&machine_id, Path::new(MACHINE_ID));
        if !Path::new(FIRMWARE).exists() {
            // A machine without this firmware: the classes are covered, and the network's stays visible.
            let net = lab.file("net");
            fs::create_dir(&net).unwrap();
            bind(&Path::new(CLASSES).join("net"), &net);
            mount(Some("classes"), CLASSES, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
            fs::create_dir_all(Path::new(CLASSES).join("net")).unwrap();
            bind(&net, &Path::new(CLASSES).join("net"));
            fs::create_dir_all(FIRMWARE).unwrap();
            fs::write(Path::new(FIRMWARE).join("product_uuid"), "").unwrap();
        }
        bind(&product_uuid, &Path::new(FIRMWARE).join("product_uuid"));
        Self { machine_id, product_uuid }
    }

    fn machine_id(&self, id: &str) {
        fs::write(&self.machine_id, format!("{id}\n")).unwrap();
    }

    fn product_uuid(&self, uuid: &str) {
        fs::write(&self.product_uuid, format!("{uuid}\n")).unwrap();
    }
}

impl Drop for Facts {
    fn drop(&mut self) {
        for place in [&format!("{FIRMWARE}/product_uuid"), "/sys/class/net", MACHINE_ID] {
            let _ = umount2(place, MntFlags::MNT_DETACH);
        }
        // The thread may be the process' main thread and live on.
        if fs::read_dir(CLASSES).is_ok_and(|entries| entries.count() == 2) {
            let _ = umount2(CLASSES, MntFlags::MNT_DETACH);
        }
    }
}

fn lab(test: &str) -> Option<(Lab, Facts)> {
    let lab = Lab::new(test)?;
    lab.write_site(SITE);
    let settings = fs::read_to_string(lab.config()).unwrap().replace("host = \"server\"\n", "");
    fs::write(lab.config(), settings).unwrap();
    let facts = Facts::cover(&lab);
    facts.machine_id("11111111111111111111111111111111");
    facts.product_uuid("11111111-1111-1111-1111-111111111111");
    Some((lab, facts))
}

/// Runs `ip` on the server, with words that are separated by spaces.
fn ip(lab: &Lab, words: &str) {
    assert!(
        lab.server.command("ip").unwrap().args(words.split(' ')).status().unwrap().success(),
        "ip {words}"
    );
}

fn add(lab: &Lab, address: Ipv4Addr) {
    ip(lab, &format!("address add {address}/24 dev {INTERFACE}"));
    for machine in [&lab.peer, &lab.stranger] {
        machine.command("ip").unwrap().args(["neigh", "flush", "all"]).status().unwrap();
    }
}

/// Ends the daemon and everything in the kernel, as a power cut does. Then the machine has a DHCP address and
/// no listed one.
fn off(lab: &Lab, daemon: Daemon) {
    daemon.kill();
    assert!(lab.pomguard(&["detach", "--yes"]).status.success());
    ip(lab, &format!("address flush dev {INTERFACE}"));
    add(lab, EXTRA);
}

fn other_card(lab: &Lab, mac: &str) {
    ip(lab, &format!("link set {INTERFACE} address {mac}"));
}

fn status(lab: &Lab) -> (Option<i32>, String) {
    let output = lab.pomguard(&["status"]);
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn assert_only_failsafe(lab: &Lab, daemon: &Daemon, when: &str) {
    wait_until("named", daemon, || is_state(lab, "identity-changed"));
    let (code, text) = status(lab);
    assert_eq!(code, Some(3), "{when}: {text}");
    assert!(text.contains("identity-changed: ") && text.contains("(unidentified)"), "{when}: {text}");
    assert!(opens(&lab.stranger, EXTRA, UNLISTED), "{when}: the way in is shut: {}", lab.stats());
    assert!(is_shut(&lab.peer, EXTRA, LISTED), "{when}: a row holds");
    let rows: Vec<String> =
        text.lines().filter(|line| line.contains("site/way-in")).map(str::to_owned).collect();
    assert_eq!(rows.len(), 1, "{when}: {text}");
}

#[test]
fn clone_holds_failsafe_rows_until_its_first_listed_address() {
    let Some((lab, facts)) = lab("clone_holds_failsafe_rows_until_its_first_listed_address") else { return };
    let daemon = Daemon::start(&lab);
    assert!(opens(&lab.peer, SERVER, LISTED));
    off(&lab, daemon);

    // A restored machine: another board and another card, and the disk's own id.
    facts.product_uuid("22222222-2222-2222-2222-222222222222");
    other_card(&lab, "02:00:00:00:00:22");
    let daemon = Daemon::start(&lab);
    assert!(daemon.log().contains("it goes by its last name, server"), "{}", daemon.log());
    assert!(!is_state(&lab, "identity-changed"));
    off(&lab, daemon);

    // A clone: the start above saved the board and the card, and now all three are others.
    facts.machine_id("33333333333333333333333333333333");
    facts.product_uuid("33333333-3333-3333-3333-333333333333");
    other_card(&lab, "02:00:00:00:00:33");
    let daemon = Daemon::start(&lab);
    assert_only_failsafe(&lab, &daemon, "a clone");
    daemon.kill();
    let daemon = Daemon::start(&lab);
    assert_only_failsafe(&lab, &daemon, "a clone whose daemon starts again");
    let saved = fs::read(lab.state().join("confirmed.image")).unwrap();

    // The clone becomes the host whose address it gets.
    add(&lab, SECOND);
    wait_until("found", &daemon, || !is_state(&lab, "identity-changed"));
    wait_until("served", &daemon, || opens(&lab.peer, SECOND, LISTED));
    assert!(is_shut(&lab.peer, SECOND, UNLISTED));
    let (_, text) = status(&lab);
    assert!(text.contains("second, matrix"), "{text}");
    assert!(!is_state(&lab, "files-refused"), "{text}");
    assert_ne!(
        fs::read(lab.state().join("confirmed.image")).unwrap(),
        saved,
        "the next start is the second's"
    );
}

#[test]
fn clone_with_broken_files_loads_the_image_at_a_listed_address() {
    let name = "clone_with_broken_files_loads_the_image_at_a_listed_address";
    let Some((lab, facts)) = lab(name) else { return };
    let daemon = Daemon::start(&lab);
    off(&lab, daemon);
    facts.machine_id("33333333333333333333333333333333");
    facts.product_uuid("33333333-3333-3333-3333-333333333333");
    other_card(&lab, "02:00:00:00:00:33");
    let good = fs::read_to_string(lab.site()).unwrap();
    fs::write(lab.site(), format!("{good}\nsystems = 7\n")).unwrap();

    let daemon = Daemon::start(&lab);
    assert_only_failsafe(&lab, &daemon, "a clone with broken files");
    assert!(is_state(&lab, "files-refused"));
    add(&lab, SERVER);
    wait_until("found", &daemon, || !is_state(&lab, "identity-changed"));
    wait_until("served", &daemon, || opens(&lab.peer, SERVER, LISTED));
    assert!(is_shut(&lab.peer, SERVER, UNLISTED));
    assert!(is_state(&lab, "files-refused"), "the files still have an error");

    // The image was saved anew: the machine is the one that saved it now.
    off(&lab, daemon);
    let daemon = Daemon::start(&lab);
    assert!(!is_state(&lab, "identity-changed"), "{}", daemon.log());
    drop(daemon);
}

/// Saves the policy of a host that takes the addresses of its machine, and detaches.
fn save_and_detach(lab: &Lab) {
    let config = fs::read_to_string(lab.config()).unwrap();
    fs::write(lab.config(), format!("own_addresses = \"machine\"\n{config}")).unwrap();
    Daemon::start(lab).kill();
    assert!(lab.pomguard(&["detach", "--yes"]).status.success());
}

/// Starts a daemon with a site file that it refuses, and asserts that it follows a new address.
fn assert_followed_while_refused(lab: &Lab) -> Daemon {
    let good = fs::read_to_string(lab.site()).unwrap();
    fs::write(lab.site(), format!("{good}\nsystems = 7\n")).unwrap();
    let daemon = Daemon::start(lab);
    assert!(is_state(lab, "files-refused"));
    add(lab, EXTRA);
    wait_until("followed", &daemon, || opens(&lab.peer, EXTRA, LISTED));
    daemon
}

#[test]
fn addresses_are_followed_while_files_are_refused() {
    let name = "addresses_are_followed_while_files_are_refused";
    let Some(lab) = Lab::new(name) else { return };
    save_and_detach(&lab);
    let daemon = assert_followed_while_refused(&lab);
    assert!(is_shut(&lab.peer, EXTRA, UNLISTED));

    // Without the history nobody can tell whose the address is.
    daemon.kill();
    assert!(lab.pomguard(&["detach", "--yes"]).status.success());
    fs::remove_dir_all(lab.state().join("history")).unwrap();
    let daemon = Daemon::start(&lab);
    let (_, text) = status(&lab);
    assert!(text.contains("addresses of this machine that come or go are not followed"), "{text}");
    assert!(opens(&lab.peer, IpAddr::from(SERVER6), LISTED), "{}", daemon.log());
}

/// Starts a clone of the disk that has other facts and a DHCP address.
fn clone_of(lab: &Lab, facts: &Facts) -> Daemon {
    off(lab, Daemon::start(lab));
    facts.machine_id("33333333333333333333333333333333");
    facts.product_uuid("33333333-3333-3333-3333-333333333333");
    other_card(lab, "02:00:00:00:00:33");
    let daemon = Daemon::start(lab);
    assert_only_failsafe(lab, &daemon, "a clone");
    daemon
}

#[test]
fn search_for_the_host_goes_on_after_an_attempt_that_failed() {
    let Some((lab, facts)) = lab("search_for_the_host_goes_on_after_an_attempt_that_failed") else { return };
    let config = fs::read_to_string(lab.config()).unwrap();
    fs::write(lab.config(), config.replace("\"eth0\"", "\"eth0\", \"eth9\"")).unwrap();
    let daemon = clone_of(&lab, &facts);
    // The settings name an interface by another name than its first, which no change of policy accepts.
    ip(&lab, "link add other0 type veth peer name other1");
    ip(&lab, "link property add dev other0 altname eth9");
    add(&lab, SECOND);
    daemon.wait_log("the host is not found");
    assert!(is_state(&lab, "identity-changed"), "{}", daemon.log());
    assert!(is_shut(&lab.peer, SECOND, LISTED), "another machine's rows hold: {}", daemon.log());
    ip(&lab, "link property del dev other0 altname eth9");
    wait_until("found", &daemon, || !is_state(&lab, "identity-changed"));
    wait_until("served", &daemon, || opens(&lab.peer, SECOND, LISTED));
}

/// A change that nobody confirms returns to the failsafe rows, with the search for the host.
fn trial_on_a_clone_returns(test: &str, without_daemon: bool) {
    let Some((lab, facts)) = lab(test) else { return };
    let config = format!("own_addresses = \"machine\"\n{}", fs::read_to_string(lab.config()).unwrap());
    fs::write(lab.config(), &config).unwrap();
    let daemon = clone_of(&lab, &facts);
    fs::write(lab.config(), format!("host = \"second\"\n{config}")).unwrap();
    assert!(lab.pomguard(&["apply", "--confirm-within", "6s", "--yes"]).status.success());
    fs::write(lab.config(), config).unwrap();
    daemon.kill();
    let over = || thread::sleep(Duration::from_secs(8));
    if without_daemon {
        over();
    }
    let daemon = Daemon::start(&lab);
    if !without_daemon {
        over();
    }
    assert_only_failsafe(&lab, &daemon, "after the return");
    add(&lab, SECOND);
    wait_until("found", &daemon, || !is_state(&lab, "identity-changed"));
    wait_until("served", &daemon, || opens(&lab.peer, SECOND, LISTED));
}

#[test]
fn trial_on_a_clone_returns_to_failsafe_rows_alone() {
    trial_on_a_clone_returns("trial_on_a_clone_returns_to_failsafe_rows_alone", false);
}

#[test]
fn trial_on_a_clone_that_returned_without_a_daemon_is_known_as_such() {
    trial_on_a_clone_returns("trial_on_a_clone_that_returned_without_a_daemon_is_known_as_such", true);
}

#[test]
fn saved_image_of_another_clock_has_its_files_in_the_history() {
    let name = "saved_image_of_another_clock_has_its_files_in_the_history";
    let Some(lab) = Lab::new(name) else { return };
    save_and_detach(&lab);
    // As a kernel with other ticks would have saved the image.
    let saved = confirmed::load(&lab.state()).unwrap().unwrap();
    let place = ImagePlace::new(Vec::new(), Clock { ticks_per_1000s: 3_125, offset: 0 }, 1);
    let lines = place.adopt(saved.parts()).unwrap().lines().to_vec();
    confirmed::save(&lab.state(), &Confirmed { lines, ..saved }).unwrap();
    drop(assert_followed_while_refused(&lab));
}
