//! A daemon whose clocks differ from the machine's: a time namespace shifts the monotonic clock, and a
//! library steps the wall clock while the daemon runs. No other process is affected.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::Command,
};

use nix::{
    sched::{CloneFlags, setns, unshare},
    time::{ClockId, clock_gettime},
};

use crate::daemon::{Daemon, Lab};

/// The loader replaces `$LIB` by the folder's name on this machine.
const LIBRARY: &str = "/usr/$LIB/faketime/libfaketime.so.1";

/// The wall clock of a laboratory's daemons.
#[derive(Debug)]
pub struct WallClock(PathBuf);

impl WallClock {
    /// Returns the wall clock of the daemons of a laboratory, which is right until `step` changes it.
    pub fn new(lab: &Lab) -> Self {
        let clock = Self(lab.file("clock"));
        clock.step(0);
        clock
    }

    /// Starts a daemon with this wall clock, whose monotonic clock is `ahead` seconds ahead of the kernel's.
    pub fn daemon(&self, lab: &Lab, ahead: i64) -> Daemon {
        let offsets = format!("monotonic {ahead} 0\nboottime {ahead} 0\n");
        let daemon = Daemon::spawn_prepared(lab, |command| {
            // A command and a daemon in one namespace judge a late request alike.
            if ahead != 0 {
                enter_time_namespace(command, offsets);
            }
            command
                .env("LD_PRELOAD", LIBRARY)
                .env("FAKETIME_TIMESTAMP_FILE", &self.0)
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
                .env("NO_FAKE_STAT", "1");
        });
        daemon.wait_ready();
        daemon
    }

    /// Sets the wall clock so many seconds ahead of the machine's (negative: behind it).
    pub fn step(&self, seconds: i64) {
        // Written by a rename in one step, because the daemon may read the file at any moment.
        let next = self.0.with_extension("next");
        fs::write(&next, format!("{seconds:+}\n")).unwrap();
        fs::rename(&next, &self.0).unwrap();
    }
}

/// Returns the largest possible negative shift of the monotonic clock in seconds, at most an hour: the clock
/// cannot go below 0.
pub fn behind() -> i64 {
    let up = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap().tv_sec();
    -(up / 2).min(3_600)
}

/// Makes the command start in a time namespace of its own.
fn enter_time_namespace(command: &mut Command, offsets: String) {
    let enter = move || -> io::Result<()> {
        unshare(CloneFlags::from_bits_retain(libc::CLONE_NEWTIME))?;
        File::options().write(true).open("/proc/self/timens_offsets")?.write_all(offsets.as_bytes())?;
        let namespace = File::open("/proc/self/ns/time_for_children")?;
        Ok(setns(namespace, CloneFlags::empty())?)
    };
    // SAFETY: between fork and exec the closure makes system calls on short paths, and allocates nothing.
    unsafe {
        command.pre_exec(enter);
    }
}
