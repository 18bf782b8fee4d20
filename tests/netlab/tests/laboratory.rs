//! Tests of the laboratory itself: its parts work, and disappear without a clean-up.

#![expect(clippy::unwrap_used, reason = "a panic keeps the place where it happened")]

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::unix::process::ExitStatusExt as _,
    process::Stdio,
    time::Duration,
};

use pomguard_netlab::{Namespace, Offload, Port, Right, Switch, Veth, root_or_skip};

fn pair() -> (Namespace, Namespace) {
    let (left, right) = (Namespace::new("left").unwrap(), Namespace::new("right").unwrap());
    let near = Port::new("eth0")
        .mac([2, 0, 0, 0, 0, 1])
        .mtu(1400)
        .address("10.1.0.1/24".parse().unwrap())
        .address("fd00:1::1/64".parse().unwrap());
    let far =
        Port::new("eth7").address("10.1.0.2/24".parse().unwrap()).address("fd00:1::2/64".parse().unwrap());
    Veth::connect((&left, &near), (&right, &far)).unwrap();
    (left, right)
}

fn echo(from: &Namespace, to: &Namespace, address: &str) {
    let address: SocketAddr = address.parse().unwrap();
    let listener = to.run(|| TcpListener::bind(address)).unwrap().unwrap();
    let limit = Duration::from_secs(3);
    let mut client = from.run(|| TcpStream::connect_timeout(&address, limit)).unwrap().unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"ping").unwrap();
    let mut heard = [0; 4];
    server.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"ping");
}

#[test]
fn a_cable_carries_both_families_at_once() {
    if !root_or_skip("a_cable_carries_both_families_at_once") {
        return;
    }
    let (left, right) = pair();
    echo(&left, &right, "[fd00:1::2]:80");
    echo(&left, &right, "10.1.0.2:80");
    echo(&right, &left, "10.1.0.1:80");
    let state = left.link("eth0").state().unwrap();
    assert_eq!((state.mac, state.mtu, state.up), (Some([2, 0, 0, 0, 0, 1]), 1400, true));
    assert_eq!(right.link("eth7").state().unwrap().mtu, 1400);
}

#[test]
fn a_switch_joins_hosts_and_routes_lead_over_one() {
    if !root_or_skip("a_switch_joins_hosts_and_routes_lead_over_one") {
        return;
    }
    let switch = Switch::new("lan").unwrap();
    let hosts: Vec<_> = (1..=3)
        .map(|number| {
            let host = Namespace::new(&format!("host{number}")).unwrap();
            let port = Port::new("eth0").address(format!("10.2.0.{number}/24").parse().unwrap());
            switch.join(&host, &port).unwrap();
            host
        })
        .collect();
    echo(&hosts[0], &hosts[2], "10.2.0.3:7000");
    hosts[1].link("lo").add_address("10.3.0.1/32".parse().unwrap()).unwrap();
    let gateway: IpAddr = "10.2.0.2".parse().unwrap();
    hosts[0].add_route("10.3.0.0/24".parse().unwrap(), gateway).unwrap();
    echo(&hosts[0], &hosts[1], "10.3.0.1:7000");
    // The switch has lo, the bridge and three ports, and nothing else.
    assert_eq!(switch.namespace().links().unwrap().len(), 5);
}

#[test]
fn links_change_and_go() {
    if !root_or_skip("links_change_and_go") {
        return;
    }
    let (left, right) = pair();
    let link = left.link("eth0").rename("wan0").unwrap();
    assert!(link.state().unwrap().up);
    link.down().unwrap();
    link.set_mtu(1300).unwrap();
    link.set_mac([2, 0, 0, 0, 0, 9]).unwrap();
    link.up().unwrap();
    link.add_neighbour("10.1.0.9".parse().unwrap(), [2, 0, 0, 0, 0, 7]).unwrap();
    for offload in [Offload::TxChecksum, Offload::TxVlan, Offload::GenericReceive] {
        link.set_offload(offload, false).unwrap();
    }
    echo(&right, &left, "10.1.0.1:80");
    let state = link.state().unwrap();
    assert_eq!((state.mac, state.mtu, state.up), (Some([2, 0, 0, 0, 0, 9]), 1300, true));
    link.clone().delete().unwrap();
    link.state().unwrap_err();
    let names: Vec<_> = right.links().unwrap().into_iter().map(|link| link.name).collect();
    assert_eq!(names, ["lo"], "the peer goes with it");
}

#[test]
fn a_command_runs_inside_and_dies_with_its_thread() {
    if !root_or_skip("a_command_runs_inside_and_dies_with_its_thread") {
        return;
    }
    let (left, _right) = pair();
    let seen = left.command("cat").unwrap().arg("/proc/self/net/dev").output().unwrap();
    let seen = String::from_utf8(seen.stdout).unwrap();
    assert!(seen.contains("eth0:") && !seen.contains("eth7:"), "{seen}");

    let mut child = std::thread::scope(|scope| {
        let spawn = || left.command("sleep").unwrap().arg("600").stdin(Stdio::null()).spawn().unwrap();
        scope.spawn(spawn).join().unwrap()
    });
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
}

#[test]
fn a_station_serves_a_station() {
    if !root_or_skip("a_station_serves_a_station") {
        return;
    }
    let (left, right) = pair();
    let (client, server) = (left.station().unwrap(), right.station().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let bind = server.spawn(tokio::net::TcpListener::bind("10.1.0.2:80"));
        let listener = bind.await.unwrap().unwrap();
        let accepted = server.spawn(async move { listener.accept().await.unwrap().1 });
        let connected = client.spawn(tokio::net::TcpStream::connect("10.1.0.2:80")).await.unwrap().unwrap();
        assert_eq!(accepted.await.unwrap(), connected.local_addr().unwrap());
    });
}

#[test]
fn what_was_dropped_is_gone() {
    if !root_or_skip("what_was_dropped_is_gone") {
        return;
    }
    let (left, right) = pair();
    drop(left);
    // The kernel removes a namespace asynchronously.
    for _ in 0..200 {
        if right.links().unwrap().len() == 1 {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the peer of a dropped namespace is still there");
}

#[test]
fn a_receiving_thread_does_the_receiving_and_its_time_shows_it() {
    if !root_or_skip("a_receiving_thread_does_the_receiving_and_its_time_shows_it") {
        return;
    }
    let (left, right) = (Namespace::new("left").unwrap(), Namespace::new("right").unwrap());
    let name = format!("lab{}", std::process::id());
    let near = Port::new("eth0").address("10.1.0.1/24".parse().unwrap());
    let far = Port::new(&name).address("10.1.0.2/24".parse().unwrap());
    let (peer, link) = Veth::connect((&left, &near), (&right, &far)).unwrap();
    // Otherwise the sender's own processor receives, because the kernel has nothing to merge.
    peer.set_offload(Offload::TcpSegmentation, false).unwrap();
    link.set_offload(Offload::GenericReceive, true).unwrap();
    let receiver = link.receive_in_thread().unwrap();
    receiver.occupy(0, Right::First).unwrap();
    let (before, idle) = (link.state().unwrap().received, receiver.run_time().unwrap());
    echo(&left, &right, "10.1.0.2:80");
    assert!(link.state().unwrap().received > before, "packets arrived");
    let until = std::time::Instant::now() + Duration::from_secs(30);
    while receiver.run_time().unwrap() == idle {
        assert!(std::time::Instant::now() < until, "and nobody received them");
        std::thread::sleep(Duration::from_millis(10));
    }
}
