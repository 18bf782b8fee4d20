//! Timed exceptions on disk. A reboot empties the kernel's maps; the file keeps the exceptions until their end.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    history::{By, replace_or_overwrite},
    policy::{Direction, Mode, Origin, Peer, PortRange, Row, RowId, Service, oracle::Opening},
};

/// Size limit in bytes of a file to read: 64 exceptions are far below this size.
const LARGEST: u64 = 1 << 20;

/// A timed exception.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    /// Name of the exception, which is counted as `exception/NAME`.
    pub name: String,
    /// The direction in which connections are opened.
    pub direction: Direction,
    /// The peers.
    pub peers: Vec<IpNet>,
    /// The services to which connections may be opened.
    pub services: Vec<Service>,
    /// Seconds since 1970 when the exception was granted.
    pub granted: u64,
    /// Duration in seconds.
    pub seconds: u32,
    /// The boot that `deadline` belongs to.
    pub boot: String,
    /// The tick in that boot at which the exception ends.
    pub deadline: u32,
    /// The process that asked for the exception.
    pub by: By,
    /// The operator's reason.
    pub why: Option<String>,
}

impl Exception {
    /// Returns true if the exception allows a connection that is opened this way, by the wall clock.
    #[must_use]
    pub fn allows(&self, opening: &Opening, now: u64) -> bool {
        let peer = match self.direction {
            Direction::Inbound => opening.source,
            Direction::Outbound => opening.destination,
        };
        let serves = |service: &Service| {
            let ported = matches!(service.protocol, 6 | 17);
            service.protocol == opening.protocol
                && (!ported || service.ports.contains(opening.destination_port))
        };
        opening.direction == self.direction
            && now < self.granted.saturating_add(self.seconds.into())
            && self.peers.iter().any(|prefix| prefix.contains(&peer))
            && self.services.iter().any(serves)
    }

    /// Returns the exception in the form of a row.
    #[must_use]
    pub fn row(&self) -> Row {
        let origin = Origin { file: "exception".into(), line: 1 };
        let peer = |prefix: &IpNet| Peer {
            prefix: *prefix,
            name: prefix.to_string().into(),
            origin: origin.clone(),
        };
        let others = self.peers.iter().map(|peer| peer.to_string().into()).collect();
        let here = vec!["this server".into()];
        let (source, destination) = match self.direction {
            Direction::Inbound => (others, here),
            Direction::Outbound => (here, others),
        };
        Row {
            id: RowId(format!("exception/{}", self.name)),
            direction: self.direction,
            source,
            destination,
            printed: String::new(),
            protocol: String::new(),
            peers: self.peers.iter().map(peer).collect(),
            client_ports: PortRange::ANY,
            services: self.services.clone(),
            mode: Mode::Enforce,
            failsafe: false,
            purpose: self.why.clone().unwrap_or_default(),
            origin: origin.clone(),
        }
    }

    /// Returns the seconds that are left after a reboot. The ticks of the former boot mean nothing then, so the
    /// wall clock decides. If the clock was set back, the result is at most the granted duration.
    #[must_use]
    pub fn left_after_reboot(&self, now: u64) -> u32 {
        let end = self.granted.saturating_add(self.seconds.into());
        u32::try_from(end.saturating_sub(now)).unwrap_or(u32::MAX).min(self.seconds)
    }
}

fn file(state: &Path) -> PathBuf {
    state.join("exceptions.json")
}

/// Reads the exceptions. Without a file there are none.
///
/// # Errors
/// If the file exists and cannot be used.
pub fn load(state: &Path) -> io::Result<Vec<Exception>> {
    let path = file(state);
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Ok(facts) if facts.len() > LARGEST => return Err(io::Error::other("it is too large to be ours")),
        _ => {}
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Writes the exceptions atomically. If the disk has no room for a new file, the old file takes a list that is
/// not longer: a start would grant a revoked exception again.
///
/// # Errors
/// If the disk cannot be written; the old file stays.
pub fn save(state: &Path, exceptions: &[Exception]) -> io::Result<()> {
    fs::create_dir_all(state)?;
    replace_or_overwrite(&file(state), &serde_json::to_vec_pretty(exceptions)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exception() -> Exception {
        Exception {
            name: "1".to_owned(),
            direction: Direction::Inbound,
            peers: vec!["10.9.0.7/32".parse().unwrap()],
            services: Vec::new(),
            granted: 1_000_000,
            seconds: 600,
            boot: "a".to_owned(),
            deadline: 7,
            by: By { uid: 0, pid: 1, login: None, claimed: None },
            why: Some("ticket".to_owned()),
        }
    }

    #[test]
    fn they_read_as_they_were_written_and_a_damaged_file_is_no_list() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load(folder.path()).unwrap(), []);
        save(folder.path(), &[exception()]).unwrap();
        assert_eq!(load(folder.path()).unwrap(), [exception()]);
        let path = file(folder.path());
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(load(folder.path()).is_err(), "cut at {length}");
        }
    }

    /// LC-23: the clock goes back, or far ahead.
    #[test]
    fn no_clock_grants_more_time_than_was_granted() {
        let exception = exception();
        for (now, left) in [(1_000_000, 600), (1_000_400, 200), (1_000_600, 0), (u64::MAX, 0), (0, 600)] {
            assert_eq!(exception.left_after_reboot(now), left, "{now}");
        }
    }
}
