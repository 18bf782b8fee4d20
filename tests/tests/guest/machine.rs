//! The emulated machine: the interfaces, and the connection to the far end of each.

use std::{
    cell::{Cell, RefCell},
    fmt::{self, Display, Formatter},
    fs::{self, File},
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, UdpSocket},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use ipnet::IpNet;
use pomguard::kernel::{counters, pins::Pins};
use pomguard_common::{Direction, counter::Counters, reason::Reason};
use pomguard_netlab::{
    LinkState, Namespace, Port, Veth,
    outside::{CARDS, DENIED, FarEnds, Knocker, Request, Segment, Tally},
};
use pomguard_tests::daemon::{Lab, Wire};

/// The interface that always uses generic mode and clsact, whatever the kernel supports.
pub(crate) const GENERIC: &str = "veth-generic";
/// The bond, whose members are the near ends of two cables to one far end.
pub(crate) const BOND: &str = "bond-main";
/// The members of the bond. The first is active at first.
pub(crate) const MEMBERS: [&str; 2] = ["bond-a", "bond-b"];
/// The name of the stream to the outside.
const OUTSIDE: &str = "outside";
/// The longest time of an allowed connection. An interface that was down needs a moment.
const PATIENCE: Duration = Duration::from_secs(20);
/// The time for which a watch continues after a step.
const AFTERWARDS: Duration = Duration::from_secs(1);
/// The largest difference between counters that are read one after another. A bond also counts frames that reach
/// its backup member, and drops them before a program in generic mode.
const MOMENT: u64 = 4;

/// A guarded interface.
pub(crate) struct End {
    /// Name of the interface.
    pub(crate) interface: &'static str,
    segment: Segment,
    /// True if the far end is outside of the machine.
    is_outside: bool,
    /// The tally of the last watch.
    watched: Cell<Tally>,
}

impl End {
    /// Checks that nothing was answered during the last watch of the interface.
    pub(crate) fn was_shut(&self) -> Result<()> {
        let tally = self.watched.get();
        ensure!(tally.denied.sent > 0, "nobody knocked");
        ensure!(tally.denied.answered == 0, "OPEN: {tally}");
        Ok(())
    }
}

impl Display for End {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.write_str(self.interface)
    }
}

/// The emulated machine, which is the guarded server.
pub(crate) struct Machine {
    /// The daemon's fixture; the server is this machine.
    pub(crate) lab: Lab,
    ends: Vec<End>,
    far_ends: FarEnds,
    outside: RefCell<File>,
    /// The far ends of the veth pairs and of the bond, in the order in which they were made.
    far: Vec<Namespace>,
}

impl Machine {
    /// Renames the cards, connects the cables, and writes the site file.
    pub(crate) fn new(lab: Lab) -> Self {
        let mut ends = Vec::new();
        let (mut far, mut knockers) = (Vec::new(), Vec::new());
        for (number, interface) in [(3, "veth-native"), (4, GENERIC)] {
            let segment = Segment::new(number);
            let there = Namespace::new("far").unwrap();
            let near = Port::new(interface).mac(segment.server_mac());
            Veth::connect((&lab.server, &near), (&there, &Port::new("far0").mac(segment.far_mac()))).unwrap();
            let knocker = Knocker::start(Wire::at(&there, "far0"), segment).unwrap();
            knockers.push((interface.to_owned(), knocker));
            far.push(there);
            ends.push(End { interface, segment, is_outside: false, watched: Cell::default() });
        }
        let segment = Segment::new(5);
        let (there, knocker) = bond(&lab.server, segment);
        knockers.push((BOND.to_owned(), knocker));
        far.push(there);
        ends.push(End { interface: BOND, segment, is_outside: false, watched: Cell::default() });
        for card in CARDS {
            let name = appeared(card.driver, || {
                let links = lab.server.links().unwrap();
                let found = links.into_iter().find(|link| link.mac == Some(card.segment.server_mac()));
                found.map(|link| link.name)
            });
            lab.server.link(&name).rename(card.driver).unwrap();
            ends.push(End {
                interface: card.driver,
                segment: card.segment,
                is_outside: true,
                watched: Cell::default(),
            });
        }
        // Sorts the interface that joins later to the end.
        ends.sort_by_key(|end| end.interface == GENERIC);
        let outside =
            RefCell::new(appeared(OUTSIDE, || File::options().read(true).write(true).open(stream()?).ok()));
        let machine = Self { lab, ends, far_ends: FarEnds::new(knockers), outside, far };
        machine.ends.iter().for_each(|end| machine.dress(end));
        machine.write_site(&[], &[]);
        machine
    }

    /// Returns all interfaces.
    pub(crate) fn ends(&self) -> impl Iterator<Item = &End> {
        self.ends.iter()
    }

    /// Returns the interfaces of the first start.
    pub(crate) fn first(&self) -> impl Iterator<Item = &End> {
        self.ends.iter().filter(|end| end.interface != GENERIC)
    }

    /// Returns the bond.
    pub(crate) fn bond(&self) -> &End {
        self.ends.iter().find(|end| end.interface == BOND).unwrap()
    }

    /// Returns the interface that joins later.
    pub(crate) fn last(&self) -> &End {
        self.ends.last().unwrap()
    }

    /// Gives an interface the addresses that it lacks, and sets it up.
    pub(crate) fn dress(&self, end: &End) {
        let link = self.lab.server.link(end.interface);
        for address in end.segment.server() {
            // The kernel refuses an address that the interface still has.
            let _ = link.add_address(IpNet::new(address, Segment::prefix_length(address)).unwrap());
        }
        link.up().unwrap();
    }

    /// Returns the far end of `veth-native`.
    pub(crate) fn far_end(&self) -> &Namespace {
        &self.far[0]
    }

    /// Writes the site file with more addresses of the server and of the hosts that the file knows.
    pub(crate) fn write_site(&self, more_server: &[IpAddr], more_known: &[IpAddr]) {
        let quoted =
            |hosts: Vec<IpAddr>| format!("{:?}", hosts.iter().map(ToString::to_string).collect::<Vec<_>>());
        let server = self.ends.iter().flat_map(|end| end.segment.server()).chain(more_server.iter().copied());
        let server = quoted(server.collect());
        let known = self.ends.iter().flat_map(|end| end.segment.known()).chain(more_known.iter().copied());
        let known = quoted(known.collect());
        let text = format!(
            "matrix = \"pom-4.0\"\nzones = 1\n\n\
             [[host]]\nname = \"server\"\naddresses = {server}\nsystems = [\"Agent Manager\"]\n\n\
             [[peer]]\naddresses = {known}\nsystems = [\"Agent Desktop\"]\n"
        );
        fs::write(self.lab.site(), text).unwrap();
    }

    /// Checks that every knock at an interface is answered: no guard is there, and nothing else hinders a
    /// knock.
    pub(crate) fn is_open(&self, end: &End) -> Result<String> {
        let tally = self.ask(end, &Request::Knock(end.interface.to_owned(), PATIENCE))?;
        ensure!(tally.is_open(), "{tally}");
        Ok(tally.to_string())
    }

    /// Checks that an interface answers all allowed knocks and nothing else, and that the guard saw every
    /// frame that the interface received.
    pub(crate) fn is_guarded(&self, end: &End) -> Result<String> {
        /// The number of attempts on the counters. On a machine under load, frames of other ends come in between
        /// the readings; a guard that does not see misses its frames at every attempt.
        const ATTEMPTS: usize = 3;
        let mut blind = Ok(String::new());
        for _ in 0..ATTEMPTS {
            blind = self.sees_everything(end)?;
            if blind.is_ok() {
                break;
            }
        }
        blind
    }

    /// Knocks once at an interface. Fails if a knock is answered wrongly. Returns an error in the result if the
    /// counters differ.
    fn sees_everything(&self, end: &End) -> Result<Result<String>> {
        let (before, card_before, all_before) = (self.counters()?, self.link(end)?, self.received()?);
        let tally = self.ask(end, &Request::Knock(end.interface.to_owned(), PATIENCE))?;
        let (after, card_after, all_after) = (self.counters()?, self.link(end)?, self.received()?);
        let seen = |at: Direction| seen(&after, at) - seen(&before, at);
        let (came, left) = (seen(Direction::Inbound), seen(Direction::Outbound));
        let (took, all) = (card_after.received - card_before.received, all_after - all_before);
        let counted =
            format!("the card took {took}, all cards {all}, the guard saw {came} in and {left} out");
        ensure!(tally.denied.answered == 0, "OPEN: {tally}; {counted}");
        ensure!(tally.is_guarded(), "CUT: {tally}; {counted}");
        ensure!(took >= tally.denied.sent + tally.allowed.sent, "{counted}; {tally}");
        // An opening segment is answered, and so is the data.
        let sees = came.abs_diff(all) <= MOMENT && left >= 2 * tally.allowed.answered;
        Ok(if sees { Ok(counted) } else { Err(anyhow!("BLIND: {counted}; {tally}")) })
    }

    /// Checks that nothing leaves through an interface that no outbound row allows.
    pub(crate) fn keeps_in(&self, end: &End) -> Result<String> {
        const DATAGRAMS: u64 = 3;
        let (before, card_before) = (self.counters()?, self.link(end)?);
        let [known, _] = end.segment.known();
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        for _ in 0..DATAGRAMS {
            match socket.send_to(b"Is anybody there?", (known, DENIED)) {
                // Some kernels report the drop to the sender.
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
                sent => drop(sent?),
            }
        }
        let (after, card_after) = (self.counters()?, self.link(end)?);
        let dropped = |of: &Counters| {
            of.direction[Direction::Outbound.index()].judged[Reason::Destination.index()].packets
        };
        let (dropped, sent) = (dropped(&after) - dropped(&before), card_after.sent - card_before.sent);
        let counted = format!("{DATAGRAMS} datagrams, the guard dropped {dropped}, the card sent {sent}");
        ensure!(dropped == DATAGRAMS && sent == 0, "{counted}");
        Ok(counted)
    }

    /// Runs `work` on an interface while the far end knocks at denied ports, and checks that nothing is
    /// answered.
    pub(crate) fn watched_at(&self, end: &End, work: impl FnOnce() -> Result<()>) -> Result<()> {
        self.watch(end)?;
        let done = work();
        thread::sleep(AFTERWARDS);
        self.rest(end)?;
        done?;
        end.was_shut()
    }

    /// Runs `work` while every far end knocks at denied ports. [`End::was_shut`] checks the answers.
    pub(crate) fn watch_all(&self, work: impl FnOnce() -> Result<String>) -> Result<String> {
        self.ends().try_for_each(|end| self.watch(end))?;
        let done = work();
        thread::sleep(AFTERWARDS);
        self.ends().try_for_each(|end| self.rest(end))?;
        done
    }

    fn watch(&self, end: &End) -> Result<()> {
        self.ask(end, &Request::Watch(end.interface.to_owned())).map(drop)
    }

    fn rest(&self, end: &End) -> Result<()> {
        end.watched.set(self.ask(end, &Request::Rest(end.interface.to_owned()))?);
        Ok(())
    }

    fn ask(&self, end: &End, request: &Request) -> Result<Tally> {
        if !end.is_outside {
            return self.far_ends.serve(request);
        }
        self.outside(request)?.parse()
    }

    /// Sends a request to the outside, and returns the answer.
    pub(crate) fn outside(&self, request: &Request) -> Result<String> {
        let mut stream = self.outside.borrow_mut();
        stream.write_all(format!("{request}\n").as_bytes()).context("ask the outside")?;
        let (mut line, mut byte) = (Vec::new(), [0]);
        loop {
            stream.read_exact(&mut byte).context("the outside's answer")?;
            if byte == *b"\n" {
                break;
            }
            line.extend(byte);
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// Returns the folder of the daemon's pins.
    pub(crate) fn pins(&self) -> Pins {
        Pins::new(self.lab.pins())
    }

    /// Reads the guard's counters.
    fn counters(&self) -> Result<Counters> {
        Ok(counters::counters(&self.pins())?)
    }

    /// Reads the state of an interface, with its own counters.
    fn link(&self, end: &End) -> Result<LinkState> {
        self.lab.server.link(end.interface).state()
    }

    /// Returns the number of frames that all guarded interfaces received.
    fn received(&self) -> Result<u64> {
        let links = self.lab.server.links()?;
        let guarded = links.iter().filter(|link| self.ends.iter().any(|end| end.interface == link.name));
        Ok(guarded.map(|link| link.received).sum())
    }
}

/// Makes the bond, and the bridge at the far ends of its members.
fn bond(server: &Namespace, segment: Segment) -> (Namespace, Knocker) {
    let there = Namespace::new("far").unwrap();
    let bridge = there.add_bridge("far0").unwrap();
    bridge.set_mac(segment.far_mac()).unwrap();
    let bond = server.add_bond(BOND).unwrap();
    for member in MEMBERS {
        let near = Port::new(member).mac(segment.server_mac());
        Veth::connect((server, &near), (&there, &Port::new(&format!("far-{member}")))).unwrap();
        let member_link = server.link(member);
        member_link.down().unwrap();
        member_link.attach_to(&bond).unwrap();
        member_link.up().unwrap();
        there.link(&format!("far-{member}")).attach_to(&bridge).unwrap();
    }
    let knocker = Knocker::start(Wire::at(&there, "far0"), segment).unwrap();
    (there, knocker)
}

fn seen(counters: &Counters, direction: Direction) -> u64 {
    counters.direction[direction.index()].seen.packets
}

/// Waits until a device is there: drivers announce cards and ports at their own pace after a boot.
fn appeared<T>(name: &str, find: impl Fn() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        match find() {
            Some(found) => return found,
            None if begun.elapsed() > PATIENCE => panic!("no device {name}"),
            None => thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Returns the path of the stream device to the outside, if its driver has announced the device.
fn stream() -> Option<PathBuf> {
    let ports = fs::read_dir("/sys/class/virtio-ports").ok()?;
    let named = ports
        .filter_map(Result::ok)
        .find(|port| fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim() == OUTSIDE));
    Some(PathBuf::from("/dev").join(named?.file_name()))
}
