//! Locks, none of which an unprivileged user can hold (case f09).

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::sys::stat::{Mode, umask};
use pomguard_tests::daemon::{Daemon, LISTED, Lab, SERVER, UNLISTED, is_shut, opens};

use crate::cli::{done, said};

/// A process of an ordinary user that tries to lock a file, and keeps the lock until the value is dropped.
struct Nobody(Child);

impl Nobody {
    /// Starts the process and returns its result: `held`, or an empty text if the lock was refused.
    fn lock(path: &Path) -> (Self, String) {
        let script = "exec 9<\"$1\" && /usr/bin/flock --nonblock 9 && echo held && exec /bin/sleep 600";
        let mut command = Command::new("/usr/bin/setpriv");
        command.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--",
            "/bin/sh",
            "-c",
            script,
            "sh",
        ]);
        let mut child = command.arg(path).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (Self(child), line.trim().to_owned())
    }
}

impl Drop for Nobody {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the daemon like a shell with this umask.
fn start(lab: &Lab, mask: u32) -> Daemon {
    let daemon = Daemon::spawn_prepared(lab, |command| {
        let set = move || {
            umask(Mode::from_bits_truncate(mask));
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
        unsafe {
            command.pre_exec(set);
        }
    });
    daemon.wait_ready();
    daemon
}

/// Asserts that an ordinary user can hold neither lock, and so block neither a change nor the next start.
fn locks_are_private(lab: &Lab) {
    for name in ["pomguard.lock", "change.lock"] {
        let path = lab.runtime().join(name);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        let (_nobody, became) = Nobody::lock(&path);
        assert_eq!(became, "", "an ordinary user holds {name}");
    }
}

#[test]
fn f09_locks_are_private_whatever_the_umask() {
    let Some(lab) = Lab::new("f09_locks_are_private_whatever_the_umask") else { return };
    lab.let_others_in();
    for mask in [0o022, 0o000, 0o077] {
        let daemon = start(&lab, mask);
        fs::set_permissions(lab.runtime(), fs::Permissions::from_mode(0o755)).unwrap();
        locks_are_private(&lab);
        done(&lab, &["lockdown", "--for", "1m", "--yes", "--quiet", "--why", "x"]);
        done(&lab, &["bypass", "--off", "--quiet"]);
        locks_are_private(&lab);
        assert!(daemon.stop().success());
        fs::remove_dir_all(lab.runtime()).unwrap();
    }
    // A command in root's shell before the start of the daemon leaves no lock that others could hold, either.
    done(&lab, &["detach", "--yes"]);
    let daemon = start(&lab, 0o077);
    locks_are_private(&lab);
    drop(daemon);
}

/// An earlier version left locks that every user could open, and a user holds them.
#[test]
fn f09_held_locks_of_an_earlier_version_keep_nobody_up() {
    let Some(lab) = Lab::new("f09_held_locks_of_an_earlier_version_keep_nobody_up") else { return };
    lab.let_others_in();
    fs::create_dir_all(lab.runtime()).unwrap();
    let held = ["pomguard.lock", "change.lock"].map(|name| {
        let path = lab.runtime().join(name);
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let (nobody, became) = Nobody::lock(&path);
        assert_eq!(became, "held");
        nobody
    });
    let daemon = start(&lab, 0o022);
    locks_are_private(&lab);
    let begun = Instant::now();
    done(&lab, &["lockdown", "--for", "1m", "--yes", "--quiet", "--why", "x"]);
    done(&lab, &["bypass", "--off", "--quiet"]);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(opens(&lab.peer, SERVER, LISTED) && is_shut(&lab.stranger, SERVER, UNLISTED));
    let second = lab.pomguard(&["run"]);
    assert!(said(&second).contains("another pomguard runs already"), "{}", said(&second));
    drop((held, daemon));
}
