//! The daemon's process, and its messages to systemd.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::PathBuf,
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        resource::{RLIM_INFINITY, Resource, setrlimit},
        signal::{Signal, kill},
        time::{TimeSpec, TimeValLike as _},
    },
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

use pomguard_netlab::{NOTIFY_SOCKET, Notify};

use super::{Lab, binary, patience};

/// The polling interval for events that nothing announces.
const BEAT: Duration = Duration::from_millis(20);

/// A running `pomguard run`. Dropping it kills the process.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
    notify: Notify,
}

impl Daemon {
    /// Starts the daemon and waits for the report that the policy is enforced.
    pub fn start(lab: &Lab) -> Self {
        let daemon = Self::spawn(lab);
        daemon.wait_ready();
        daemon
    }

    /// Starts the daemon.
    pub fn spawn(lab: &Lab) -> Self {
        Self::spawn_prepared(lab, |_| {})
    }

    /// Starts the daemon with additional environment variables.
    pub fn spawn_with(lab: &Lab, environment: &[(&str, &str)]) -> Self {
        Self::spawn_prepared(lab, |command| {
            command.envs(environment.iter().copied());
        })
    }

    /// Starts the daemon after `prepare` has changed the command. A `pre_exec` function that `prepare` adds
    /// runs with all capabilities.
    pub fn spawn_prepared(lab: &Lab, prepare: impl FnOnce(&mut Command)) -> Self {
        Self::spawn_as(lab, &[binary().into()], prepare)
    }

    /// Starts the daemon through another program, whose words precede the daemon's own arguments. The program
    /// must replace itself by the daemon, so that the process stays the same.
    pub fn spawn_by(lab: &Lab, words: &[OsString]) -> Self {
        Self::spawn_as(lab, words, |_| {})
    }

    /// Starts the daemon without one of the capabilities that the unit gives it. `capability` is the number
    /// in linux/capability.h.
    pub fn spawn_without(lab: &Lab, capability: libc::c_ulong) -> Self {
        Self::spawn_prepared(lab, |command| {
            let drop_it = move || {
                // SAFETY: takes no pointer.
                let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
                if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
            };
            // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
            unsafe {
                command.pre_exec(drop_it);
            }
        })
    }

    /// Starts the daemon with a log of its own: the log of an earlier daemon is another file.
    fn spawn_as(lab: &Lab, words: &[OsString], prepare: impl FnOnce(&mut Command)) -> Self {
        let number = (0..u32::MAX).find(|number| !lab.file(&format!("log{number}")).exists()).unwrap_or(0);
        let log = lab.file(&format!("log{number}"));
        let notify = Notify::bind(&lab.file(&format!("notify{number}"))).unwrap();
        let output = File::create(&log).unwrap();
        let (program, before) = words.split_first().expect("a program");
        let mut command = lab.command(program);
        prepare(&mut command);
        like_the_unit(&mut command);
        let child = command
            .args(before)
            .args(["run", "--config"])
            .arg(lab.config())
            .env(NOTIFY_SOCKET, notify.path())
            // The unit's StateDirectory= sets this variable.
            .env("STATE_DIRECTORY", lab.file("state"))
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Self { child, log, notify }
    }

    /// Waits for the daemon's report that the policy is enforced, and returns the status line.
    pub fn wait_ready(&self) -> String {
        let said = self.wait_told(|line| line == "READY=1");
        said.lines().find_map(|line| line.strip_prefix("STATUS=")).unwrap_or_default().to_owned()
    }

    /// Waits until the daemon sends systemd a message with a line that `expected` accepts, and returns the
    /// whole message.
    fn wait_told(&self, expected: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + patience(30);
        while Instant::now() < until {
            assert!(self.alive(), "the daemon ended; its log:\n{}", self.log());
            if let Some(said) = self.notify.next().unwrap()
                && said.lines().any(&expected)
            {
                return said;
            }
        }
        panic!("not told; the log:\n{}", self.log());
    }

    /// Counts the watchdog messages that the daemon sends within a time.
    pub fn fed(&self, within: Duration) -> usize {
        let until = Instant::now() + within;
        let mut fed = 0;
        while Instant::now() < until {
            let said = self.notify.next().unwrap().unwrap_or_default();
            fed += said.lines().filter(|line| *line == "WATCHDOG=1").count();
        }
        fed
    }

    /// Sends SIGHUP, waits until the reload that it starts is complete, and returns the status line.
    pub fn reload(&self) -> String {
        let asked = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
        self.signal(Signal::SIGHUP);
        // A message about a reload that began before the signal does not count.
        self.wait_told(|line| {
            let began = line.strip_prefix("MONOTONIC_USEC=").and_then(|it| it.parse().ok());
            began.is_some_and(|began| TimeSpec::microseconds(began) >= asked - TimeSpec::microseconds(1))
        });
        self.wait_ready()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Sends SIGKILL and waits for the end of the process.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "its log:\n{}", self.log());
    }

    /// Sends SIGKILL after a delay. Returns the exit status and the log: the daemon may have ended before.
    pub fn kill_after(mut self, delay: Duration) -> (ExitStatus, String) {
        thread::sleep(delay);
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        (status, self.log())
    }

    /// Returns the exit status if the daemon has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Returns the process id of the daemon.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM and returns the exit status.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait_end()
    }

    /// Waits until the daemon ends, and returns the exit status.
    pub fn wait_end(&mut self) -> ExitStatus {
        let until = Instant::now() + patience(30);
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            thread::sleep(BEAT);
        }
        panic!("it does not end; the log:\n{}", self.log());
    }

    /// Waits until the log contains `words`.
    pub fn wait_log(&self, words: &str) {
        let until = Instant::now() + patience(30);
        while !self.log().contains(words) {
            assert!(Instant::now() < until, "never said {words:?}; the log:\n{}", self.log());
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Returns everything that the daemon has written so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Returns true if the process exists and is not a zombie (state Z). Waiting for the process would need
    /// the child to be ours alone.
    fn alive(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }
}

/// Gives the command the capabilities of config/systemd/pomguard.service and no others, so that an operation
/// that needs more fails here as it would in the service.
fn like_the_unit(command: &mut Command) {
    /// Capability numbers of linux/capability.h: CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF.
    const KEPT: [libc::c_ulong; 3] = [12, 38, 39];
    // SAFETY: between fork and exec the closure makes system calls and allocates nothing.
    unsafe {
        command.pre_exec(|| {
            // The unit's LimitMEMLOCK=. Some environments refuse it even to root; only kernels before 5.11
            // need it.
            let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
            for capability in (0..64).filter(|number| !KEPT.contains(number)) {
                // The kernel refuses numbers beyond its last capability.
                libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
            }
            Ok(())
        });
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
