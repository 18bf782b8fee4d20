//! `pomguard doctor` with real devices, foreign programs and foreign rules; and the driver's message for a
//! refused mode.

use aya::{
    Ebpf, EbpfLoader,
    programs::{Xdp, XdpMode},
};
use pomguard::kernel::object::OBJECT;
use pomguard_common::names::PROGRAM_INGRESS;
use pomguard_tests::daemon::{Daemon, INTERFACE, Lab, Settings};
use serde_json::Value;

/// Runs the doctor. Returns the exit code and the findings.
fn doctor(lab: &Lab) -> (Option<i32>, Vec<Value>) {
    let output = lab.pomguard(&["doctor", "--json"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    (output.status.code(), report["findings"].as_array().unwrap().clone())
}

/// Returns the findings about a subject whose sentence contains these words.
fn about<'a>(findings: &'a [Value], subject: &str, words: &str) -> Vec<&'a Value> {
    let fits = |it: &&Value| it["subject"] == subject && it["sentence"].as_str().unwrap().contains(words);
    findings.iter().filter(fits).collect()
}

fn ip(lab: &Lab, words: &str) {
    let output = lab.command("ip").args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Attaches a foreign program. The program stays attached while the object exists.
fn attach_foreign(lab: &Lab, interface: &str) -> Ebpf {
    let mut object = EbpfLoader::new().load(OBJECT).unwrap();
    let program: &mut Xdp = object.program_mut(PROGRAM_INGRESS).unwrap().try_into().unwrap();
    program.load().unwrap();
    lab.server.run(|| program.attach(interface, XdpMode::Driver).map(drop)).unwrap().unwrap();
    object
}

#[test]
fn doctor_names_foreign_program_and_not_ours() {
    let Some(lab) = Lab::new("doctor_names_foreign_program_and_not_ours") else { return };
    ip(&lab, "link add side0 type veth peer name side1");
    let daemon = Daemon::start(&lab);
    let foreign = attach_foreign(&lab, "side0");
    lab.write_settings(&Settings { interfaces: &[INTERFACE, "side0"], ..Settings::default() });
    let (code, findings) = doctor(&lab);
    assert_eq!(code, Some(3), "{findings:#?}\n{}", daemon.log());
    assert_eq!(about(&findings, "side0", "of somebody else is attached").len(), 1, "{findings:#?}");
    assert!(about(&findings, INTERFACE, "somebody else").is_empty(), "ours is not foreign: {findings:#?}");
    drop(foreign);
    let (_, findings) = doctor(&lab);
    assert!(about(&findings, "side0", "somebody else").is_empty(), "{findings:#?}");
}

#[test]
fn doctor_without_settings_tells_relations_of_real_devices() {
    let Some(lab) = Lab::new("doctor_without_settings_tells_relations_of_real_devices") else { return };
    for words in [
        "link add side0 type veth peer name side1",
        "link add br0 type bridge",
        "link set side0 master br0",
        "link add link side1 name above0 type macvlan",
        "link set side1 mtu 9000",
        "tuntap add dev tun0 mode tun",
    ] {
        ip(&lab, words);
    }
    std::fs::remove_file(lab.config()).unwrap();
    let (_, findings) = doctor(&lab);
    for (subject, words) in [
        ("side0", "member of the bridge br0"),
        ("br0", "carries side0"),
        ("above0", "a macvlan on side1"),
        ("side1", "An MTU of 9000"),
        ("tun0", "no Ethernet"),
        (INTERFACE, "Driver veth"),
    ] {
        assert_eq!(about(&findings, subject, words).len(), 1, "{subject}: {words}: {findings:#?}");
    }
    for finding in &findings {
        assert!(!finding["command"].as_str().unwrap().is_empty(), "{finding}");
    }
}

#[test]
fn doctor_names_chains_that_drop_behind_pomguard() {
    let Some(lab) = Lab::new("doctor_names_chains_that_drop_behind_pomguard") else { return };
    let (_, findings) = doctor(&lab);
    assert!(about(&findings, "nftables", "").is_empty(), "{findings:#?}");
    for words in [
        "add table inet strict",
        "add chain inet strict in { type filter hook input priority 0 ; policy drop ; }",
        "add table ip nat",
        "add chain ip nat post { type nat hook postrouting priority 100 ; policy accept ; }",
    ] {
        let output = lab.command("nft").arg(words).output().unwrap();
        assert!(output.status.success(), "nft {words}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let (code, findings) = doctor(&lab);
    assert_eq!(code, Some(3), "{findings:#?}");
    let found = about(&findings, "nftables", "drops what no rule of it accepts");
    assert_eq!(found.len(), 1, "{findings:#?}");
    assert_eq!(found[0]["command"], "nft list table inet strict");
}

#[test]
fn refused_native_mode_is_told_in_the_drivers_words() {
    let Some(lab) = Lab::new("refused_native_mode_is_told_in_the_drivers_words") else { return };
    // For a veth, the other end of the pair decides.
    ip(&lab, "link add side0 type veth peer name side1");
    ip(&lab, "link set side1 mtu 9000");
    ip(&lab, "link set side0 mtu 9000");
    lab.write_settings(&Settings { interfaces: &[INTERFACE, "side0"], ..Settings::default() });
    let daemon = Daemon::start(&lab);
    let log = daemon.log();
    let line =
        log.lines().find(|line| line.contains("side0: no native XDP")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("the driver says \"") && line.contains("MTU"), "{line}");
    assert!(line.contains("`ip link set dev side0 mtu 1500`"), "{line}");
    assert_eq!(lab.stats().attached(), ["native", "generic"], "{log}");
}
