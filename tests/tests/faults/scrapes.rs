//! The metrics page and the daemon's log during floods.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
    thread,
    time::{Duration, Instant},
};

use pomguard_tests::{
    daemon::{Daemon, LISTED, Lab, UNLISTED, scrape},
    faults::{THE_SERVER, TrafficGenerator, frames, report, times},
    packet::{eth, flag},
    random::Random,
};

/// Packets a second of each flood.
const RATE: u32 = 40_000;
/// The number of source addresses of a flood in each family.
const SOURCES: usize = 32_768;
/// The longest duration of a scrape.
const ANSWERED: Duration = Duration::from_secs(1);

/// Returns the series of a page: names and labels, without the values.
fn series(page: &str) -> BTreeSet<&str> {
    let body = page.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    body.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| Some(line.rsplit_once(' ')?.0))
        .collect()
}

/// Also FL-06: nobody reads the counters during the flood.
#[test]
fn alone_fl_07_cp_07_scrapes_under_floods_answer_in_a_second() {
    let name = "alone_fl_07_cp_07_scrapes_under_floods_answer_in_a_second";
    let Some(lab) = Lab::new(name) else { return };
    lab.write_site(&format!(
        "[[allow]]\nname = \"portal\"\nfrom = [\"0.0.0.0/0\", \"::/0\"]\nto = [\"server\"]\nports = \"{UNLISTED}\"\n\
         protocol = \"tcp\"\nanywhere = true\n"
    ));
    let daemon = Daemon::start(&lab);
    let seconds = times("POMGUARD_FAULT_FLOOD", 10) as u64;
    let log = daemon.log();

    let mut random = Random(7);
    let mut flood = |port, flags| -> Vec<Vec<u8>> {
        let made = frames(&lab.stranger, &lab.server, |from, to| {
            vec![eth().ip(from, to).tcp(5_000, port).flags(flags)]
        });
        (0..SOURCES)
            .flat_map(|_| {
                let word = random.word();
                let v4 = Ipv4Addr::from_bits(0xc612_0000 | word as u32 & 0x1_ffff);
                made((v4, Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(word))), THE_SERVER)
            })
            .collect()
    };
    let offers = [flood(UNLISTED, flag::SYN), flood(LISTED, flag::SYN)]
        .map(|it| TrafficGenerator::start(&lab.stranger, it, RATE));

    let until = Instant::now() + Duration::from_secs(seconds);
    // The page shows the times of a row's first and last hit only after a hit.
    thread::sleep(Duration::from_millis(500));
    let first = lab.metrics();
    let mut scrapes = Vec::new();
    while Instant::now() < until {
        let mut page = String::new();
        let scraped = lab.server.run(|| {
            daemon.keeps(ANSWERED, "FL-07: a scrape answers", || {
                page = scrape();
                true
            })
        });
        scrapes.push(scraped.unwrap());
        assert!(page.starts_with("HTTP/1.1 200"), "FL-07: {page}");
        assert_eq!(series(&page), series(&first), "CP-07: no series comes with the addresses of strangers");
        // Longer than the time for which a page is cached.
        thread::sleep(Duration::from_millis(300));
    }
    let offered: u64 = offers.into_iter().map(TrafficGenerator::stop).sum();
    // Without a journal, the lines about strangers are in the log: at most ten a minute.
    let now = daemon.log();
    let lines = now.strip_prefix(log.as_str()).map_or(usize::MAX, |more| more.lines().count());
    assert!(
        lines <= 10 * (1 + seconds as usize / 60),
        "FL-06: a flood is counted, and told in few lines: {now}"
    );
    let stats = lab.stats();
    let judged = stats.row("site/portal", "inbound", "packets") + stats.reason("source", "inbound", "drop");
    assert!(judged > SOURCES as u64, "FL-06: {judged} of {offered} were judged: {stats}");
    for direction in ["inbound", "outbound"] {
        let [seen, passed, dropped] = ["seen", "passed", "dropped"].map(|it| stats.total(direction, it));
        assert_eq!(seen, passed + dropped, "FL-06: {direction}: {stats}");
    }
    let slowest = scrapes.iter().max().copied().unwrap_or_default();
    report(&format!(
        "{seconds} s of floods, {offered} packets of {} addresses: {} scrapes, the slowest after {} ms, no series and \
         no line of log more",
        4 * SOURCES,
        scrapes.len(),
        slowest.as_millis()
    ));
}
