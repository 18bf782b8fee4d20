//! The unit file under a real systemd: a small Debian in a container, on this machine's own kernel.

#![expect(clippy::unwrap_used, reason = "a panic keeps the place where it happened")]

use std::{
    env,
    ffi::OsString,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use pomguard_netlab::root_or_skip;
use pomguard_tests::daemon::binary;

/// The environment variable that holds another folder of the scripts that start the container.
const SCRIPTS: &str = "POMGUARD_VM_SCRIPTS";
/// The exit code of the script if the container cannot run here.
const NOT_TO_BE_HAD: i32 = 69;

/// The script for the container. Each of its lines must succeed.
const GUEST: &str = "set -e
# The files come in read-only: they are to change.
mkdir /run/etc; cp /etc/pomguard/* /run/etc; mount --bind /run/etc /etc/pomguard
ip link add eth0 type veth peer name eth1
ip addr add 10.77.0.1/24 dev eth0
ip link set eth0 up; ip link set eth1 up
systemd-tmpfiles --create /usr/lib/tmpfiles.d/pomguard.conf
attached() { pomguard stats --json | grep -q '\"xdp\": \"native\"'; }
generation() { pomguard stats --json | sed -n 's/.*\"generation\": \\([0-9]*\\).*/\\1/p'; }
started() { echo \"done: $1\"; }

systemctl start pomguard
attached; started start

before=$(generation)
printf '[[allow]]\\nname = \"more\"\\nfrom = [\"10.77.0.9\"]\\nto = [\"every-host\"]\\nprotocol = \"tcp\"\\nports = \"9005\"\\n' >> /etc/pomguard/site.toml
systemctl reload pomguard
for beat in $(seq 100); do [ \"$(generation)\" -gt \"$before\" ] && break; sleep 0.1; done
[ \"$(generation)\" -gt \"$before\" ]; started reload

cp /etc/pomguard/site.toml /run/good.toml
echo 'systems = 7' >> /etc/pomguard/site.toml
now=$(generation)
if systemctl reload pomguard; then exit 9; fi
[ \"$(generation)\" -eq \"$now\" ]
systemctl is-active pomguard
cp /run/good.toml /etc/pomguard/site.toml; started 'a reload of a broken file fails'

# Somebody else's terminal, that takes messages.
script --quiet --flush --command 'sleep 300' /run/screen >/dev/null </dev/null &
for beat in $(seq 100); do [ -c /dev/pts/0 ] && break; sleep 0.1; done
chown nobody:tty /dev/pts/0; chmod 620 /dev/pts/0
printf '[[allow]]\\nname = \"again\"\\nfrom = [\"10.77.0.8\"]\\nto = [\"every-host\"]\\nprotocol = \"tcp\"\\nports = \"9005\"\\n' >> /etc/pomguard/site.toml
pomguard apply --confirm-within 3s --quiet
for beat in $(seq 200); do grep -q 'because nobody confirmed it' /run/screen && break; sleep 0.1; done
grep -q 'because nobody confirmed it' /run/screen; started 'an automatic return is announced on the terminals'
pomguard apply --quiet

systemctl kill --kill-whom=main --signal=KILL pomguard
attached
for beat in $(seq 300); do systemctl is-active --quiet pomguard && break; sleep 0.1; done
systemctl is-active --quiet pomguard; attached; started 'again after a kill'

main() { systemctl show --property=MainPID --value pomguard; }
hung=$(main)
systemctl kill --kill-whom=main --signal=STOP pomguard
attached
for beat in $(seq 300); do [ \"$(main)\" != \"$hung\" ] && systemctl is-active --quiet pomguard && break; sleep 0.1; done
[ \"$(main)\" != \"$hung\" ]; systemctl is-active --quiet pomguard; attached
journalctl --unit pomguard | grep -qi 'watchdog timeout'; started 'again after it hung'

systemd-sysusers /usr/lib/sysusers.d/pomguard.conf
systemctl restart pomguard
systemctl start pomguard-exporter
page() { bash -c 'exec 3<>/dev/tcp/127.0.0.1/9843 && printf \"GET /metrics HTTP/1.0\\r\\n\\r\\n\" >&3 && cat <&3'; }
for beat in $(seq 100); do page 2>/dev/null | grep -q pomguard_build_info && break; sleep 0.1; done
page | grep -q 'pomguard_state{state=\"interface-missing\"} 0'
exporter=$(systemctl show --property=MainPID --value pomguard-exporter)
grep -q 'CapEff:.*0000000000000000' /proc/$exporter/status
[ \"$(stat --format=%u /proc/$exporter)\" -ne 0 ]
systemctl stop pomguard-exporter; started 'the exporter serves the page and has no power'

systemctl stop pomguard
attached; started 'stop, and it is still in force'

pomguard detach --yes
! ip -details link show eth0 | grep -q xdp
systemctl start pomguard
attached; started 'start after detach'

pomguard detach --yes
systemctl restart pomguard
attached; started 'restart after detach'

# As at a boot: nothing is in force, the interface is not there, and a peer knocks from the first moment.
systemctl stop pomguard
pomguard detach --yes
ip link del eth0
systemd-socket-activate --listen=9000 --listen=9970 --accept cat &
ip netns add peer
knock() { ip netns exec peer timeout 0.5 bash -c \": </dev/tcp/10.77.0.1/$1\" 2>/dev/null; }
(while [ ! -e /run/enough ]; do if knock 9000; then echo answered; fi; echo knocked; done) >/run/knocks &
systemctl start pomguard
systemctl is-active pomguard
ip link add eth0 type veth peer name eth0 netns peer
ip netns exec peer ip addr add 10.77.0.2/24 dev eth0
ip netns exec peer ip link set eth0 up
sleep 1
ip addr add 10.77.0.1/24 dev eth0
ip link set eth0 up
attached
for beat in $(seq 100); do knock 9970 && break; sleep 0.1; done
knock 9970
sleep 3
touch /run/enough
[ \"$(grep -c knocked /run/knocks)\" -ge 5 ]
! grep -q answered /run/knocks; started 'no denied SYN was answered from the first moment on'
";

fn skip(why: &str) {
    // Printed past the test runner's capture: a skipped test must not look like a test that ran.
    let _ = writeln!(std::io::stderr(), "skipped: the unit under systemd: {why}");
}

/// LC-01, LC-02, LC-18, LC-36, CP-13.
#[test]
fn units_work_through_start_reload_kill_hang_detach_and_boot() {
    if !root_or_skip("units_work_through_start_reload_kill_hang_detach_and_boot") {
        return;
    }
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let scripts: PathBuf = env::var_os(SCRIPTS).unwrap_or_else(|| "../shared/vm".into()).into();
    let script = tree.join(scripts).join("run-in-container.sh");
    if !script.is_file() {
        return skip(&format!("no {} ({SCRIPTS} names its folder)", script.display()));
    }
    let Output { status, stdout, stderr } = run(&script, tree);
    let said = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    if status.code() == Some(NOT_TO_BE_HAD) {
        return skip(&said);
    }
    if said.contains("GLIBC_") {
        return skip("this machine's C library is newer than the container's");
    }
    assert!(status.success(), "{status}:\n{said}");
}

/// Runs the script in the container, and shows the unit's journal if a command failed.
fn run(script: &Path, tree: &Path) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let etc = folder.path().join("etc");
    fs::create_dir(&etc).unwrap();
    fs::write(etc.join("pomguard.toml"), SETTINGS).unwrap();
    fs::write(etc.join("site.toml"), SITE).unwrap();
    // Shorter than the unit's own fifteen seconds, to save time.
    let watchdog = folder.path().join("watchdog.conf");
    fs::write(&watchdog, "[Service]\nWatchdogSec=3s\n").unwrap();
    let guest = folder.path().join("guest.sh");
    fs::write(&guest, GUEST).unwrap();
    let mut command = Command::new(script);
    command.args(["--timeout", "180"]);
    for (here, there) in [
        (&binary(), "/usr/sbin/pomguard"),
        (&tree.join("config/systemd/pomguard.service"), "/etc/systemd/system/pomguard.service"),
        (&watchdog, "/etc/systemd/system/pomguard.service.d/watchdog.conf"),
        (
            &tree.join("config/systemd/pomguard-exporter.service"),
            "/etc/systemd/system/pomguard-exporter.service",
        ),
        (&tree.join("config/systemd/pomguard.sysusers.conf"), "/usr/lib/sysusers.d/pomguard.conf"),
        (&tree.join("config/systemd/pomguard.tmpfiles.conf"), "/usr/lib/tmpfiles.d/pomguard.conf"),
        (&etc, "/etc/pomguard"),
        (&guest, "/usr/share/guest.sh"),
    ] {
        let mut pair = OsString::from(here);
        pair.push(":");
        pair.push(there);
        command.arg("--file").arg(pair);
    }
    let commands =
        "sh -x /usr/share/guest.sh && exit 0; journalctl --unit pomguard --no-pager | tail -n 40; exit 1";
    command.args(["bookworm", "--", "sh", "-c", commands]);
    command.stdin(Stdio::null()).output().unwrap()
}

const SETTINGS: &str = r#"site = "site.toml"
host = "server"
interfaces = ["eth0"]

[enforcement]
inbound = "enforce"
"#;

const SITE: &str = r#"matrix = "pom-4.0"
zones = 1

[[host]]
name = "server"
addresses = ["10.77.0.1"]
systems = ["Agent Manager"]

[[peer]]
addresses = ["10.77.0.2"]
systems = ["Agent Desktop"]
"#;
