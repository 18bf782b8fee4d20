//! A terminal on which a user is logged in.

use std::{
    fs::{File, Permissions},
    io::{Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    pty::openpty,
};

use super::patience;

/// A terminal that accepts messages.
#[derive(Debug)]
pub struct Terminal {
    screen: File,
    /// Kept open: without this end the terminal does not exist.
    _line: File,
}

impl Terminal {
    /// Opens a terminal, with the permissions that `mesg y` sets.
    pub fn open() -> Self {
        let ends = openpty(None, None).unwrap();
        let (screen, line) = (File::from(ends.master), File::from(ends.slave));
        line.set_permissions(Permissions::from_mode(0o620)).unwrap();
        fcntl(&screen, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        Self { screen, _line: line }
    }

    /// Waits until the words are on the screen.
    pub fn wait_for(&mut self, words: &str) {
        let until = Instant::now() + patience(30);
        let mut shown = String::new();
        let mut buffer = [0; 4096];
        while !shown.contains(words) {
            assert!(Instant::now() < until, "not on the screen: {words}; what is: {shown}");
            match self.screen.read(&mut buffer) {
                Ok(length) => shown.push_str(&String::from_utf8_lossy(&buffer[..length])),
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

/// Runs a command on a terminal that reports no columns, with these answers typed. Returns the standard output,
/// and the echo of the answers.
///
/// # Panics
/// If the command cannot be run.
pub fn on_terminal(command: &mut Command, answers: &str) -> String {
    let ends = openpty(None, None).unwrap();
    let (mut screen, line) = (File::from(ends.master), File::from(ends.slave));
    screen.write_all(answers.as_bytes()).unwrap();
    fcntl(&screen, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    command.stdin(line.try_clone().unwrap()).stdout(line.try_clone().unwrap()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let (mut shown, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let ended = child.try_wait().unwrap().is_some();
        match screen.read(&mut buffer) {
            Ok(length) => shown.extend_from_slice(&buffer[..length]),
            Err(_) if ended => break,
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
    drop(line);
    String::from_utf8_lossy(&shown).replace('\r', "")
}
