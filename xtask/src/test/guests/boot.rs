//! One boot: the emulated machine, and the far ends of its cards.

use std::{
    ffi::OsString,
    io::{self, BufRead as _, BufReader},
    os::unix::net::{UnixDatagram, UnixListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use pomguard_netlab::outside::{CARDS, Cable, Card, FarEnds, Knocker, Step, Verdict};
use pomguard_workspace::process;

use super::monitor::Monitor;
use crate::test::other_kernel;

/// The seconds after which a guest is killed. The time of two guests depends on the load of the machine.
const TIMEOUT_SECONDS: &str = "900";
/// The processors of a guest: two, and room for more, as on a hypervisor that adds some at run time.
const PROCESSORS: &str = "2,maxcpus=128";
/// The name of the stream between the guest and its far ends.
const STREAM: &str = "outside";
/// The name of the socket of QEMU's monitor.
const MONITOR: &str = "monitor";
/// The name of the disk that keeps the saved state of the machine. The guest does not use it.
const DISK: &str = "state.qcow2";
/// The number of last lines that are shown if a guest fails.
const SHOWN: usize = 60;

/// The files that a boot needs.
#[derive(Clone, Copy)]
pub(super) struct Boot<'a> {
    pub(super) script: &'a Path,
    pub(super) binary: &'a Path,
    pub(super) test: &'a Path,
    /// True if the guest suspends itself (S3) as well.
    pub(super) suspends: bool,
}

/// The end of a boot.
pub(super) enum End {
    /// The guest reported these steps.
    Steps(Vec<Step>),
    /// The kernel is not available here.
    NotToBeHad,
}

impl Boot<'_> {
    /// Boots a kernel, and prints a line for each step.
    pub(super) fn run(self, kernel: &str) -> Result<End> {
        let folder = tempfile::tempdir().context("a folder for the sockets")?;
        let far_ends = far_ends(folder.path())?;
        let control = UnixListener::bind(folder.path().join(STREAM)).context("the stream's socket")?;
        // The thread ends with the guest, which closes the stream, or with this process if QEMU never
        // connects.
        let monitor = Monitor::new(&folder.path().join(MONITOR));
        thread::spawn(move || -> Result<()> {
            let (stream, _) = control.accept().context("the guest's stream")?;
            far_ends.serve_all(stream.try_clone().context("the guest's stream")?, stream, &monitor)
        });
        disk(&folder.path().join(DISK))?;
        let (output, write) = io::pipe().context("a pipe")?;
        let mut command = self.command(kernel, folder.path());
        command.stdin(Stdio::null()).stdout(write.try_clone().context("a pipe")?).stderr(write);
        let mut child = command.spawn().with_context(|| self.script.display().to_string())?;
        // Closes this process' own end of the pipe, so that the pipe ends with the guest.
        drop(command);
        let (mut steps, mut said) = (Vec::new(), Vec::new());
        for line in BufReader::new(output).split(b'\n') {
            let line = line.context("the guest's output")?;
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            match line.parse::<Step>() {
                Ok(step) => {
                    show(kernel, &step);
                    steps.push(step);
                }
                Err(_) => said.push(line),
            }
        }
        let status = child.wait().context("the guest")?.code();
        match status {
            Some(other_kernel::NOT_TO_BE_HAD) => Ok(End::NotToBeHad),
            // 101: a step failed, possibly a known failure.
            Some(0 | 101) if steps.last().is_some_and(|step| step.steps().is_some()) => Ok(End::Steps(steps)),
            status => {
                let last = &said[said.len().saturating_sub(SHOWN)..];
                println!("Linux {kernel}: the end of what the guest said:\n{}", last.join("\n"));
                let last = steps.last().map_or("none", |step| &step.name);
                let how = match status {
                    Some(124) => format!("was not done after {TIMEOUT_SECONDS} s"),
                    Some(code) => format!("ended with {code}"),
                    None => "ended by a signal".to_owned(),
                };
                bail!("the guest {how}; the last step was: {last}")
            }
        }
    }

    fn command(self, kernel: &str, folder: &Path) -> Command {
        let mut command = Command::new(self.script);
        command.args(["--timeout", TIMEOUT_SECONDS, "--mem", "2048", "--smp", PROCESSORS]);
        for module in ["vmxnet3", "virtio_console", "bonding", "8021q"] {
            command.args(["--module", module]);
        }
        for file in [self.binary, self.test] {
            command.arg("--file").arg(other_kernel::at_the_same_path(file));
        }
        let mut qemu = |words: &[OsString]| {
            for word in words {
                command.arg("--qemu-arg").arg(word);
            }
        };
        for card in CARDS {
            let [near, far] = [near(folder, card), far(folder, card)].map(|path| path.display().to_string());
            let mac = card.segment.server_mac().map(|byte| format!("{byte:02x}")).join(":");
            qemu(&[
                "-netdev".into(),
                format!(
                    "dgram,id={0},local.type=unix,local.path={near},remote.type=unix,remote.path={far}",
                    card.driver
                )
                .into(),
                "-device".into(),
                format!("{},netdev={},mac={mac},romfile=", card.device, card.driver).into(),
            ]);
        }
        let stream = folder.join(STREAM);
        qemu(&[
            "-chardev".into(),
            format!("socket,id={STREAM},path={}", stream.display()).into(),
            "-device".into(),
            "virtio-serial-pci".into(),
            "-device".into(),
            format!("virtserialport,chardev={STREAM},name={STREAM}").into(),
        ]);
        let (monitor, disk) = (folder.join(MONITOR), folder.join(DISK));
        qemu(&[
            "-qmp".into(),
            format!("unix:{},server=on,wait=off", monitor.display()).into(),
            "-drive".into(),
            format!("if=none,id=state,format=qcow2,file={}", disk.display()).into(),
        ]);
        if self.suspends {
            command.args(["--env", "POMGUARD_SUSPEND=1"]);
        }
        command.args(["--env", "POMGUARD_EMULATED=1", "--env"]);
        command.arg(format!("POMGUARD_BIN={}", self.binary.display()));
        command.args([kernel, "--"]).arg(self.test);
        command.args(["--ignored", "--nocapture", "--test-threads=1", "basic_guest"]);
        command
    }
}

fn show(kernel: &str, step: &Step) {
    if step.steps().is_some() {
        return;
    }
    let Step { name, seconds, note, .. } = step;
    match &step.verdict {
        Verdict::Passed => println!("Linux {kernel}: {seconds:6.1} s  {name}: {note}"),
        Verdict::Failed => println!("Linux {kernel}: {seconds:6.1} s  {name}: FAILED: {note}"),
        Verdict::NotReached(cause) => println!("Linux {kernel}:           {name}: not reached: {cause}"),
    }
}

/// Makes the disk for the saved state. It grows as far as needed.
fn disk(path: &Path) -> Result<()> {
    process::run(Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(path).arg("1M"))
        .context("make the disk for the saved state")
}

/// Returns the path of QEMU's end of a card's cable.
fn near(folder: &Path, card: Card) -> PathBuf {
    folder.join(format!("{}.near", card.driver))
}

/// Returns the path of this process' end of a card's cable.
fn far(folder: &Path, card: Card) -> PathBuf {
    folder.join(format!("{}.far", card.driver))
}

/// Starts the far ends of all cards.
fn far_ends(folder: &Path) -> Result<FarEnds> {
    let mut knockers = Vec::new();
    for card in CARDS {
        let socket = UnixDatagram::bind(far(folder, card)).context("the far end of a card")?;
        socket.set_read_timeout(Some(Duration::from_millis(100))).context("the far end of a card")?;
        socket.set_write_timeout(Some(Duration::from_secs(1))).context("the far end of a card")?;
        let cable = Datagrams { socket, near: near(folder, card) };
        let knocker = Knocker::start(cable, card.segment).context("the far end of a card")?;
        knockers.push((card.driver.to_owned(), knocker));
    }
    Ok(FarEnds::new(knockers))
}

/// A cable to a card of QEMU: a datagram for each frame.
struct Datagrams {
    socket: UnixDatagram,
    near: PathBuf,
}

impl Cable for Datagrams {
    fn send(&self, frame: &[u8]) -> io::Result<()> {
        use io::ErrorKind::{ConnectionRefused, NotFound, WouldBlock};
        match self.socket.send_to(frame, &self.near) {
            // QEMU is not there yet, or has gone; or the guest took no frame for a second. A card would lose
            // the frame, too.
            Err(error) if matches!(error.kind(), NotFound | ConnectionRefused | WouldBlock) => Ok(()),
            sent => sent.map(drop),
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.recv(buffer)
    }
}
