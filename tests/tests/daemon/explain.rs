//! `explain` asks the files and the kernel, and reports when they differ.

use std::time::Instant;

use pomguard_tests::daemon::{Daemon, LISTED, Lab, PEER, SERVER, STRANGER, Settings, UNLISTED, opens};

use super::cli::json;

const OTHER: &str =
    "[[host]]\nname = \"other\"\naddresses = [\"10.77.0.9\"]\nsystems = [\"Agent Manager\"]\n";
const REMOVED: &str = "[[row]]\nid = \"pom-4.0/16\"\nenabled = false\nforce = true\n";

fn explain(lab: &Lab, source: &str, destination: &str) -> (Option<i32>, String) {
    let output = lab.pomguard(&["explain", source, destination]);
    let both = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&both).into_owned())
}

#[test]
fn explain_agrees_with_the_kernel_until_the_files_change() {
    let Some(lab) = Lab::new("explain_agrees_with_the_kernel_until_the_files_change") else { return };
    let daemon = Daemon::start(&lab);
    for (source, destination, verdict) in [
        ("10.77.0.2", "10.77.0.1:7999/tcp", "PASS"),
        ("[fd00:77::2]:40000", "[fd00:77::1]:9970/tcp", "PASS"),
        ("10.77.0.2", "10.77.0.1:9000/tcp", "DROP"),
        ("10.77.0.3", "10.77.0.1:7999/tcp", "DROP"),
        ("10.77.0.1", "10.77.0.2:443/tcp", "PASS"),
        ("10.77.0.1", "10.77.0.3:443/tcp", "DROP"),
    ] {
        let (code, said) = explain(&lab, source, destination);
        let expected = if verdict == "PASS" { 0 } else { 3 };
        assert_eq!(code, Some(expected), "{source} to {destination}: {said}");
        assert!(said.contains(&format!("kernel   {verdict}")), "{source} to {destination}: {said}");
    }
    lab.write_site(REMOVED);
    let (code, said) = explain(&lab, "10.77.0.2", "10.77.0.1:7999/tcp");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("DISAGREEMENT"), "{said}");
    let (code, said) = explain(&lab, "10.77.0.2", "10.77.0.1:9970/tcp");
    assert_eq!(code, Some(0), "what did not change is agreed on: {said}");
    daemon.reload();
    let (code, said) = explain(&lab, "10.77.0.2", "10.77.0.1:7999/tcp");
    assert_eq!(code, Some(3), "{said}");
    // A question that is none is wrong usage.
    let (code, said) = explain(&lab, "10.77.0.2", "10.77.0.1:7999");
    assert_eq!(code, Some(2), "{said}");
    // In audit it passes, and would be dropped.
    lab.write_settings(&Settings { inbound: "audit", ..Settings::default() });
    daemon.reload();
    for more in [&[][..], &["--offline"]] {
        let output = lab.pomguard(&[&["explain", "10.77.0.3", "10.77.0.1:9970/tcp"], more].concat());
        assert_eq!(output.status.code(), Some(3), "{more:?}");
    }
}

/// Returns the exit code and both outputs of `explain` with these words.
fn asked(lab: &Lab, words: &[&str]) -> (Option<i32>, String) {
    let output = lab.pomguard(&[&["explain"], words].concat());
    let both = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&both).into_owned())
}

#[test]
fn explain_takes_names_prefixes_other_hosts_and_lines_of_drops() {
    let Some(lab) = Lab::new("explain_takes_names_prefixes_other_hosts_and_lines_of_drops") else { return };
    let _daemon = Daemon::start(&lab);
    // All kinds that the two halves once answered differently.
    for (words, code, reason) in [
        (&["fd00:77::2", "to", "fd00:77::1/icmpv6"][..], 0, "echo-v6"),
        (&["10.77.0.2", "10.77.0.1:0/tcp"], 3, "port-zero"),
        (&["10.77.0.9:67", "255.255.255.255:68/udp"], 0, "dhcp"),
        (&["10.77.0.1", "10.77.0.1:9970/TCP"], 3, "spoofed-source"),
    ] {
        let (found, text) = asked(&lab, words);
        assert_eq!(found, Some(code), "{words:?}: {text}");
        assert!(text.contains(reason) && !text.contains("DISAGREEMENT"), "{words:?}: {text}");
    }
    // A prefix: one line for each distinct answer.
    let (code, text) = asked(&lab, &["10.77.0.0/29", "to", "10.77.0.1:7999/tcp"]);
    assert_eq!(code, Some(3), "{text}");
    assert_eq!(text.matches("PASS row").count(), 1, "{text}");
    assert!(text.contains("10.77.0.2") && text.contains("DROP"), "{text}");
    // A question is no packet: the drop that it ends in is not recorded.
    let begun = Instant::now();
    let (code, text) = asked(&lab, &["10.77.0.3", "to", "10.77.0.1:9000/tcp"]);
    println!("an answer took {:?}", begun.elapsed());
    assert!(code == Some(3) && text.contains("kernel   DROP"), "{text}");
    let report = json(&lab, &["drops", "--peer", "10.77.0.3"]);
    assert_eq!(report["drops"].as_array().unwrap().len(), 0, "{report:#}");
    // A drop is found and explained with two commands.
    assert!(!opens(&lab.peer, SERVER, UNLISTED) && !opens(&lab.stranger, SERVER, LISTED));
    for (peer, port, reason) in [(PEER, UNLISTED, "port-known"), (STRANGER, LISTED, "source")] {
        let report = json(&lab, &["drops", "--peer", &peer.to_string(), "--port", &port.to_string()]);
        let id = report["drops"][0]["id"].as_str().unwrap();
        let (code, text) = asked(&lab, &["--drop", id]);
        assert_eq!(code, Some(3), "{text}");
        let words: Vec<&str> = text.split_whitespace().collect();
        let words = words.join(" ");
        assert!(words.contains(&format!("packets of {reason}")) && words.contains("kernel DROP"), "{text}");
    }
    let (code, text) = asked(&lab, &["--drop", "zzzz"]);
    assert_eq!(code, Some(2), "{text}");
    // Another host of the site: only its policy can answer.
    lab.write_site(OTHER);
    let (code, text) = asked(&lab, &["Agent Desktop", "to", "other:9970/tcp", "--host", "OTHER"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("only the policy of other answers") && text.contains("kernel   not asked"),
        "{text}"
    );
    let (code, text) = asked(&lab, &["10.77.0.2", "10.77.0.9:9970/tcp"]);
    assert!(code == Some(3) && text.contains("belongs to other"), "{text}");
    let (code, text) = asked(&lab, &["10.77.0.2", "10.77.0.9:9970/tcp", "--host", "nobody"]);
    assert_eq!(code, Some(2), "{text}");
}
