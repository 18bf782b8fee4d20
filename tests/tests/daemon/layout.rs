//! A start with pinned maps of another layout: new maps replace them, and every packet is judged meanwhile.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use aya::{
    maps::{Array, Map, MapData, MapInfo, PerCpuArray, PerCpuValues, loaded_maps},
    programs::{ProgramInfo, SchedClassifier, TcAttachType, loaded_programs},
};
use pomguard_common::{
    counter::HostRecord,
    names::{ARRAYS, MAP_COUNTERS, MAP_HOST, PROGRAMS},
    reason::{Reason, Verdict},
};
use pomguard_tests::daemon::{
    Connection, Daemon, INTERFACE, LISTED, LISTED_OUT, Lab, PEER, PEER6, REMOVABLE, SERVER, SERVER6,
    Settings, UNLISTED, is_shut, opens,
};

use crate::{
    cli::{done, json, refused},
    watch::wait_until,
};

const ROW: &str = "pom-4.0/15";
const REMOVABLE_ROW: &str = "pom-4.0/16";

/// Changes the layout number of the pinned maps to 1, as an earlier version would have left them.
pub(crate) fn age(lab: &Lab) {
    age_to(lab, 1);
}

/// Changes the layout number of the pinned maps.
fn age_to(lab: &Lab, abi: u32) {
    let map = Map::from_map_data(MapData::from_pin(lab.pins().join("maps").join(MAP_HOST)).unwrap()).unwrap();
    let mut host: Array<_, HostRecord> = map.try_into().unwrap();
    let record = host.get(&0, 0).unwrap();
    host.set(0, HostRecord { abi, ..record }, 0).unwrap();
}

/// Ids of all pinned objects except the links.
#[derive(Debug)]
struct Ids {
    maps: BTreeSet<u32>,
    programs: BTreeSet<u32>,
}

impl Ids {
    fn pinned(lab: &Lab) -> Self {
        let entries = |folder: &str| -> Vec<PathBuf> {
            fs::read_dir(lab.pins().join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect()
        };
        let map = |path: PathBuf| MapInfo::from_pin(path).unwrap().id();
        let arrays = ARRAYS.map(|(array, _)| lab.pins().join("programs").join(array));
        Self {
            maps: ["maps", "images"].into_iter().flat_map(entries).chain(arrays).map(map).collect(),
            programs: PROGRAMS
                .iter()
                .map(|name| ProgramInfo::from_pin(lab.pins().join("programs").join(name)).unwrap().id())
                .collect(),
        }
    }

    /// Returns true if the kernel has none of these objects any more.
    fn are_gone(&self) -> bool {
        let mut maps = loaded_maps().filter_map(|info| Some(info.ok()?.id()));
        let mut programs = loaded_programs().filter_map(|info| Some(info.ok()?.id()));
        !maps.any(|id| self.maps.contains(&id)) && !programs.any(|id| self.programs.contains(&id))
    }
}

/// A stream of packets that nothing allows, and the socket that would receive them.
pub(crate) struct Denied {
    from: UdpSocket,
    hears: UdpSocket,
}

impl Denied {
    pub(crate) fn at(lab: &Lab) -> Self {
        let hears = lab.server.run(|| UdpSocket::bind((SERVER, UNLISTED))).unwrap().unwrap();
        let from = lab.peer.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap().unwrap();
        from.connect(SocketAddr::from((SERVER, UNLISTED))).unwrap();
        hears.set_nonblocking(true).unwrap();
        Self { from, hears }
    }

    /// Sends packets as long as `lasts` returns true. Returns the number of packets.
    pub(crate) fn stream(&self, lasts: impl Fn() -> bool) -> u64 {
        let mut sent = 0;
        while lasts() {
            sent += u64::from(self.from.send(b"denied").is_ok());
            thread::sleep(Duration::from_micros(50));
        }
        sent
    }

    pub(crate) fn none_was_heard(&self) -> bool {
        self.hears.recv(&mut [0; 16]).is_err()
    }
}

/// A guard that sets a flag when dropped.
pub(crate) struct Raise<'a>(pub(crate) &'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `act` while allowed connections continue and denied packets are sent. Asserts that no connection is
/// cut and no denied packet arrives.
fn under_load<T>(lab: &Lab, connections: &mut [Connection], act: impl FnOnce() -> T) -> T {
    let denied = Denied::at(lab);
    let (over, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let lasts = || !over.load(Ordering::Relaxed);
    let result = thread::scope(|scope| {
        let end = Raise(&over);
        let stream = scope.spawn(|| denied.stream(lasts));
        let mut talks = Vec::new();
        for connection in connections {
            let rounds = &rounds;
            talks.push(scope.spawn(move || {
                while lasts() {
                    assert!(connection.answers(), "a flow that is allowed was cut");
                    rounds.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(1));
                }
            }));
        }
        let result = act();
        // The time after the last step counts, too.
        thread::sleep(Duration::from_millis(300));
        drop(end);
        assert!(talks.into_iter().all(|talk| talk.join().is_ok()));
        let sent = stream.join().unwrap();
        println!("{sent} denied packets, {} words in flows", rounds.load(Ordering::Relaxed));
        assert!(sent > 500 && rounds.load(Ordering::Relaxed) > 100, "there was load");
        result
    });
    assert!(denied.none_was_heard(), "a packet went unjudged");
    result
}

fn connections(lab: &Lab) -> Vec<Connection> {
    let sorts: [(_, IpAddr, _); 4] = [
        (&lab.peer, SERVER.into(), LISTED),
        (&lab.peer, SERVER6.into(), LISTED),
        (&lab.server, PEER.into(), LISTED_OUT),
        (&lab.server, PEER6.into(), LISTED_OUT),
    ];
    let twice = |(from, to, port)| [(); 2].map(|()| Connection::open(from, to, port));
    sorts.into_iter().flat_map(twice).collect()
}

fn maps_of_another_layout_are_replaced(lab: &Lab) {
    let daemon = Daemon::start(lab);
    let mut talk = connections(lab);
    let mut idle = talk.split_off(4);
    idle.push(talk.remove(0));
    daemon.kill();
    let (former, pinned, attached) = (Ids::pinned(lab), lab.pinned(), lab.stats().attached());
    let program = lab.xdp_program();
    let counted = lab.stats();
    let connections = counted.row(ROW, "inbound", "connections");
    assert!(connections > 0);
    age(lab);
    for verb in ["check", "plan"] {
        let words = done(lab, &[verb]);
        let message = words.contains("are of layout 1") && words.contains("counters go on");
        assert!(message, "{verb} says beforehand what becomes of them: {words}");
    }
    let words = refused(lab, &["stats"]);
    assert!(words.contains("`systemctl restart pomguard` replaces them"), "{words}");

    let (daemon, message) = under_load(lab, &mut talk, || {
        let daemon = Daemon::spawn(lab);
        let message = daemon.wait_ready();
        (daemon, message)
    });
    for words in [&message, &daemon.log()] {
        assert!(words.contains("of layout 1") && words.contains("counters go on"), "{words}");
    }
    assert!(idle.iter_mut().all(Connection::answers), "nor is what was idle meanwhile");
    let status = done(lab, &["status"]);
    assert!(status.contains("anew: the maps before were of layout 1"), "{status}");
    assert_eq!(json(lab, &["status"])["daemon"]["replaced_layout"], 1);
    assert_eq!(lab.stats().attached(), attached);
    assert!(lab.xdp_program().is_some_and(|next| Some(next) != program), "the program was exchanged");
    lab.stats().assert_not_behind(&counted);
    assert_eq!(lab.stats().row(ROW, "inbound", "connections"), connections, "counters were carried over");
    assert!(opens(&lab.peer, SERVER, LISTED) && is_shut(&lab.peer, SERVER, UNLISTED));
    assert_eq!(lab.stats().row(ROW, "inbound", "connections"), connections + 1, "and go on");
    assert_eq!(lab.pinned(), pinned, "what is pinned has its place, and nothing lies alongside it");
    wait_until("nothing is left of the former maps and programs", &daemon, || former.are_gone());

    // For the next daemon this start is like any other.
    let before = lab.stats();
    assert!(daemon.stop().success());
    let daemon = Daemon::start(lab);
    lab.stats().assert_not_behind(&before);
    assert!(talk.iter_mut().chain(&mut idle).all(Connection::answers));
    assert!(!daemon.log().contains("layout"), "{}", daemon.log());
    assert!(!done(lab, &["status"]).contains("anew"));
}

#[test]
fn basic_maps_of_another_layout_are_replaced_without_a_gap() {
    let Some(lab) = Lab::new("basic_maps_of_another_layout_are_replaced_without_a_gap") else {
        return;
    };
    maps_of_another_layout_are_replaced(&lab);
}

/// The number of reasons of an earlier version. Later reasons have no counter in its maps.
const EARLIER_REASONS: usize = 40;
/// The number of words of its counters: two directions of packets and bytes seen, judged and audited, and
/// three others.
const EARLIER_WORDS: usize = 2 * (2 + 4 * EARLIER_REASONS) + 3;

/// Replaces the pinned counters by a per-CPU map of another size.
fn replace_counters<V: aya::Pod>(lab: &Lab, value: V) {
    let path = lab.pins().join("maps").join(MAP_COUNTERS);
    fs::remove_file(&path).unwrap();
    let kind = aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY as u32;
    let definition = aya_obj::Map::new_from_params(kind, 4, size_of::<V>() as u32, 1, 0);
    let data = MapData::create(definition, "earlier", None).unwrap();
    data.pin(&path).unwrap();
    let mut map: PerCpuArray<_, V> = Map::PerCpuArray(data).try_into().unwrap();
    let values = PerCpuValues::try_from(vec![value; aya::util::nr_cpus().unwrap()]).unwrap();
    map.set(0, values, 0).unwrap();
}

/// CP-09: the counts of a version with fewer reasons continue, by reason number and row id.
#[test]
fn counters_of_a_smaller_layout_go_on() {
    let Some(lab) = Lab::new("counters_of_a_smaller_layout_go_on") else { return };
    let daemon = Daemon::start(&lab);
    assert!(opens(&lab.peer, SERVER, LISTED) && opens(&lab.peer, SERVER, REMOVABLE));
    // A row that left the policy keeps its counters, too.
    lab.write_site("[[row]]\nid = \"pom-4.0/16\"\nenabled = false\nforce = true\n");
    assert!(!daemon.reload().contains("refused"));
    daemon.kill();
    let counted = lab.stats();
    assert!(counted.row(REMOVABLE_ROW, "inbound", "connections") > 0);
    let mut words = [0; EARLIER_WORDS];
    let of = |direction: usize, audited: usize, reason: Reason| {
        direction * (2 + 4 * EARLIER_REASONS) + 2 + 2 * (audited * EARLIER_REASONS + reason.index())
    };
    let reasons: Vec<Reason> =
        Reason::ALL.iter().copied().filter(|it| it.index() < EARLIER_REASONS).collect();
    let cpus = aya::util::nr_cpus().unwrap() as u64;
    // Larger than any count from the packets of this test.
    let expected = |direction: usize, audited: usize, reason: Reason| {
        1_000_000 * (1 + reason.index() as u64 + 100 * direction as u64 + 10_000 * audited as u64)
    };
    for direction in [0, 1] {
        for &reason in &reasons {
            for audited in 0..=usize::from(reason.verdict() == Verdict::Drop) {
                let at = of(direction, audited, reason);
                words[at] = expected(direction, audited, reason);
                words[at + 1] = 60 * words[at];
            }
        }
    }
    let [.., opened, _evicted] = &mut words;
    *opened = 77_000_000;
    replace_counters(&lab, words);
    age(&lab);

    let daemon = Daemon::start(&lab);
    assert!(!daemon.log().contains("begin at zero"), "{}", daemon.log());
    let stats = lab.stats();
    let by_itself = 900_000;
    for (direction, name) in ["inbound", "outbound"].into_iter().enumerate() {
        for &reason in &reasons {
            let own = if reason.verdict() == Verdict::Drop { "drop" } else { "pass" };
            for (audited, verdict) in [own, "audit"].into_iter().enumerate() {
                if audited == 1 && own == "pass" {
                    continue;
                }
                let carried = expected(direction, audited, reason) * cpus;
                let now = stats.reason(reason.name(), name, verdict);
                assert!((carried..carried + by_itself).contains(&now), "{name} {verdict} {reason:?}: {now}");
            }
        }
        wait_until("what was seen is what was judged", &daemon, || {
            let stats = lab.stats();
            stats.total(name, "seen") == stats.judged(name)
        });
    }
    assert!((77_000_000 * cpus..77_000_000 * cpus + by_itself).contains(&stats.flows_opened()));
    for (row, field) in
        [(ROW, "packets"), (ROW, "connections"), (REMOVABLE_ROW, "packets"), (REMOVABLE_ROW, "bytes")]
    {
        let (then, now) = (counted.row(row, "inbound", field), stats.row(row, "inbound", field));
        assert_eq!(now, then, "{row} {field}");
    }
    assert!(opens(&lab.peer, SERVER, LISTED));
    assert_eq!(
        lab.stats().row(ROW, "inbound", "connections"),
        counted.row(ROW, "inbound", "connections") + 1
    );
}

/// An unknown layout, and a known layout whose maps have another form: the counters begin at zero, which is
/// reported, and nothing else is affected.
#[test]
fn counters_of_an_unknown_layout_begin_at_zero() {
    let Some(lab) = Lab::new("counters_of_an_unknown_layout_begin_at_zero") else { return };
    for unknown in [true, false] {
        let daemon = Daemon::start(&lab);
        assert!(opens(&lab.peer, SERVER, LISTED));
        assert!(lab.stats().row(ROW, "inbound", "connections") > 0);
        daemon.kill();
        if unknown {
            age_to(&lab, 9_999);
            assert!(done(&lab, &["check"]).contains("counters begin at zero"));
        } else {
            replace_counters(&lab, [0_u64; 5]);
            age(&lab);
        }
        let daemon = Daemon::start(&lab);
        assert!(daemon.log().contains("counters begin at zero"), "{}", daemon.log());
        assert_eq!(lab.stats().row(ROW, "inbound", "connections"), 0, "unknown: {unknown}");
        assert!(opens(&lab.peer, SERVER, LISTED) && is_shut(&lab.peer, SERVER, UNLISTED));
        assert_eq!(lab.stats().row(ROW, "inbound", "connections"), 1);
        drop(daemon);
    }
}

#[test]
fn maps_of_another_layout_are_replaced_with_clsact_alike() {
    let Some(lab) = Lab::new("maps_of_another_layout_are_replaced_with_clsact_alike") else {
        return;
    };
    lab.write_settings(&Settings { tc: "clsact", attach: "generic", ..Settings::default() });
    maps_of_another_layout_are_replaced(&lab);
}

#[test]
fn what_was_denied_is_not_let_in_by_new_maps() {
    let Some(lab) = Lab::new("what_was_denied_is_not_let_in_by_new_maps") else { return };
    let daemon = Daemon::start(&lab);
    let mut revoked = Connection::open(&lab.peer, SERVER, REMOVABLE);
    let mut revoked_out = Connection::open(&lab.server, PEER, LISTED_OUT);
    let site = fs::read_to_string(lab.site()).unwrap();
    fs::write(lab.site(), site.replace("\"Agent Desktop\", \"WFO\", \"AES\"", "\"Agent Desktop\"")).unwrap();
    assert!(!daemon.reload().contains("refused"));
    assert!(revoked.is_cut());
    let ends = format!("no row allows {} -> {}", revoked_out.local(), revoked_out.peer());
    daemon.kill();
    age(&lab);
    // A denied connection that this host tries to open all the time.
    let over = AtomicBool::new(false);
    let daemon = thread::scope(|scope| {
        let end = Raise(&over);
        let tries = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                assert!(is_shut(&lab.server, PEER, UNLISTED), "what may not leave left");
            }
        });
        let daemon = Daemon::start(&lab);
        thread::sleep(Duration::from_secs(1));
        drop(end);
        assert!(tries.join().is_ok());
        daemon
    });
    assert!(revoked.is_cut() && revoked_out.is_cut(), "though their sockets live");
    assert!(daemon.log().contains(&ends), "{}", daemon.log());
}

#[test]
fn suspension_exceptions_and_pending_change_outlive_the_maps() {
    let Some(lab) = Lab::new("suspension_exceptions_and_pending_change_outlive_the_maps") else {
        return;
    };
    let daemon = Daemon::start(&lab);
    let site = fs::read_to_string(lab.site()).unwrap();
    done(&lab, &["allow", "10.77.0.3", "to", "9000/tcp", "--for", "1h", "--name", "test", "--why", "x"]);
    fs::write(lab.site(), site.replace(", \"WFO\", \"AES\"", "")).unwrap();
    let begun = Instant::now();
    done(&lab, &["apply", "--confirm-within", "60s", "--why", "fewer", "--quiet"]);
    assert!(is_shut(&lab.peer, SERVER, REMOVABLE), "not in the new files");
    done(&lab, &["lockdown", "--for", "10m", "--why", "intruder", "--yes", "--quiet"]);
    daemon.kill();
    age(&lab);

    let daemon = Daemon::start(&lab);
    let status = json(&lab, &["status"]);
    assert_eq!(status["suspension"]["kind"], "lockdown", "{status}");
    assert_eq!(status["exceptions"][0]["id"], "exception/test", "{status}");
    assert_eq!(status["confirmed"], false, "{status}");
    assert!(is_shut(&lab.peer, SERVER, LISTED), "panic holds");
    done(&lab, &["bypass", "--off", "--quiet"]);
    assert!(opens(&lab.stranger, SERVER, UNLISTED), "the exception does");
    assert!(opens(&lab.peer, SERVER, LISTED) && is_shut(&lab.peer, SERVER, REMOVABLE), "so do the new files");
    assert!(begun.elapsed() < Duration::from_secs(58), "the machine was too slow to look in time");
    thread::sleep(Duration::from_secs(58).saturating_sub(begun.elapsed()));
    assert!(is_shut(&lab.peer, SERVER, REMOVABLE), "until its time is up");
    wait_until("it returned to the policy before", &daemon, || opens(&lab.peer, SERVER, REMOVABLE));
    assert!(done(&lab, &["history"]).contains("nobody confirmed it"), "{}", done(&lab, &["history"]));

    // An expired panic does not come back.
    daemon.kill();
    age(&lab);
    let _daemon = Daemon::start(&lab);
    assert!(json(&lab, &["status"])["suspension"].is_null());
    assert!(opens(&lab.peer, SERVER, REMOVABLE));
}

/// Returns the ids of the programs at both hooks of an interface, as the kernel reports them.
fn hooks(lab: &Lab, interface: &str) -> (Option<u32>, Vec<u32>) {
    let index = lab.server.link(interface).index().unwrap();
    let look = || {
        let (_, tcx) = SchedClassifier::query_tcx(interface, TcAttachType::Egress).unwrap();
        let xdp = pomguard::kernel::interface::xdp(index).unwrap();
        (xdp.map(|state| state.program), tcx.iter().map(ProgramInfo::id).collect())
    };
    lab.server.run(look).unwrap()
}

/// Waits until a link without pins is gone: the kernel removes it asynchronously.
fn wait_for_bare_egress(lab: &Lab) {
    let start = Instant::now();
    while !hooks(lab, INTERFACE).1.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(10), "the link outlives its pin");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A bridge, which supports XDP only in generic mode. The daemon asks for native mode after the first
/// interface has its new program.
const SECOND: &str = "br0";

/// Returns settings with both interfaces.
fn on_both(attach: &'static str) -> Settings {
    Settings { interfaces: &[INTERFACE, SECOND], attach, ..Settings::default() }
}

/// Runs a start that attaches to the first interface and fails at the second one.
fn fails_at_the_second(lab: &Lab) {
    lab.write_settings(&on_both("native"));
    let mut daemon = Daemon::spawn(lab);
    let status = daemon.wait_end();
    let log = daemon.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("eth0: XDP native"), "the first one had its new program: {log}");
    assert!(log.contains("br0 does not take native XDP"), "{log}");
}

#[test]
fn start_failing_between_interfaces_keeps_the_former_programs() {
    let name = "start_failing_between_interfaces_keeps_the_former_programs";
    let Some(lab) = Lab::new(name) else { return };
    lab.server.add_bridge(SECOND).unwrap();
    lab.write_settings(&on_both("auto"));
    let daemon = Daemon::start(&lab);
    let mut talk = connections(&lab);
    daemon.kill();
    let (former, pinned) = (Ids::pinned(&lab), lab.pinned());
    let hooks = || [INTERFACE, SECOND].map(|name| hooks(&lab, name));
    let before = hooks();
    age(&lab);
    under_load(&lab, &mut talk, || fails_at_the_second(&lab));
    assert_eq!(hooks(), before, "the former programs are behind every hook");
    assert_eq!(lab.pinned(), pinned, "nothing is left behind");
    lab.assert_general("after a start that failed");
    assert!(!former.are_gone());
    assert!(opens(&lab.peer, SERVER, LISTED) && is_shut(&lab.peer, SERVER, UNLISTED));

    lab.write_settings(&on_both("auto"));
    let daemon = under_load(&lab, &mut talk, || Daemon::start(&lab));
    assert_eq!(lab.pinned(), pinned);
    wait_until("nothing is left of the former maps and programs", &daemon, || former.are_gone());
}

#[test]
fn failed_start_removes_its_program_from_a_bared_egress_hook() {
    let name = "failed_start_removes_its_program_from_a_bared_egress_hook";
    let Some(lab) = Lab::new(name) else { return };
    lab.server.add_bridge(SECOND).unwrap();
    lab.write_settings(&on_both("auto"));
    Daemon::start(&lab).kill();
    let whole = hooks(&lab, INTERFACE);
    // Nobody else holds the link.
    fs::remove_file(lab.pins().join("links").join(format!("tcx-{INTERFACE}"))).unwrap();
    wait_for_bare_egress(&lab);
    let (before, pinned) = (hooks(&lab, INTERFACE), lab.pinned());
    assert_eq!(before.0, whole.0, "the ingress hook is as it was");
    age(&lab);
    fails_at_the_second(&lab);
    assert_eq!(hooks(&lab, INTERFACE), before);
    assert_eq!(lab.pinned(), pinned, "nothing is left behind");

    lab.write_settings(&on_both("auto"));
    let _daemon = Daemon::start(&lab);
    assert_eq!(hooks(&lab, INTERFACE).1.len(), 1, "the next start guards both ways again");
}

#[test]
fn killed_start_never_opens_the_host_and_the_next_tidies_up() {
    let name = "killed_start_never_opens_the_host_and_the_next_tidies_up";
    let Some(lab) = Lab::new(name) else { return };
    let daemon = Daemon::start(&lab);
    let mut talk = connections(&lab);
    daemon.kill();
    let (former, pinned) = (Ids::pinned(&lab), lab.pinned());
    age(&lab);
    let daemon = under_load(&lab, &mut talk, || {
        for step in ["loading the programs", "generation 1 in force", "eth0: XDP native"] {
            let daemon = Daemon::spawn(&lab);
            daemon.wait_log(step);
            daemon.kill();
            assert!(is_shut(&lab.peer, SERVER, UNLISTED), "killed at {step:?}");
            lab.assert_general(&format!("killed at {step:?}"));
        }
        Daemon::start(&lab)
    });
    assert_eq!(lab.pinned(), pinned, "what is pinned has its place, and nothing lies alongside it");
    wait_until("nothing is left of the former maps and programs", &daemon, || former.are_gone());
}
