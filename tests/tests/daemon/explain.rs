//! `explain` asks the files and the kernel, and reports when they differ.

use pomguard_tests::daemon::{Daemon, Lab, Settings};

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
