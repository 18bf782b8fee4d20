//! Packets that bypass the hooks. operations.md names these limits: the tests show that they are as
//! described, and would fail if a kernel changed them.

use pomguard_netlab::{Port, Veth};
use pomguard_tests::{
    daemon::{Daemon, INTERFACE, Lab, Settings, UNLISTED},
    faults::{PacketCounter, Sender, THE_SERVER, THE_STRANGER, frames},
    packet::{eth, flag},
};

#[test]
fn sp_10_what_root_sends_past_the_queues_is_not_seen() {
    let Some(lab) = Lab::new("sp_10_what_root_sends_past_the_queues_is_not_seen") else { return };
    let _daemon = Daemon::start(&lab);
    let packets = |from, to| vec![eth().ip(from, to).tcp(40_000, UNLISTED).flags(flag::RST)];
    let forbidden = frames(&lab.server, &lab.stranger, packets)(THE_SERVER, THE_STRANGER);
    let sender = Sender::at(&lab.server);
    let mut counter = PacketCounter::new(&lab.stranger, THE_SERVER, None);
    // Packets of the server's own neighbour discovery pass in the meantime.
    let dropped = || lab.stats().total("outbound", "dropped");
    for frame in &forbidden {
        assert!(!sender.send(frame), "a plain packet socket is judged");
    }
    assert_eq!((counter.heard(), dropped()), (0, forbidden.len() as u64));
    let before = dropped();
    let past = Sender::past_the_queues(&lab.server);
    for frame in &forbidden {
        assert!(past.send(frame), "one that goes past the queues is not");
    }
    assert_eq!((counter.heard(), dropped() - before), (forbidden.len() as u64, 0));
}

#[test]
fn sp_11_redirect_into_a_guarded_interface_is_not_seen() {
    let name = "sp_11_redirect_into_a_guarded_interface_is_not_seen";
    for attach in ["native", "generic"] {
        let Some(lab) = Lab::new(name) else { return };
        lab.write_settings(&Settings { attach, ..Settings::default() });
        let _daemon = Daemon::start(&lab);
        Veth::connect((&lab.server, &Port::new("side0")), (&lab.stranger, &Port::new("side1"))).unwrap();
        for words in [
            "qdisc add dev side0 clsact",
            "filter add dev side0 ingress protocol all u32 match u32 0 0 action mirred ingress redirect dev eth0",
        ] {
            let output = lab.server.command("tc").unwrap().args(words.split(' ')).output().unwrap();
            assert!(output.status.success(), "tc {words}: {}", String::from_utf8_lossy(&output.stderr));
        }
        let packets = |from, to| vec![eth().ip(from, to).tcp(40_000, UNLISTED).flags(flag::RST)];
        let forbidden = frames(&lab.stranger, &lab.server, packets)(THE_STRANGER, THE_SERVER);
        let (near, far) = (Sender::at(&lab.stranger), Sender::at_link(&lab.stranger, "side1"));
        let mut counter = PacketCounter::new(&lab.server, THE_STRANGER, None);
        let dropped = || lab.stats().total("inbound", "dropped");
        let before = dropped();
        for frame in &forbidden {
            assert!(near.send(frame), "nothing guards the stranger");
        }
        assert_eq!(
            (counter.heard(), dropped() - before),
            (0, forbidden.len() as u64),
            "{attach}: {INTERFACE}"
        );
        for frame in &forbidden {
            assert!(far.send(frame), "nothing guards the stranger");
        }
        assert_eq!(
            (counter.heard(), dropped() - before),
            (forbidden.len() as u64, forbidden.len() as u64),
            "{attach}: what was redirected"
        );
    }
}
