//! A terminal on which a user is logged in.

use std::{
    fs::{File, Permissions},
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
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
