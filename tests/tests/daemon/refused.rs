//! Starts at which the kernel refuses the programs and no program of pomguard is attached: the host is closed
//! except for failsafe rows, or open, and the daemon always reports which.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions, Xdp};
use aya_obj::programs::XdpAttachType;
use nix::mount::{MsFlags, mount, umount};
use pomguard::{
    input::settings::Attach,
    kernel::{
        minimal::{Closing, Content},
        pins::Pins,
    },
};
use pomguard_common::{
    Direction,
    names::{PROGRAM_EGRESS, PROGRAM_INGRESS},
    parse::Parsed,
};
use pomguard_tests::{
    control_state::ControlState,
    daemon::{
        Daemon, LISTED, LISTED_OUT, Lab, PEER, REMOVABLE, SERVER, SERVER6, UNLISTED, binary, emulated,
        is_shut, opens,
    },
    faults::trace,
    harness::Subject as _,
    host_datapath::HostDatapath,
    random::{self, Random, Stream},
};

use crate::{
    cli::{done, said},
    watch::{is_state, wait_until},
};

/// CAP_PERFMON: without this capability the verifier accepts no access at a variable offset, and refuses the
/// programs.
const PERFMON: libc::c_ulong = 38;
/// The folder with the setting of the kernel's compiler.
const SETTINGS_OF_NET: &str = "/proc/sys/net/core";
/// The port of the failsafe row of the site file below, for the peer. No other row lists this port.
const FAILSAFE: u16 = UNLISTED;
/// The failsafe row.
const WAY_IN: &str = "[[allow]]\nname = \"way-in\"\nfrom = [\"10.77.0.2\", \"fd00:77::2\"]\nto = [\"server\"]\nprotocol = \"tcp\"\n\
                      ports = \"9000\"\nfailsafe = true\n";

/// Returns a laboratory that enforced a confirmed policy with a failsafe row once, in the state after a
/// reboot.
fn rebooted(test: &str) -> Option<Lab> {
    let lab = Lab::new(test)?;
    lab.write_site(WAY_IN);
    reboot(&lab, Daemon::start(&lab));
    Some(lab)
}

fn reboot(lab: &Lab, daemon: Daemon) {
    assert!(daemon.stop().success());
    done(lab, &["detach", "--yes"]);
    assert!(opens(&lab.stranger, SERVER, LISTED), "nothing is in force");
}

/// Starts a daemon for which the kernel refuses every call of bpf(2).
fn without_bpf(lab: &Lab) -> Daemon {
    let mut options = trace::follow("bpf", &lab.file("bpf-calls"));
    options.extend(["-e", "inject=bpf:error=EPERM"].map(str::to_owned));
    Daemon::spawn_by(lab, &trace::words(&options, &binary()))
}

#[test]
fn kernel_that_interprets_programs_is_refused_with_the_remedy() {
    let Some(lab) = rebooted("kernel_that_interprets_programs_is_refused_with_the_remedy") else { return };
    // Each network namespace has a folder of its own there.
    let cover = || {
        mount(Some("tmpfs"), SETTINGS_OF_NET, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        fs::write(Path::new(SETTINGS_OF_NET).join("bpf_jit_enable"), "0\n").unwrap();
    };
    lab.server.run(cover).unwrap();
    let daemon = Daemon::start(&lab);
    assert_announced(&lab, "sysctl -w net.core.bpf_jit_enable=1", "interpreted");
    assert_closed(&lab, "interpreted");
    daemon.stop();
    lab.server.run(|| umount(SETTINGS_OF_NET).unwrap()).unwrap();
    let _daemon = Daemon::start(&lab);
    assert!(opens(&lab.peer, SERVER, LISTED) && is_shut(&lab.peer, SERVER, REMOVABLE + 1), "compiled");
}

/// Clears the neighbour tables: neighbours that were learned before do not show that they can be learned now.
fn forget_neighbours(lab: &Lab) {
    for machine in [&lab.server, &lab.peer] {
        for family in ["-4", "-6"] {
            let output =
                machine.command("ip").unwrap().args([family, "neigh", "flush", "all"]).output().unwrap();
            assert!(output.status.success(), "{}", said(&output));
        }
    }
}

fn assert_closed(lab: &Lab, when: &str) {
    forget_neighbours(lab);
    assert!(opens(&lab.peer, SERVER, FAILSAFE), "{when}: the way in");
    assert!(opens(&lab.peer, SERVER6, FAILSAFE), "{when}: the way in, IPv6");
    for (who, from, port) in [
        ("a stranger at the failsafe port", &lab.stranger, FAILSAFE),
        ("a stranger", &lab.stranger, LISTED),
        ("a known peer at a listed port", &lab.peer, LISTED),
        ("a known peer at another port", &lab.peer, REMOVABLE),
    ] {
        assert!(is_shut(from, SERVER, port), "{when}: {who}");
        assert!(is_shut(from, SERVER6, port), "{when}: {who}, IPv6");
    }
    assert!(is_shut(&lab.server, PEER, LISTED_OUT), "{when}: what the host opens");
}

/// Asserts the first line of `status` and its exit code, which do not depend on the daemon.
fn assert_announced(lab: &Lab, words: &str, when: &str) {
    let output = lab.pomguard(&["status"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(3), "{when}: {text}");
    let first = text.lines().next().unwrap_or_default();
    assert!(first.starts_with("ATTENTION: not-enforcing: ") && first.contains(words), "{when}: {text}");
}

/// The kernel's log, which the console shows, from one moment on.
struct KernelLog(File);

impl KernelLog {
    /// Opens the log at its end.
    fn from_now() -> Self {
        let mut log = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg").unwrap();
        log.seek(SeekFrom::End(0)).unwrap();
        Self(log)
    }

    /// Counts the new records that contain a text. Each read returns one record; other programs log as well.
    fn count(&mut self, text: &str) -> usize {
        let mut record = [0; 8_192];
        let mut found = 0;
        loop {
            match self.0.read(&mut record) {
                Ok(length) => found += usize::from(String::from_utf8_lossy(&record[..length]).contains(text)),
                // Records were overwritten before they were read.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return found,
                Err(error) => panic!("/dev/kmsg: {error}"),
            }
        }
    }
}

#[test]
fn refused_programs_close_all_but_failsafe_rows() {
    let Some(lab) = rebooted("refused_programs_close_all_but_failsafe_rows") else {
        return;
    };
    let mut log = KernelLog::from_now();
    let daemon = Daemon::spawn_without(&lab, PERFMON);
    let status = daemon.wait_ready();
    assert!(status.starts_with("not-enforcing: "), "{status}");
    assert_announced(&lab, "eth0 by the minimal program", "with the daemon");
    assert_closed(&lab, "by the minimal program");
    assert!(is_state(&lab, "not-enforcing"));
    assert_eq!(log.count("the host is closed"), 1, "the console is told once");
    let refusal = said(&lab.pomguard(&["apply"]));
    assert!(refusal.contains("no `apply` now"), "{refusal}");

    let status = daemon.stop();
    assert_eq!(status.code(), Some(3), "it did not enforce");
    assert_closed(&lab, "with the daemon gone");
    assert_announced(&lab, "eth0 by the minimal program", "without the daemon");

    // The same start once more, as systemd would try it: the daemon continues from the present state.
    let daemon = Daemon::spawn_without(&lab, PERFMON);
    daemon.wait_ready();
    assert_closed(&lab, "by the next daemon");
    daemon.kill();

    // The real programs take over the links, without a gap in between.
    let daemon = Daemon::start(&lab);
    assert!(opens(&lab.peer, SERVER, LISTED) && opens(&lab.server, PEER, LISTED_OUT));
    assert!(is_shut(&lab.stranger, SERVER, LISTED));
    wait_until("nothing of it is left", &daemon, || !is_state(&lab, "not-enforcing"));
    let left: Vec<_> =
        lab.pinned().into_iter().filter(|pin| pin.to_string_lossy().contains("minimal")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(lab.pomguard(&["status"]).status.success(), "{}", said(&lab.pomguard(&["status"])));
    reboot(&lab, daemon);
}

#[test]
fn refused_bpf_closes_by_one_nftables_table() {
    let Some(lab) = rebooted("refused_bpf_closes_by_one_nftables_table") else {
        return;
    };
    let daemon = without_bpf(&lab);
    daemon.wait_ready();
    assert_closed(&lab, "by nftables");
    assert_announced(&lab, "eth0 by nftables", "with the daemon");
    assert!(is_state(&lab, "not-enforcing"));
    daemon.kill();
    assert_closed(&lab, "by nftables, with the daemon dead");
    assert_announced(&lab, "eth0 by nftables", "without the daemon");

    let _daemon = Daemon::start(&lab);
    assert!(opens(&lab.peer, SERVER, LISTED) && opens(&lab.server, PEER, LISTED_OUT));
    assert!(is_shut(&lab.stranger, SERVER, LISTED));
    let tables = lab.command("nft").args(["list", "tables"]).output().unwrap();
    assert_eq!(said(&tables), "", "the table is gone");
}

#[test]
fn detach_opens_a_host_closed_for_refused_programs() {
    let Some(lab) = rebooted("detach_opens_a_host_closed_for_refused_programs") else { return };
    for bpf in [true, false] {
        let daemon = if bpf { Daemon::spawn_without(&lab, PERFMON) } else { without_bpf(&lab) };
        daemon.wait_ready();
        assert_closed(&lab, "before");
        done(&lab, &["detach", "--yes"]);
        assert!(opens(&lab.stranger, SERVER, LISTED), "with BPF {bpf}: detach opens the host");
        // The daemon that still runs does not change this.
        daemon.wait_log("`pomguard detach` opened this host");
        assert!(opens(&lab.stranger, SERVER, LISTED), "with BPF {bpf}: and it stays open");
        daemon.kill();
    }
}

#[test]
fn refused_programs_after_audit_leave_the_host_open() {
    let name = "refused_programs_after_audit_leave_the_host_open";
    let Some(lab) = Lab::new(name) else { return };
    let open = |when: &str| {
        let daemon = Daemon::spawn_without(&lab, PERFMON);
        daemon.wait_ready();
        assert!(opens(&lab.stranger, SERVER, LISTED), "{when}");
        assert_announced(&lab, "OPEN: nothing is filtered on eth0", when);
        assert!(is_state(&lab, "not-enforcing"), "{when}");
        assert_eq!(daemon.stop().code(), Some(3), "{when}");
    };
    open("never guarded");
    let settings = fs::read_to_string(lab.config()).unwrap();
    fs::write(lab.config(), settings.replace("inbound = \"enforce\"", "inbound = \"audit\"")).unwrap();
    reboot(&lab, Daemon::start(&lab));
    open("watched by audit");
    // The setting has precedence, also for a host that was never guarded, which gets the rows of its files.
    lab.write_site(WAY_IN);
    fs::remove_dir_all(lab.state()).unwrap();
    fs::write(lab.config(), settings.replace("[attach]", "[attach]\non_load_failure = \"closed\"")).unwrap();
    let daemon = Daemon::spawn_without(&lab, PERFMON);
    daemon.wait_ready();
    assert_closed(&lab, "by the setting");
    assert_eq!(daemon.stop().code(), Some(3));
    fs::write(lab.config(), settings.replace("[attach]", "[attach]\non_load_failure = \"open\"")).unwrap();
    done(&lab, &["detach", "--yes"]);
    reboot(&lab, Daemon::start(&lab));
    open("by the setting");
}

/// Returns true for sources that no stack accepts from a link: unspecified, loopback, groups, IPv4 within
/// IPv6 (including 6to4).
fn has_impossible_source(frame: &[u8]) -> bool {
    let frame = if frame.get(12..14) == Some(&[0x81, 0x00]) { &frame[4..] } else { frame };
    match (frame.get(12..14), frame.get(26), frame.get(22..38)) {
        (Some([0x08, 0x00]), Some(first), _) => matches!(first, 0 | 127 | 224..),
        (Some([0x86, 0xdd]), _, Some(source)) => {
            source[..8] == [0; 8] || source[0] == 0xff || source[..2] == [0x20, 0x02]
        }
        _ => false,
    }
}

/// A packet that the minimal program passes must also pass the real program without a policy, except for
/// packets that no TCP/IP stack accepts: random packets about random failsafe rows, in both directions.
#[test]
fn basic_minimal_program_passes_no_more_than_the_real_one() {
    let Some(lab) = Lab::new("basic_minimal_program_passes_no_more_than_the_real_one") else { return };
    let mut random = Random(0x00c1_05ed);
    let (mut passed, mut judged, mut stricter) = (0, 0, 0);
    for _ in 0..if emulated() { 2 } else { 40 } {
        let mut policy = random::policy(&mut random);
        policy.rows.iter_mut().for_each(|row| row.failsafe = true);
        // More failsafe tuples than the table has room for do not compile.
        let Ok(mut datapath) = HostDatapath::new(policy.clone()) else { continue };
        let tuples = datapath.in_force().overrides().unwrap();
        datapath.hold(&ControlState { no_policy: true, ..ControlState::default() }).unwrap();
        let content = Content { tuples, vlans: Vec::new(), dhcp: false, outbound: true };
        drop(Closing::begin(&Pins::new(lab.pins()), content, Attach::default()));
        let pinned = |name| lab.pins().join("minimal").join(name);
        let xdp = Xdp::from_pin(pinned(PROGRAM_INGRESS), XdpAttachType::Interface).unwrap();
        let tc = SchedClassifier::from_pin(pinned(PROGRAM_EGRESS)).unwrap();
        let mut stream = Stream::new(random);
        stream.aim(&policy.rows);
        for _ in 0..if emulated() { 100 } else { 2_000 } {
            let direction = stream.random.of(&Direction::ALL);
            let frame = stream.frame(direction);
            // The kernel runs a program on no other frames.
            if !(14..3_000).contains(&frame.len()) {
                continue;
            }
            let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::default() };
            let ran = match direction {
                Direction::Inbound => xdp.test_run(options),
                Direction::Outbound => tc.test_run(options),
            };
            // The kernel does not run a program on frames that are shorter than their headers.
            let Ok(ran) = ran else { continue };
            let verdict = ran.return_value;
            let pass = match direction {
                Direction::Inbound => verdict == 2,
                Direction::Outbound => verdict.cast_signed() == -1,
            };
            let real = datapath.judge(direction, &frame).unwrap();
            let unreadable = matches!(datapath.read(&frame), Parsed::Drop(_));
            if unreadable || has_impossible_source(&frame) {
                continue;
            }
            judged += 1;
            passed += u32::from(pass);
            stricter += u32::from(!pass && real.passes());
            assert!(
                !pass || real.passes(),
                "{}: the minimal program passes what the real one drops as {:?}: {frame:02x?}",
                direction.name(),
                real.reason
            );
        }
        random = stream.random;
    }
    println!("{judged} frames, {passed} passed by both, {stricter} by the real program alone");
    assert!(judged > if emulated() { 100 } else { 40_000 }, "{judged} frames");
    assert!(passed * 20 > judged, "{passed} of {judged} passed: the frames are about the rows");
}
