//! Enters flows that exist before the programs are attached into the flow table.
//!
//! A flow that an inbound row allows needs no entry. A flow that this host may open by a row gets the entry
//! that the programs would have made. A flow that no row allows existed first: such a flow continues until the
//! end or a timeout, and changes of the policy do not apply to the flow. If programs judged packets before and
//! only the flow table is new, a flow that no row allows did not exist first and may have been denied.

use std::net::{IpAddr, SocketAddr};

use pomguard_common::{
    Direction,
    control::ControlView,
    decide::NO_ROW,
    flow::{
        self, Bucket, Candidates, Entered, GRANDFATHERED, Key, Newcomer, State, Store, mark,
        ports::{self, FlowPort},
        prints::Prints,
    },
    image::{Address, Barrier, Family, Image, Line, Tuple},
    limits, names, protocol,
    serve::{self, Served},
};

use super::{
    KernelError,
    clock::Ticks,
    image_reader, load,
    mapping::Mapping,
    pins::Pins,
    sockets::{self, Connection},
};
use crate::policy::Mode;

/// The result of seeding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seeded {
    /// Number of flows in the socket table.
    pub live: usize,
    /// Number of flows entered because this host may open them by a row.
    pub by_row: usize,
    /// Flows entered although no row allows them.
    pub grandfathered: Vec<Connection>,
    /// Flows not entered, because no row allows them.
    pub left_out: Vec<Connection>,
    /// Number of flows for which the table had no room.
    pub refused: usize,
}

/// The treatment of flows that no row allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlisted {
    /// The flows existed before any program judged packets: they continue.
    GoOn,
    /// The flows were judged: only flows that the outbound direction passes without a row are entered.
    AsJudged,
}

/// Enters the flows of the socket table that are not in the flow table. May be called again.
///
/// # Errors
/// If there is no policy yet, or the kernel does not answer.
pub fn seed(pins: &Pins, ticks: Ticks, unlisted: Unlisted) -> Result<Seeded, KernelError> {
    let lines = image_reader::lines(pins)?;
    let table = Table::open(pins, &lines, ticks)?;
    let image = table.image;
    let head = lines.first().ok_or(KernelError::Unreadable)?;
    let leaves_anyway = Mode::in_head(head, Direction::Outbound) != Mode::Enforce;
    let mut seeded = Seeded::default();
    let ports = Ports { served: pins.mapped(names::MAP_SERVED, Served::COUNT, true)? };
    for connection in sockets::connections()? {
        seeded.live += 1;
        let Some(ends) = Endpoints::new(&connection) else { continue };
        if connection.inbound {
            // No program saw this flow open, but the local port serves anyway.
            serve::note(&ports, connection.protocol, ends.local.1, true, table.now);
        }
        if ends.granted(&image, Direction::Inbound).is_some() || flow::find(&table, ends.key()).is_some() {
            continue;
        }
        let state = if connection.protocol == protocol::TCP { State::Established } else { State::Udp };
        let row = ends.granted(&image, Direction::Outbound);
        let (row_slot, epoch) = match (row, unlisted) {
            (Some(row), _) => (row, image.generation()),
            (None, Unlisted::GoOn) => (NO_ROW, GRANDFATHERED),
            (None, Unlisted::AsJudged) if leaves_anyway && !connection.inbound => {
                (NO_ROW, image.generation())
            }
            (None, Unlisted::AsJudged) => {
                seeded.left_out.push(connection);
                continue;
            }
        };
        match flow::enter(&table, ends.key(), Newcomer::new(state, row_slot, epoch).marked(mark::SOCKET)) {
            Entered::Full => seeded.refused += 1,
            _ if epoch == GRANDFATHERED => seeded.grandfathered.push(connection),
            _ => seeded.by_row += 1,
        }
    }
    Ok(seeded)
}

/// Lets these flows continue until they end, regardless of the policies: each is entered, or the entry is
/// marked, as a flow that no policy judges. Returns the flows that now have such an entry.
///
/// # Errors
/// If there is no policy yet, or the maps cannot be read.
pub fn keep(pins: &Pins, ticks: Ticks, connections: &[Connection]) -> Result<Vec<Connection>, KernelError> {
    let lines = image_reader::lines(pins)?;
    let table = Table::open(pins, &lines, ticks)?;
    let mut kept = Vec::new();
    for connection in connections {
        let Some(ends) = Endpoints::new(connection) else { continue };
        if let Some(found) = flow::find(&table, ends.key()) {
            flow::set_epoch(&table, &found, NO_ROW, GRANDFATHERED);
            kept.push(*connection);
            continue;
        }
        let state = if connection.protocol == protocol::TCP { State::Established } else { State::Udp };
        let newcomer = Newcomer::new(state, NO_ROW, GRANDFATHERED).marked(mark::SOCKET);
        if !matches!(flow::enter(&table, ends.key(), newcomer), Entered::Full) {
            kept.push(*connection);
        }
    }
    Ok(kept)
}

/// Deletes the entries of these flows, so that the policy judges their next packets. Returns the flows that had
/// an entry.
///
/// # Errors
/// If there is no policy yet, or the maps cannot be read.
pub fn forget(pins: &Pins, ticks: Ticks, connections: &[Connection]) -> Result<Vec<Connection>, KernelError> {
    let lines = image_reader::lines(pins)?;
    let table = Table::open(pins, &lines, ticks)?;
    let had_entry = |connection: &&Connection| {
        let found = Endpoints::new(connection).and_then(|ends| flow::find(&table, ends.key()));
        found.is_some_and(|found| {
            let (bucket, way) = (found.slot / FLOW_WAYS, found.slot % FLOW_WAYS);
            let word = table.bucket(bucket).and_then(|bucket| bucket.tags.get(way as usize));
            // If a packet has changed the tag since, delete the entry anyway.
            word.is_some_and(|word| word.replace(found.tag.0, 0) || word.replace(word.load(), 0))
        })
    };
    Ok(connections.iter().filter(had_entry).copied().collect())
}

/// Returns those of the flows that no policy judges, because they are older than the first attachment.
///
/// # Errors
/// If the maps cannot be read.
pub fn unjudged(pins: &Pins, connections: &[Connection]) -> Result<Vec<Connection>, KernelError> {
    let lines = image_reader::lines(pins)?;
    let table = Table::open(pins, &lines, load::ticks(pins)?)?;
    let is_unjudged = |connection: &&Connection| {
        let found = Endpoints::new(connection).and_then(|ends| flow::find(&table, ends.key()));
        found.is_some_and(|found| found.epoch == GRANDFATHERED)
    };
    Ok(connections.iter().filter(is_unjudged).copied().collect())
}

/// The two ends of a flow in the programs' form.
struct Endpoints {
    family: Family,
    protocol: u8,
    local: (Address, u16),
    peer: (Address, u16),
}

impl Endpoints {
    /// Returns `None` if the two ends are of different families.
    fn new(connection: &Connection) -> Option<Self> {
        let Connection { protocol, local, peer, .. } = *connection;
        let family = match (local.ip(), peer.ip()) {
            (IpAddr::V4(_), IpAddr::V4(_)) => Family::V4,
            (IpAddr::V6(_), IpAddr::V6(_)) => Family::V6,
            _ => return None,
        };
        let end = |end: SocketAddr| (words(end.ip()), end.port());
        Some(Self { family, protocol, local: end(local), peer: end(peer) })
    }

    fn key(&self) -> Key {
        let ((local, local_port), (peer, peer_port)) = (&self.local, &self.peer);
        Key::new(self.family, self.protocol, local, *local_port, peer, *peer_port)
    }

    /// Returns the slot of the row that allows the flow if opened in this direction.
    fn granted(&self, image: &Image<'_, [Line]>, direction: Direction) -> Option<u16> {
        let (port, client_port) = match direction {
            Direction::Inbound => (self.local.1, self.peer.1),
            Direction::Outbound => (self.peer.1, self.local.1),
        };
        let tuple = Tuple { direction, protocol: self.protocol, port, client_port };
        Some(image.row_match(image.class(self.family, &self.peer.0), &tuple).ok()?.row)
    }
}

/// Returns an address in the programs' form.
fn words(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => [address.into(), 0, 0, 0],
        IpAddr::V6(address) => {
            let bits = u128::from(address);
            [96, 64, 32, 0].map(|shift| (bits >> shift) as u32)
        }
    }
}

/// The pinned table of served ports, mapped into memory.
struct Ports {
    served: Mapping<[u32; size_of::<Served>() / 4]>,
}

impl ControlView for Ports {
    fn served(&self, index: u32) -> Option<&Served> {
        self.served.shared(index as usize)
    }
}

/// The pinned flow table, mapped into memory.
struct Table<'a> {
    buckets: Mapping<[u64; size_of::<Bucket>() / 8]>,
    ports: Mapping<[u32; size_of::<FlowPort>() / 4]>,
    prints: Mapping<u64>,
    secret: u64,
    now: u32,
    image: Image<'a, [Line]>,
    candidates: Candidates,
}

impl<'a> Table<'a> {
    /// Opens the pinned table with the policy in these lines. The mapping is writable, because the programs
    /// write the table, too.
    fn open(pins: &Pins, lines: &'a [Line], ticks: Ticks) -> Result<Self, KernelError> {
        Ok(Self {
            buckets: pins.mapped(names::MAP_FLOWS, limits::FLOW_BUCKETS, true)?,
            ports: pins.mapped(names::MAP_FLOW_PORTS, ports::COUNT, true)?,
            prints: pins.mapped(names::MAP_FLOW_PRINTS, limits::FLOW_BUCKETS, true)?,
            secret: load::host_record(pins)?.flow_secret,
            now: ticks.now()? as u32,
            image: Image::open(lines).ok_or(KernelError::Unreadable)?,
            candidates: Candidates::default(),
        })
    }
}

/// Number of ways in a bucket of the flow table.
const FLOW_WAYS: u32 = limits::FLOW_WAYS as u32;

impl Barrier for Table<'_> {}

impl Store for Table<'_> {
    fn bucket(&self, bucket: u32) -> Option<&Bucket> {
        self.buckets.shared(bucket as usize)
    }

    fn mask(&self) -> u32 {
        limits::FLOW_BUCKETS as u32 - 1
    }

    fn secret(&self) -> u64 {
        self.secret
    }

    fn age(&self, state: State) -> u32 {
        self.image.age(state as u32)
    }

    fn now(&self) -> u32 {
        self.now
    }

    fn candidates(&self) -> Option<&Candidates> {
        Some(&self.candidates)
    }

    fn port(&self, port: u16) -> Option<&FlowPort> {
        self.ports.shared(port.into())
    }

    fn prints(&self, bucket: u32) -> Option<&Prints> {
        self.prints.shared(bucket as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_those_that_the_programs_make_of_a_packet() {
        let connection = |local: &str, peer: &str| Connection {
            protocol: protocol::TCP,
            local: local.parse().unwrap(),
            peer: peer.parse().unwrap(),
            inbound: false,
        };
        let ends = Endpoints::new(&connection("10.77.0.1:443", "10.77.0.2:40000")).unwrap();
        assert_eq!((ends.local, ends.peer.0), (([0x0a4d_0001, 0, 0, 0], 443), [0x0a4d_0002, 0, 0, 0]));
        let ends = Endpoints::new(&connection("[fd00:77::1]:443", "[fd00:77::2]:40000")).unwrap();
        assert_eq!(ends.local.0, [0xfd00_0077, 0, 0, 1]);
        assert!(Endpoints::new(&connection("10.77.0.1:443", "[fd00:77::2]:40000")).is_none());
    }
}
