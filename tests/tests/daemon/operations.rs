//! Types in docs/operations.md from the first command to the last. The test stands in for `systemctl` and
//! `journalctl`; a shell runs everything else.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Child, Command},
};

use pomguard_netlab::die_with_parent;
use pomguard_tests::daemon::{
    Connection, Daemon, LISTED, Lab, MENDED, SERVER, STRANGER, Settings, UNLISTED, binary, is_shut, opens,
};

use crate::{
    cli::{done, json, said},
    layout::age,
    watch::wait_until,
};

const PAGE: &str = include_str!("../../../docs/operations.md");

/// Makes the stranger another Agent Desktop.
const ANOTHER: &str =
    "[[peer]]\nname = \"pom3\"\naddresses = [\"10.77.0.3\"]\nsystems = [\"Agent Desktop\"]\n";

/// Returns the commands of the page in order: the title of the section, and the line.
fn commands() -> Vec<(&'static str, &'static str)> {
    let (mut title, mut typed, mut found) = ("", false, Vec::new());
    for line in PAGE.lines().map(str::trim) {
        if let Some(next) = line.strip_prefix("## ") {
            title = next;
        } else if let Some(language) = line.strip_prefix("```") {
            typed = language == "sh";
        } else if typed {
            found.push((title, line));
        }
    }
    found
}

/// The reader of the page, at the server.
struct Operator {
    lab: Lab,
    daemon: Option<Daemon>,
    exporter: Option<Child>,
    /// A folder with a `pomguard` that uses the laboratory's settings.
    path: PathBuf,
    /// A connection that was open before the first start.
    _early: Connection,
}

impl Operator {
    fn at(lab: Lab) -> Self {
        let path = lab.file("bin");
        fs::create_dir(&path).unwrap();
        let (binary, config) = (binary(), lab.config());
        let script = format!(
            "#!/bin/sh\nverb=$1\nshift\nexec {} \"$verb\" --config {} \"$@\"\n",
            binary.display(),
            config.display()
        );
        fs::write(path.join("pomguard"), script).unwrap();
        fs::set_permissions(path.join("pomguard"), fs::Permissions::from_mode(0o755)).unwrap();
        lab.write_settings(&Settings::AUDIT);
        let early = Connection::open(&lab.stranger, SERVER, UNLISTED);
        Self { lab, daemon: None, exporter: None, path, _early: early }
    }

    /// Types a line and returns the output. Asserts the expected exit code.
    fn types(&mut self, line: &str, expected: i32) -> String {
        println!("# {line}");
        let words: Vec<&str> = line.split_whitespace().collect();
        match *words.first().unwrap() {
            "systemctl" => {
                self.systemctl(&words[1..]);
                String::new()
            }
            "journalctl" => self.journal(line),
            _ => {
                let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.path.display());
                let mut shell = self.lab.command("sh");
                let output = shell.args(["-c", line]).env("PATH", path).output().unwrap();
                assert_eq!(output.status.code(), Some(expected), "{line}: {}", said(&output));
                said(&output)
            }
        }
    }

    fn systemctl(&mut self, words: &[&str]) {
        let (verb, units) = words.split_first().unwrap();
        for unit in units.iter().filter(|word| !word.starts_with("--")) {
            match *verb {
                "enable" | "start" => self.start(unit),
                "restart" => {
                    self.stop(unit);
                    self.start(unit);
                }
                "disable" | "stop" => self.stop(unit),
                _ => panic!("systemctl {verb}: not known here"),
            }
        }
    }

    fn start(&mut self, unit: &str) {
        if unit == "pomguard" {
            self.daemon = Some(Daemon::start(&self.lab));
            return;
        }
        assert_eq!(unit, "pomguard-exporter");
        let mut command: Command = self.lab.command(binary());
        die_with_parent(&mut command);
        let exporter = command.arg("serve-metrics").arg("--runtime").arg(self.lab.runtime()).spawn().unwrap();
        self.exporter = Some(exporter);
        let served = || self.lab.try_metrics().is_some_and(|page| page.contains("pomguard_build_info"));
        wait_until("served", self.daemon.as_ref().unwrap(), served);
    }

    fn stop(&mut self, unit: &str) {
        if unit == "pomguard" {
            assert!(self.daemon.take().is_none_or(|daemon| daemon.stop().success()));
        } else if let Some(mut exporter) = self.exporter.take() {
            exporter.kill().unwrap();
            exporter.wait().unwrap();
        }
    }

    /// Returns the lines of the daemons' logs that the command line selects.
    fn journal(&self, line: &str) -> String {
        let logs = (0..).map_while(|number| fs::read_to_string(self.lab.file(&format!("log{number}"))).ok());
        let all = logs.collect::<String>();
        let wanted = |entry: &&str| {
            let sought = line.split_once("--grep \"").and_then(|(_, rest)| rest.split('"').next());
            sought.is_none_or(|words| entry.contains(words))
                && (!line.contains("--priority err") || entry.contains(" ERROR "))
        };
        all.lines().filter(wanted).collect::<Vec<_>>().join("\n")
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    /// Prepares for a line: does what the page says is done by hand, or has happened, before that line.
    fn before(&mut self, title: &str, line: &str) {
        let lab = &self.lab;
        match (title, line) {
            ("Promote", "pomguard check") => {
                lab.write_settings(&Settings { inbound: "enforce", ..Settings::AUDIT });
            }
            ("Change", "pomguard plan") => lab.write_site(ANOTHER),
            ("Roll back", "pomguard history") => {
                // Enough changes that the page's change number exists. In the even changes the stranger is
                // known.
                for number in 4..=14 {
                    let site = if number % 2 == 0 { ANOTHER } else { "" };
                    // A row that no other change has: equal files would be no change.
                    lab.write_site(&format!(
                        "{site}[[allow]]\nname = \"more\"\nfrom = [\"10.77.2.{number}\"]\nto = [\"every-host\"]\n\
                         protocol = \"tcp\"\nports = \"9005\"\n"
                    ));
                    done(lab, &["apply", "--why", "as it goes", "--quiet"]);
                }
            }
            // The files are the files of a change that was rolled back. A corrected file is applied.
            ("Emergency", line) if line.starts_with("pomguard allow 10.9.0.7") => {
                lab.write_site("# mended\n");
                done(lab, &["apply", "--why", "mended", "--quiet"]);
            }
            ("When something is not as it should be", line) if line.starts_with("journalctl") => {
                // The host was opened as the last resort. The table describes how to close it again.
                self.systemctl(&["restart", "pomguard"]);
                let pin = self.lab.pins().join("links/xdp-eth0");
                fs::remove_file(&pin).unwrap();
                self.daemon().keeps(MENDED, "pinned again", || pin.exists());
            }
            ("Stop, restart, upgrade", "pomguard check") => {
                self.daemon.take().unwrap().kill();
                age(&self.lab);
            }
            _ => {}
        }
    }

    /// Checks the promises of the page after a line was typed.
    fn after(&mut self, title: &str, line: &str, said: &str) {
        let lab = &self.lab;
        let (known, unknown) = (|| opens(&lab.peer, SERVER, LISTED), || is_shut(&lab.peer, SERVER, UNLISTED));
        match (title, line) {
            ("Install", "systemctl enable --now pomguard") => {
                assert!(opens(&lab.peer, SERVER, UNLISTED), "the first start is in audit");
                assert!(lab.stats().total("inbound", "audited") > 0, "{}", lab.stats());
            }
            ("Install", line) if line.starts_with("journalctl") => {
                assert!(said.contains(&STRANGER.to_string()), "the early connection is named: {said}");
            }
            ("Promote", line) if line.starts_with("pomguard apply") => {
                assert!(known() && unknown());
                assert_eq!(json(lab, &["status"])["confirmed"], false);
            }
            ("Promote", "pomguard confirm") => {
                assert!(known() && unknown());
                assert_eq!(json(lab, &["status"])["confirmed"], true);
            }
            ("Change", line) if line.starts_with("pomguard apply") => {
                assert!(opens(&lab.stranger, SERVER, LISTED), "pom3 has joined");
            }
            ("Roll back", "pomguard rollback") => {
                assert!(is_shut(&lab.stranger, SERVER, LISTED), "as in change 13");
            }
            ("Roll back", line) if line.starts_with("pomguard rollback 12") => {
                assert!(opens(&lab.stranger, SERVER, LISTED), "as in change 12");
            }
            ("Emergency", "pomguard allow --list") => {
                for exception in ["exception/1", "exception/update", "exception/desktops"] {
                    assert!(said.contains(exception), "{said}");
                }
            }
            ("Emergency", "pomguard revoke update") => {
                assert!(!done(lab, &["allow", "--list"]).contains("update"));
            }
            ("Emergency", line) if line.starts_with("pomguard bypass --for") => {
                assert!(opens(&lab.stranger, SERVER, UNLISTED), "nothing is dropped");
            }
            ("Emergency", line) if line.starts_with("pomguard lockdown") => {
                assert!(is_shut(&lab.peer, SERVER, LISTED), "no row holds but failsafe ones");
            }
            ("Emergency", "pomguard bypass --off") => assert!(known() && unknown()),
            ("Emergency", "pomguard detach --yes") => {
                assert!(opens(&lab.stranger, SERVER, UNLISTED), "open");
            }
            ("When something is not as it should be", line) if line.starts_with("journalctl") => {
                assert!(said.contains("pinned again"), "{said}");
            }
            ("Stop, restart, upgrade", "systemctl stop pomguard") => {
                assert!(known() && unknown(), "it goes on enforcing");
            }
            ("Stop, restart, upgrade", "systemctl start pomguard" | "systemctl restart pomguard") => {
                assert!(known() && unknown());
                assert!(lab.stats().total("inbound", "dropped") > 0, "counters stay");
            }
            ("Stop, restart, upgrade", "pomguard check") => assert!(said.contains("map-layout"), "{said}"),
            ("Stop, restart, upgrade", "pomguard plan") => {
                assert!(said.contains("counters go on") && unknown(), "{said}");
                self.start("pomguard");
                let status = done(&self.lab, &["status"]);
                assert!(status.contains("anew"), "{status}");
                assert!(is_shut(&self.lab.peer, SERVER, UNLISTED));
            }
            ("Remove", "pomguard detach --yes") => assert!(opens(&lab.stranger, SERVER, UNLISTED), "open"),
            ("Remove", line) if line.starts_with("systemctl disable") => {
                assert!(lab.pinned().is_empty(), "{:?}", lab.pinned());
                assert_eq!(lab.xdp_program(), None);
                assert!(lab.try_metrics().is_none(), "the exporter has ended");
            }
            _ => {}
        }
    }
}

#[test]
fn operations_page_commands_work_from_first_to_last() {
    let Some(lab) = Lab::new("operations_page_commands_work_from_first_to_last") else {
        return;
    };
    let mut operator = Operator::at(lab);
    let commands = commands();
    assert!(commands.len() >= 35, "only {} commands were found", commands.len());
    for (title, line) in commands {
        operator.before(title, line);
        // `plan` exits with 3 if there is a difference: where the page has just described a change.
        let planned = line == "pomguard plan" && matches!(title, "Promote" | "Change");
        let said = operator.types(line, if planned { 3 } else { 0 });
        operator.after(title, line, &said);
    }
}
