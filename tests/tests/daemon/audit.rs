//! The audit trail in a real journal.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use pomguard::daemon::journal::message_id;
use pomguard_netlab::die_with_parent;
use pomguard_tests::daemon::{Daemon, Lab, MENDED};
use serde_json::Value;

use super::{
    cli::{json, said},
    watch::wait_until,
};

const JOURNALD: &str = "/lib/systemd/systemd-journald";
const WITHOUT_REMOVABLE: &str = "[[row]]\nid = \"pom-4.0/16\"\nenabled = false\nforce = true\n";

/// A separate journald in a separate mount namespace. The socket and the files are in the laboratory's
/// folder, where a daemon without extra privileges can reach them.
struct Journal {
    child: Child,
    socket: PathBuf,
    files: PathBuf,
}

impl Journal {
    /// Starts journald. Returns `None`, and prints the reason, if the machine has no journald.
    fn start(lab: &Lab) -> Option<Self> {
        if !Path::new(JOURNALD).exists() {
            println!("skipped: no {JOURNALD}");
            return None;
        }
        let [sockets, files] = ["journal", "journal-files"].map(|name| lab.file(name));
        for folder in [&sockets, &files] {
            fs::create_dir(folder).unwrap();
        }
        let script = format!(
            "mount --make-rprivate / && mount -t tmpfs tmpfs /run \
             && mkdir -p /run/systemd/journal /run/log/journal && mount --bind {} /run/systemd/journal \
             && mount --bind {} /run/log/journal && exec {JOURNALD}",
            sockets.display(),
            files.display()
        );
        let mut command = Command::new("unshare");
        die_with_parent(&mut command);
        let child = command
            .args(["--mount", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Some(Self { child, socket: sockets.join("socket"), files })
    }

    /// Returns the entries with this message id, oldest first.
    fn entries(&self, id: &str) -> Vec<Value> {
        let mut command = Command::new("journalctl");
        command.arg("--directory").arg(&self.files).args(["--output=json", "--no-pager"]);
        let output = command.arg(format!("MESSAGE_ID={id}")).output().unwrap();
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn changes_emergencies_denials_and_repairs_are_an_entry_each() {
    let Some(lab) = Lab::new("changes_emergencies_denials_and_repairs_are_an_entry_each") else { return };
    let Some(journal) = Journal::start(&lab) else { return };
    let socket = journal.socket.display().to_string();
    let daemon = Daemon::spawn_with(&lab, &[("POMGUARD_JOURNAL", &socket)]);
    daemon.wait_ready();
    wait_until("journald listens", &daemon, || journal.socket.exists());
    let run = |verb: &[&str]| -> Output {
        lab.pomguard_command(verb).env("POMGUARD_JOURNAL", &socket).output().unwrap()
    };
    let wait = |id: &str, number: usize| -> Vec<Value> {
        wait_until("written", &daemon, || journal.entries(id).len() >= number);
        let entries = journal.entries(id);
        assert_eq!(entries.len(), number, "{entries:#?}");
        entries
    };
    let started = journal.entries(message_id::CHANGE).len();

    lab.write_site(WITHOUT_REMOVABLE);
    let before = lab.stats().image();
    assert!(run(&["apply", "--quiet", "--why", "ticket 7"]).status.success());
    let entries = wait(message_id::CHANGE, started + 1);
    let entry = entries.last().unwrap();
    for (field, value) in [
        ("POMGUARD_VERB", "apply"),
        ("POMGUARD_OUTCOME", "done"),
        ("POMGUARD_UID", "0"),
        ("POMGUARD_WHY", "ticket 7"),
        ("POMGUARD_CHANGE", "2"),
        ("POMGUARD_OLD_IMAGE", &before),
        ("POMGUARD_NEW_IMAGE", &lab.stats().image()),
        ("SYSLOG_IDENTIFIER", "pomguard"),
        ("PRIORITY", "5"),
    ] {
        assert_eq!(entry[field], value, "{field} of {entry:#}");
    }
    // The kernel supplies the login id. A service may have started this test, and a service has no login id.
    let own = fs::read_to_string("/proc/self/loginuid").unwrap_or_default();
    let own = own.trim();
    let expected = if own.is_empty() || own == u32::MAX.to_string() { Value::Null } else { own.into() };
    assert_eq!(entry["POMGUARD_LOGIN_UID"], expected, "{entry:#}");
    lab.write_site("broken");
    daemon.reload();
    let entries = wait(message_id::CHANGE, started + 2);
    assert_eq!(entries.last().unwrap()["POMGUARD_OUTCOME"], "refused");

    assert!(run(&["allow", "10.77.0.3", "to", "9000/tcp", "--for", "1h", "--why", "test"]).status.success());
    assert!(run(&["lockdown", "--for", "1m", "--yes", "--quiet", "--why", "test"]).status.success());
    assert!(run(&["lockdown", "--off", "--quiet", "--why", "test"]).status.success());
    let entries = wait(message_id::EMERGENCY, 3);
    let verbs: Vec<&Value> = entries.iter().map(|entry| &entry["POMGUARD_VERB"]).collect();
    assert_eq!(verbs, ["allow", "lockdown", "end of bypass and lockdown"]);

    lab.let_others_in();
    let mut command = lab.server.command("/usr/bin/setpriv").unwrap();
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
    let output =
        command.arg(lab.public_binary()).args(["revoke", "1"]).arg("--config").arg(lab.config()).output();
    let output = output.unwrap();
    assert!(!output.status.success(), "{}", said(&output));
    let entries = wait(message_id::DENIED, 1);
    assert_eq!(entries[0]["POMGUARD_UID"], "65534", "{:#}", entries[0]);

    let pin = lab.pins().join("links/xdp-eth0");
    fs::remove_file(&pin).unwrap();
    daemon.keeps(MENDED, "pinned again", || pin.exists());
    let entries = wait(message_id::REPAIR, 1);
    assert_eq!(entries[0]["POMGUARD_REPAIR"], "pin", "{:#}", entries[0]);

    assert!(run(&["detach", "--yes", "--why", "the last resort"]).status.success());
    let entries = wait(message_id::EMERGENCY, 4);
    assert_eq!(entries[3]["POMGUARD_VERB"], "detach", "{:#}", entries[3]);
    assert_eq!(entries[3]["POMGUARD_WHY"], "the last resort", "{:#}", entries[3]);
    let events = json(&lab, &["history", "--emergency"]);
    let last = events.as_array().unwrap().last().unwrap();
    assert_eq!((&last["verb"], &last["about"]), (&"detach".into(), &"eth0 open".into()), "{last:#}");
    assert_eq!((&last["by"]["uid"], &last["why"]), (&0.into(), &"the last resort".into()), "{last:#}");
}
