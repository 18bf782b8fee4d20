//! Messages to systemd. Without systemd all functions do nothing. Nothing here waits: a systemd that does not
//! listen, because it hangs or is being replaced, must not delay the checks of enforcement.

use std::{
    collections::VecDeque,
    env,
    ffi::{OsStr, OsString},
    io, mem,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::{Duration, Instant},
};

use log::{info, warn};
use nix::time::{ClockId, clock_gettime};
use sd_notify::NotifyState;

use crate::observe::printable::printable;

/// The environment variable that names systemd's socket.
const SOCKET: &str = "NOTIFY_SOCKET";
/// The number of messages kept while systemd does not listen. Beyond that, the oldest is dropped: only the
/// present state matters.
const KEPT: usize = 64;

/// The connection to systemd, and the unit's watchdog.
pub(in crate::daemon) struct Systemd {
    /// `None` without systemd.
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// Messages that found no room in the socket, the oldest first.
    unsent: VecDeque<String>,
    /// True if the socket had no room at the last attempt.
    deaf: bool,
    /// The interval at which the watchdog is pinged; `None` if systemd does not expect pings.
    every: Option<Duration>,
    fed: Option<Instant>,
}

impl Systemd {
    /// Connects to the socket that the environment names.
    ///
    /// # Errors
    /// If there is a name and connecting fails.
    pub(in crate::daemon) fn of_environment() -> io::Result<Self> {
        Self::at(env::var_os(SOCKET), sd_notify::watchdog_enabled())
    }

    fn at(name: Option<OsString>, waits: Option<Duration>) -> io::Result<Self> {
        let socket = name.map(|name| connect(&name)).transpose()?;
        Ok(Self {
            socket,
            unsent: VecDeque::new(),
            deaf: false,
            every: waits.map(|waits| waits / 4),
            fed: None,
        })
    }

    /// Reports that the policy is in force: sent only when the policy is installed and the programs are
    /// attached.
    pub(in crate::daemon) fn ready(&mut self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(&printable(status))]);
    }

    /// Reports the present status.
    pub(in crate::daemon) fn status(&mut self, status: &str) {
        self.tell(&[NotifyState::Status(&printable(status))]);
    }

    /// Reports that the files are being taken anew. systemd 253 and later also needs the time.
    pub(in crate::daemon) fn reloading(&mut self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC)
            .map_or(0, |now| now.tv_sec() * 1_000_000 + now.tv_nsec() / 1_000);
        self.tell(&[NotifyState::Reloading, NotifyState::MonotonicUsec(i128::from(now))]);
    }

    /// Reports that the daemon is about to end.
    pub(in crate::daemon) fn stopping(&mut self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// Pings the watchdog: only after a check that found links, programs and policy intact or restored them,
    /// never by the clock alone. A late ping is not sent later: it would vouch for another time.
    pub(in crate::daemon) fn ping(&mut self) {
        let Some(every) = self.every else { return };
        let due = self.fed.is_none_or(|fed| fed.elapsed() >= every);
        if due && self.unsent.is_empty() && self.send(&message(&[NotifyState::Watchdog])).is_ok() {
            self.fed = Some(Instant::now());
        }
    }

    /// Sends messages that are still queued. Must be called regularly.
    pub(in crate::daemon) fn tell_again(&mut self) {
        while let Some(message) = self.unsent.front() {
            match self.send(message) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !mem::replace(&mut self.deaf, true) {
                        warn!("systemd does not listen: it is told later");
                    }
                    return;
                }
                Err(error) => warn!("systemd was not told: {error}"),
            }
            self.unsent.pop_front();
        }
        if mem::take(&mut self.deaf) {
            info!("systemd listens again");
        }
    }

    /// Queues the states after the messages that already wait: the order carries meaning.
    fn tell(&mut self, states: &[NotifyState<'_>]) {
        if self.unsent.len() == KEPT {
            self.unsent.pop_front();
        }
        self.unsent.push_back(message(states));
        self.tell_again();
    }

    fn send(&self, message: &str) -> io::Result<()> {
        let Some((socket, systemd)) = &self.socket else { return Ok(()) };
        socket.send_to_addr(message.as_bytes(), systemd).map(drop)
    }
}

fn message(states: &[NotifyState<'_>]) -> String {
    states.iter().map(|state| state.to_string() + "\n").collect()
}

/// Connects to the socket. A name that begins with `@` is in the abstract namespace.
fn connect(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let systemd = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, systemd))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a listening systemd, and the connection to it.
    fn pair() -> (tempfile::TempDir, UnixDatagram, Systemd) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let heard = UnixDatagram::bind(&path).unwrap();
        heard.set_nonblocking(true).unwrap();
        let systemd = Systemd::at(Some(path.into()), Some(Duration::ZERO)).unwrap();
        (folder, heard, systemd)
    }

    fn all(heard: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 4096];
        std::iter::from_fn(|| {
            let length = heard.recv(&mut buffer).ok()?;
            Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
        })
        .collect()
    }

    #[test]
    fn notice_without_room_is_sent_later_in_order_without_waiting() {
        let (_folder, heard, mut systemd) = pair();
        for number in 0..40 {
            systemd.status(&number.to_string());
        }
        assert!(!systemd.unsent.is_empty(), "the socket has no room for so many");
        let mut message = all(&heard);
        while !systemd.unsent.is_empty() {
            systemd.tell_again();
            message.extend(all(&heard));
        }
        let expected: Vec<_> = (0..40).map(|number| format!("STATUS={number}\n")).collect();
        assert_eq!(message, expected);
    }

    #[test]
    fn of_what_nobody_hears_the_newest_is_kept_and_no_ping() {
        let (_folder, heard, mut systemd) = pair();
        for number in 0..1_000 {
            systemd.status(&number.to_string());
        }
        systemd.ping();
        assert_eq!(systemd.unsent.len(), KEPT);
        let mut message = all(&heard);
        while !systemd.unsent.is_empty() {
            systemd.tell_again();
            message.extend(all(&heard));
        }
        assert!(message.iter().all(|message| message.starts_with("STATUS=")), "{message:?}");
        assert_eq!(message.last().unwrap(), "STATUS=999\n");
        systemd.ping();
        assert_eq!(all(&heard), ["WATCHDOG=1\n"], "one for now, none for then");
    }

    #[test]
    fn a_line_break_in_a_status_makes_no_other_message_of_it() {
        let (_folder, heard, mut systemd) = pair();
        systemd.ready("refused: site.toml\nWATCHDOG=trigger");
        assert_eq!(all(&heard), ["READY=1\nSTATUS=refused: site.toml\\nWATCHDOG=trigger\n"]);
    }

    #[test]
    fn a_name_in_the_abstract_namespace_is_found() {
        let name = format!("pomguard-test-{}", std::process::id());
        let heard = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        heard.set_nonblocking(true).unwrap();
        Systemd::at(Some(format!("@{name}").into()), None).unwrap().stopping();
        assert_eq!(all(&heard), ["STOPPING=1\n"]);
    }

    #[test]
    fn without_systemd_nothing_is_told_and_nothing_kept() {
        let mut systemd = Systemd::at(None, None).unwrap();
        systemd.ready("in force");
        assert!(systemd.unsent.is_empty());
    }
}
