//! Addresses that real programs move: keepalived between two guarded hosts, dnsmasq and udhcpc, radvd.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pomguard_netlab::Namespace;
use pomguard_tests::daemon::{
    Daemon, INTERFACE, LISTED, Lab, SERVER, Settings, UNLISTED, binary, is_shut, opens,
};

use crate::watch::{is_state, wait_until};

const FLOATING: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
const EXTRA: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 77);
/// The stranger's machine is the second host here.
const TWO_HOSTS: &str = r#"
[[host]]
name = "second"
addresses = ["10.77.0.3"]
systems = ["Agent Manager"]

[[floating]]
addresses = ["10.77.0.100"]
hosts = ["server", "second"]
"#;
const WAY_IN: &str = r#"
[[allow]]
name = "way-in"
from = ["10.77.0.3"]
to = ["every-host"]
ports = "9000"
protocol = "tcp"
failsafe = true
"#;

/// A program that runs until this value is dropped. It can then give its addresses back.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), Signal::SIGTERM);
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until && self.0.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns true if the program is installed. Writes a message if not.
fn installed(program: &str) -> bool {
    let there =
        ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|at| Path::new(at).join(program).exists());
    if !there {
        println!("skipped: {program} is not installed");
    }
    there
}

fn ip(machine: &Namespace, words: &str) -> String {
    let output = machine.command("ip").unwrap().args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {words}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Returns the addresses of a machine's interface.
fn addresses(machine: &Namespace) -> Vec<IpAddr> {
    let text = ip(machine, &format!("-o address show dev {INTERFACE}"));
    let word = |line: &str| line.split_whitespace().nth(3).map(str::to_owned);
    text.lines().filter_map(|line| word(line)?.split('/').next()?.parse().ok()).collect()
}

fn has(machine: &Namespace, address: impl Into<IpAddr>) -> bool {
    addresses(machine).contains(&address.into())
}

fn keepalived(lab: &Lab, machine: &Namespace, name: &str, priority: u8) -> Running {
    let path = lab.file(&format!("keepalived-{name}.conf"));
    let text = format!(
        "global_defs {{\n  router_id {name}\n  vrrp_version 3\n}}\n\
         vrrp_instance one {{\n  state BACKUP\n  interface {INTERFACE}\n  virtual_router_id 51\n  \
         priority {priority}\n  advert_int 0.2\n  virtual_ipaddress {{\n    {FLOATING}/24\n  }}\n}}\n"
    );
    fs::write(&path, text).unwrap();
    let pid = |kind: &str| lab.file(&format!("keepalived-{name}-{kind}.pid"));
    let mut command = machine.command("keepalived").unwrap();
    command.stderr(Stdio::null());
    command.args(["--dont-fork", "--log-console", "--vrrp", "--use-file"]).arg(&path);
    Running::start(command.arg("--pid").arg(pid("all")).arg("--vrrp_pid").arg(pid("vrrp")))
}

/// Starts a second daemon, on the second host.
fn second_daemon(lab: &Lab) -> Running {
    let settings = fs::read_to_string(lab.config()).unwrap();
    let settings = settings
        .replace("host = \"server\"", "host = \"second\"")
        .replace(&lab.pins().display().to_string(), &format!("{}-second", lab.pins().display()))
        .replace(&lab.state().display().to_string(), &lab.file("state-second").display().to_string())
        .replace(&lab.runtime().display().to_string(), &lab.file("runtime-second").display().to_string());
    let path = lab.file("second.toml");
    fs::write(&path, settings).unwrap();
    let log = fs::File::create(lab.file("second.log")).unwrap();
    let mut command = lab.stranger.command(binary()).unwrap();
    Running::start(command.args(["run", "--config"]).arg(path).stderr(log))
}

/// Case r01.
#[test]
fn keepalived_fails_over_between_hosts_with_a_daemon_dead() {
    if !installed("keepalived") {
        return;
    }
    let Some(lab) = Lab::new("keepalived_fails_over_between_hosts_with_a_daemon_dead") else { return };
    lab.write_site(TWO_HOSTS);
    lab.write_settings(&Settings::default());
    let second = second_daemon(&lab);
    let daemon = Daemon::start(&lab);
    wait_until("the second host is guarded", &daemon, || is_shut(&lab.peer, [10, 77, 0, 3], UNLISTED));
    let first = keepalived(&lab, &lab.server, "server", 150);
    wait_until("the first holds it", &daemon, || has(&lab.server, FLOATING));
    let _other = keepalived(&lab, &lab.stranger, "second", 100);
    wait_until("it is served", &daemon, || opens(&lab.peer, FLOATING, LISTED));
    assert!(is_shut(&lab.peer, FLOATING, UNLISTED), "{}", lab.stats());
    let status = lab.pomguard(&["status"]);
    assert_eq!(status.status.code(), Some(0), "{}", String::from_utf8_lossy(&status.stdout));
    thread::sleep(Duration::from_millis(500));
    assert!(!has(&lab.stranger, FLOATING), "advertisements arrive, so there is one holder");

    // The daemon of the host that takes over is dead.
    drop(second);
    let begun = Instant::now();
    drop(first);
    wait_until("the second holds it", &daemon, || has(&lab.stranger, FLOATING));
    ip(&lab.peer, "neigh flush all");
    wait_until("it is served there", &daemon, || opens(&lab.peer, FLOATING, LISTED));
    println!("failover: {:?}", begun.elapsed());
    assert!(is_shut(&lab.peer, FLOATING, UNLISTED), "the policy holds there");
    // The former holder is a client of its partner at that address.
    assert!(lab.stats().reason("spoofed-source", "inbound", "drop") == 0, "{}", lab.stats());
}

fn dnsmasq(lab: &Lab, address: Ipv4Addr, mac: &str) -> Running {
    let mut command = lab.peer.command("dnsmasq").unwrap();
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--bind-interfaces"]);
    command.args([
        "--dhcp-authoritative",
        "--no-ping",
        "--dhcp-range=10.77.0.1,10.77.0.99,2m",
        "--user=root",
    ]);
    command.args([format!("--interface={INTERFACE}"), format!("--dhcp-host={mac},{address}")]);
    let file = |name: &str| lab.file(&format!("dnsmasq-{address}-{name}")).display().to_string();
    let files = [("dhcp-leasefile", "leases"), ("pid-file", "pid"), ("log-facility", "log")];
    Running::start(command.args(files.map(|(option, name)| format!("--{option}={}", file(name)))))
}

fn udhcpc(lab: &Lab, script: &Path) -> Running {
    let mut command = lab.server.command("busybox").unwrap();
    command.args(["udhcpc", "-f", "-i", INTERFACE, "-t", "8", "-T", "1", "-A", "1", "-s"]);
    Running::start(command.arg(script).stderr(Stdio::null()))
}

/// Case r04.
#[test]
fn lease_of_another_address_arrives_and_is_named() {
    if !installed("dnsmasq") || !installed("busybox") {
        return;
    }
    let Some(lab) = Lab::new("lease_of_another_address_arrives_and_is_named") else { return };
    lab.write_site(WAY_IN);
    let script = lab.file("script");
    let text = "#!/bin/sh\ncase $1 in\n\
         deconfig) ip -4 address flush dev $interface;;\n\
         bound|renew) ip address replace $ip/24 dev $interface;;\nesac\n";
    fs::write(&script, text).unwrap();
    assert!(Command::new("chmod").arg("755").arg(&script).status().unwrap().success());
    let link = ip(&lab.server, &format!("-o link show dev {INTERFACE}"));
    let mac = link.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap().to_owned();
    let daemon = Daemon::start(&lab);
    ip(&lab.server, &format!("-4 address flush dev {INTERFACE}"));
    let server = dnsmasq(&lab, SERVER, &mac);
    let client = udhcpc(&lab, &script);
    wait_until("the listed address is leased", &daemon, || has(&lab.server, SERVER));
    wait_until("it is served", &daemon, || opens(&lab.peer, SERVER, LISTED));
    drop((client, server));

    // The lease moves, as after a move to another network.
    let _server = dnsmasq(&lab, EXTRA, &mac);
    let _client = udhcpc(&lab, &script);
    wait_until("the other address is leased", &daemon, || has(&lab.server, EXTRA));
    wait_until("it is named", &daemon, || {
        is_state(&lab, "address-unlisted") && is_state(&lab, "address-missing")
    });
    assert!(opens(&lab.stranger, EXTRA, UNLISTED), "the failsafe row is a way in: {}", lab.stats());
    assert!(is_shut(&lab.peer, EXTRA, LISTED), "{}", lab.stats());
}

#[test]
fn advertised_prefix_is_taken_unless_it_is_a_peers() {
    if !installed("radvd") {
        return;
    }
    let Some(lab) = Lab::new("advertised_prefix_is_taken_unless_it_is_a_peers") else { return };
    lab.write_site(
        "[[peer]]\naddresses = [\"fd00:88::2\"]\nsystems = [\"Agent Desktop\"]\n\
         [[peer]]\naddresses = [\"fd00:99::/64\"]\nsystems = [\"WFO\"]\n",
    );
    let config = fs::read_to_string(lab.config()).unwrap();
    fs::write(lab.config(), format!("own_addresses = \"machine\"\n{config}")).unwrap();
    let daemon = Daemon::start(&lab);
    ip(&lab.peer, &format!("address add fd00:88::2/64 dev {INTERFACE}"));
    lab.peer.set_sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
    lab.server.set_sysctl(&format!("net/ipv6/conf/{INTERFACE}/accept_ra"), "1").unwrap();
    let path = lab.file("radvd.conf");
    let prefix = |net: &str| format!("  prefix {net} {{ AdvOnLink on; AdvAutonomous on; }};\n");
    let prefixes = ["fd00:88::/64", "fd00:99::/64"].map(prefix).concat();
    let text = format!(
        "interface {INTERFACE} {{\n  AdvSendAdvert on;\n  MinRtrAdvInterval 3;\n  MaxRtrAdvInterval 4;\n{prefixes}}};\n"
    );
    fs::write(&path, text).unwrap();
    let mut command = lab.peer.command("radvd").unwrap();
    command.stderr(Stdio::null());
    command.args(["--nodaemon", "--logmethod=stderr", "--config"]).arg(path);
    let _router = Running::start(command.arg("--pidfile").arg(lab.file("radvd.pid")));
    let of = |net: u16| {
        addresses(&lab.server).into_iter().find(
            |address| matches!(address, IpAddr::V6(address) if address.segments()[..2] == [0xfd00, net]),
        )
    };
    wait_until("the prefixes are advertised", &daemon, || of(0x88).is_some() && of(0x99).is_some());
    let (taken, theirs) = (of(0x88).unwrap(), of(0x99).unwrap());
    wait_until("the address is served", &daemon, || opens(&lab.peer, taken, LISTED));
    assert!(is_shut(&lab.peer, taken, UNLISTED));
    wait_until("the other prefix is a conflict", &daemon, || is_state(&lab, "address-conflict"));
    let status = String::from_utf8_lossy(&lab.pomguard(&["status"]).stdout).into_owned();
    assert!(status.contains(&theirs.to_string()), "{status}");
}
