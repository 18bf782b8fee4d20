//! Floods of link messages: interfaces that come and go alongside the guarded one, and one that flaps.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    process::Stdio,
    time::{Duration, Instant},
};

use pomguard_tests::daemon::{Daemon, INTERFACE, LISTED, Lab, SERVER, UNLISTED, is_shut, opens};

use crate::watch::{repairs, wait_until};

/// The number of interface pairs that come at once. The kernel removes a group of interfaces in one operation.
const PAIRS: u32 = 250;
/// The number of times that these pairs come and go.
const ROUNDS: u32 = 6;
/// The longest time of a repair during the flood.
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn flood_of_interfaces_neither_starves_repairs_nor_reattaches() {
    let Some(lab) = Lab::new("flood_of_interfaces_neither_starves_repairs_nor_reattaches") else { return };
    let daemon = Daemon::start(&lab);
    let (program, attached) = (lab.xdp_program(), daemon.log().matches("XDP native").count());
    let mut batch = String::new();
    for _ in 0..ROUNDS {
        for number in 0..PAIRS {
            writeln!(batch, "link add flood{number} group 7 type veth peer name dolf{number}").unwrap();
        }
        batch.push_str("link del group 7\n");
    }
    let begun = Instant::now();
    let mut flood = lab.command("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = flood.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(batch.as_bytes()));
    let pins = lab.pinned();
    let mut repaired = 0;
    while flood.try_wait().unwrap().is_none() {
        fs::remove_file(&pins[0]).unwrap();
        let took = wait_until("the pin is back", &daemon, || lab.pinned() == pins);
        assert!(took < PATIENCE, "{took:?}");
        repaired += 1;
    }
    writer.join().unwrap().unwrap();
    let rate = f64::from(PAIRS * ROUNDS) / begun.elapsed().as_secs_f64() * 60.0;
    println!("{rate:.0} pairs a minute; {repaired} repairs meanwhile");
    assert!(repaired > 0);
    assert_eq!(
        repairs(&lab, "interface") + repairs(&lab, "xdp") + repairs(&lab, "tc"),
        0,
        "{}",
        daemon.log()
    );
    assert_eq!((lab.xdp_program(), daemon.log().matches("XDP native").count()), (program, attached));
    assert!(opens(&lab.peer, SERVER, LISTED) && is_shut(&lab.peer, SERVER, UNLISTED));
    assert!(daemon.stop().success());
}

#[test]
fn interface_that_flaps_is_not_attached_to_again() {
    let Some(lab) = Lab::new("interface_that_flaps_is_not_attached_to_again") else { return };
    let daemon = Daemon::start(&lab);
    let (program, attached) = (lab.xdp_program(), daemon.log().matches("XDP native").count());
    let link = lab.server.link(INTERFACE);
    for _ in 0..200 {
        lab.command("ip").args(["link", "set", INTERFACE, "down"]).output().unwrap();
        link.up().unwrap();
    }
    lab.dress(INTERFACE);
    assert_eq!((lab.xdp_program(), daemon.log().matches("XDP native").count()), (program, attached));
    assert!(!daemon.log().contains("was taken away"), "{}", daemon.log());
    assert!(opens(&lab.peer, SERVER, LISTED) && is_shut(&lab.peer, SERVER, UNLISTED));
    assert!(daemon.stop().success());
}
