//! Timed exceptions on disk: what a reboot, which empties the kernel's maps, must not end before its time.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    history::{By, replace},
    policy::{Direction, Service, oracle::Opening},
};

/// Largest file that is read: 64 exceptions are far below it.
const LARGEST: u64 = 1 << 20;

/// Something that is let through for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    /// Its name: it is counted as `exception/NAME`.
    pub name: String,
    /// Who opens.
    pub direction: Direction,
    /// The other side.
    pub peers: Vec<IpNet>,
    /// What is opened to.
    pub services: Vec<Service>,
    /// Seconds since 1970 when it was granted.
    pub granted: u64,
    /// For how many seconds.
    pub seconds: u32,
    /// The boot that `deadline` belongs to.
    pub boot: String,
    /// The tick at which it ends, in that boot.
    pub deadline: u32,
    /// By whom.
    pub by: By,
    /// What for.
    pub why: Option<String>,
}

impl Exception {
    /// Returns true if a connection that is opened this way holds by the exception, by the wall clock.
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

    /// Seconds that are left after a reboot, when ticks mean nothing any more and the wall clock is all
    /// there is. A clock that went back grants no more than was granted.
    #[must_use]
    pub fn left_after_reboot(&self, now: u64) -> u32 {
        let end = self.granted.saturating_add(self.seconds.into());
        u32::try_from(end.saturating_sub(now)).unwrap_or(u32::MAX).min(self.seconds)
    }
}

fn file(state: &Path) -> PathBuf {
    state.join("exceptions.json")
}

/// Reads them; a file that is not there has none.
///
/// # Errors
/// When it is there and cannot be used.
pub fn load(state: &Path) -> io::Result<Vec<Exception>> {
    let path = file(state);
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Ok(facts) if facts.len() > LARGEST => return Err(io::Error::other("it is too large to be ours")),
        _ => {}
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Writes them, in one step.
///
/// # Errors
/// When the disk does not take it; the old file is there then.
pub fn save(state: &Path, exceptions: &[Exception]) -> io::Result<()> {
    fs::create_dir_all(state)?;
    replace(&file(state), &serde_json::to_vec_pretty(exceptions)?)
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
