//! Output that cannot be written: a closed pipe and a full disk end the output of a command, never its work.

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io,
    process::{Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pomguard_tests::daemon::{
    Daemon, INTERFACE, LISTED, Lab, SERVER, Settings, UNLISTED, binary, is_shut, opens,
};

use crate::cli::{done, said};

/// A destination that accepts no byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sink {
    /// A pipe whose reader has gone, as after `| head -1`.
    ClosedPipe,
    /// A full disk.
    FullDisk,
}

impl Sink {
    const ALL: [Self; 2] = [Self::ClosedPipe, Self::FullDisk];

    fn open(self) -> Stdio {
        match self {
            Self::ClosedPipe => io::pipe().unwrap().1.into(),
            Self::FullDisk => full_disk().into(),
        }
    }
}

fn full_disk() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

/// Runs a command with such a destination for the output, and on request for errors. Asserts that the command
/// does not panic.
fn into_sink(mut command: Command, sink: Sink, errors_too: bool) -> ExitStatus {
    command.stdout(sink.open());
    command.stderr(if errors_too { sink.open() } else { Stdio::piped() });
    let output = command.output().unwrap();
    let message = said(&output);
    assert!(!message.contains("panicked"), "{command:?} into {sink:?}: {message}");
    assert!(output.status.code().is_some_and(|code| code != 101), "{command:?} into {sink:?}: {output:?}");
    output.status
}

/// Returns the commands that change nothing, each with the exit code when its output can be written.
fn readers(lab: &Lab) -> Vec<(Vec<&'static str>, i32)> {
    let pair = ["10.77.0.2", "10.77.0.1:9970/tcp"];
    let readers: [&[&str]; 18] = [
        &["check"],
        &["check", "--json"],
        &["plan"],
        &["history"],
        &["history", "--json"],
        &["allow", "--list"],
        &["status"],
        &["status", "--json"],
        &["stats"],
        &["stats", "--json"],
        &["stats", "--watch"],
        &["drops"],
        &["drops", "--json"],
        &["suggest"],
        &["doctor"],
        &["doctor", "--json"],
        &["explain", pair[0], pair[1]],
        &["explain", "--offline", pair[0], pair[1]],
    ];
    let code = |arguments: &[&'static str]| {
        if arguments.contains(&"--watch") {
            // This command ends only when its output fails.
            return 0;
        }
        let output = lab.pomguard(arguments);
        output.status.code().unwrap_or_else(|| panic!("{arguments:?}: {}", said(&output)))
    };
    readers.into_iter().map(|arguments| (arguments.to_vec(), code(arguments))).collect()
}

/// Returns the commands that change something, in an order in which each can succeed.
fn changes() -> Vec<Vec<&'static str>> {
    let why = ["--why", "test"];
    let changes: [&[&str]; 9] = [
        &["apply", "--confirm-within", "60s", "--quiet"],
        &["confirm", "--quiet"],
        &["rollback", "--quiet", "--json"],
        &["allow", "10.77.0.3", "to", "9000/tcp", "--for", "1h", "--name", "x"],
        &["allow", "10.77.0.3", "to", "9001/tcp", "--for", "1h", "--name", "y", "--json"],
        &["revoke", "x"],
        &["revoke", "y"],
        &["lockdown", "--for", "1m", "--yes", "--quiet"],
        &["bypass", "--off", "--quiet"],
    ];
    changes.into_iter().map(|words| [words, &why[..]].concat()).collect()
}

/// Returns the commands that the command line lists in its help.
fn verbs(lab: &Lab) -> BTreeSet<String> {
    let help = lab.command(binary()).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let list = help.split_once("Commands:").unwrap().1.split_once("Options:").unwrap().0;
    let entry = |line: &str| {
        let name = line.strip_prefix("  ")?.split_whitespace().next()?;
        (!line.starts_with("   ")).then(|| name.to_owned())
    };
    list.lines().filter_map(entry).filter(|name| name != "help").collect()
}

#[test]
fn every_verb_outlives_a_closed_pipe_and_a_full_disk() {
    let Some(lab) = Lab::new("every_verb_outlives_a_closed_pipe_and_a_full_disk") else { return };
    let mut tried: BTreeSet<String> = BTreeSet::new();
    let mut note = |arguments: &[&str]| tried.extend(arguments.first().map(|verb| (*verb).to_owned()));

    // The daemon itself, whose log cannot be written.
    for sink in Sink::ALL {
        note(&["run"]);
        let mut command = lab.pomguard_command(&["run"]);
        let mut child = command.stdout(sink.open()).stderr(sink.open()).spawn().unwrap();
        let guarded = (0..400).any(|_| {
            thread::sleep(Duration::from_millis(50));
            lab.xdp_program().is_some() && is_shut(&lab.stranger, SERVER, UNLISTED)
        });
        assert!(guarded && child.try_wait().unwrap().is_none(), "the daemon starts without its log");
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert!(child.wait().unwrap().success());
    }
    done(&lab, &["detach", "--yes"]);

    let daemon = Daemon::start(&lab);
    let bare: [&[&str]; 5] =
        [&["matrix", "list"], &["matrix", "lint", "--json"], &["completions", "bash"], &["man"], &["--help"]];
    let mut applied = 0;
    for sink in Sink::ALL {
        for errors_too in [false, true] {
            for (arguments, code) in readers(&lab) {
                note(&arguments);
                let status = into_sink(lab.pomguard_command(&arguments), sink, errors_too);
                // A reader that leaves early has seen enough. On a full disk the requested output is lost.
                let code = if sink == Sink::ClosedPipe { code } else { 1 };
                assert_eq!(status.code(), Some(code), "{arguments:?} into {sink:?}");
            }
            for arguments in bare {
                note(arguments);
                let mut command = lab.command(binary());
                command.args(arguments);
                let status = into_sink(command, sink, errors_too);
                let lost = sink == Sink::FullDisk && arguments != ["--help"];
                assert_eq!(status.code(), Some(i32::from(lost)), "{arguments:?} into {sink:?}");
            }
            for arguments in changes() {
                // Each `apply` finds other files: a change that changes nothing would leave nothing to roll back.
                if arguments[0] == "apply" {
                    applied += 1;
                    lab.write_site(&format!(
                        "[[allow]]\nname = \"more\"\nfrom = [\"10.77.1.{applied}\"]\nto = [\"every-host\"]\nprotocol = \"tcp\"\nports = \"9005\"\n"
                    ));
                }
                note(&arguments);
                let status = into_sink(lab.pomguard_command(&arguments), sink, errors_too);
                assert!(status.success(), "{arguments:?} into {sink:?}: {status}\n{}", daemon.log());
            }
            // A refusal ends with its own code, whether or not the reason can be written.
            let status = into_sink(lab.pomguard_command(&["revoke", "none"]), sink, errors_too);
            assert_eq!(status.code(), Some(1));
        }
        note(&["serve-metrics"]);
        let mut exporter = lab.command(binary());
        exporter.args(["serve-metrics", "--listen", "127.0.0.1:9844", "--runtime"]).arg(lab.runtime());
        let mut exporter = exporter.stdout(sink.open()).stderr(sink.open()).spawn().unwrap();
        thread::sleep(Duration::from_millis(500));
        assert!(exporter.try_wait().unwrap().is_none(), "the exporter serves without its log");
        kill(Pid::from_raw(exporter.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert!(exporter.wait().unwrap().success());
    }
    assert!(opens(&lab.peer, SERVER, LISTED) && is_shut(&lab.stranger, SERVER, UNLISTED));
    assert!(daemon.stop().success());
    note(&["detach"]);
    tried.remove("--help");
    assert_eq!(tried, verbs(&lab), "every verb of the command line is tried here");
}

/// `pomguard detach --yes | head -3` left the fifth of five cards attached.
#[test]
fn a_detach_into_a_closed_pipe_opens_every_interface() {
    let Some(lab) = Lab::new("a_detach_into_a_closed_pipe_opens_every_interface") else { return };
    const ALL: [&str; 5] = [INTERFACE, "br1", "br2", "br3", "br4"];
    for bridge in &ALL[1..] {
        lab.server.add_bridge(bridge).unwrap();
    }
    lab.write_settings(&Settings { interfaces: &ALL, ..Settings::default() });
    for sink in Sink::ALL {
        let daemon = Daemon::start(&lab);
        let links = lab.pinned().iter().filter(|path| path.to_string_lossy().contains("links/xdp-")).count();
        assert_eq!(links, ALL.len(), "all five are attached");
        assert!(daemon.stop().success());
        let status = into_sink(lab.pomguard_command(&["detach", "--yes"]), sink, false);
        assert!(status.success(), "the code tells of the change: {status}");
        assert!(lab.pinned().is_empty(), "{:?}", lab.pinned());
        for interface in ALL {
            let index = lab.server.link(interface).index().unwrap();
            let program = lab.server.run(|| pomguard::kernel::interface::xdp(index)).unwrap().unwrap();
            assert!(program.is_none(), "{interface} is still attached");
        }
        assert!(opens(&lab.stranger, SERVER, UNLISTED), "the host is open");
    }
}

/// Each form of an exception, above all one quoted argument: the advice of the error message, typed
/// literally.
#[test]
fn an_exception_may_be_one_quoted_argument() {
    let Some(lab) = Lab::new("an_exception_may_be_one_quoted_argument") else { return };
    let _daemon = Daemon::start(&lab);
    let forms: [&[&str]; 4] = [
        &["10.77.0.3 to 9000/tcp"],
        &["10.77.0.3 9000/tcp"],
        &["10.77.0.3", "9000/tcp"],
        &["10.77.0.3", "to", "9000/tcp"],
    ];
    for form in forms {
        assert!(is_shut(&lab.stranger, SERVER, UNLISTED));
        done(&lab, &[&["allow"], form, &["--for", "15m", "--why", "x", "--name", "x"]].concat());
        assert!(opens(&lab.stranger, SERVER, UNLISTED), "{form:?}");
        done(&lab, &["revoke", "x"]);
    }
    for wrong in [&["10.77.0.3"][..], &["to 9000/tcp"], &["10.77.0.3 to"], &["10.77.0.3 to 9000/tcp", "x"]] {
        let output = lab.pomguard(&[&["allow"], wrong, &["--for", "15m", "--why", "x"]].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", said(&output));
    }
}
