//! Costs of pomguard other than the packets: memory, processor time at rest, and the time of a scrape.

use std::{
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::maps::MapData;
use pomguard_common::{limits, names};
use pomguard_record as record;
use pomguard_workspace::{self as workspace, process};

use super::{
    Setting,
    figures::{FootprintFigure, Spread},
    guard::{Guard, METRICS, Order},
    host::Host,
    mix::Mix,
    policy::{Family, NAME, Policy},
    random::Random,
    sender::Sender,
};

/// The time for which the idle daemon is observed.
const AT_REST: Duration = Duration::from_secs(4);
/// Number of scrapes, at rest and under a flood.
const SCRAPES: usize = 5;
/// Number of runs of a command that is timed.
const LOOKS: usize = 5;

/// Measures a daemon with the POM site of the examples, and a daemon with the largest number of tuples.
pub(super) fn run(setting: &Setting) -> Result<Vec<FootprintFigure>> {
    let mut sender = Sender::new(&workspace::root().join(record::BENCH_OBJECT))?;
    let mut figures = Vec::new();
    let mut note = |what: &str, value: f64, unit: &str| {
        figures.push(FootprintFigure { what: what.to_owned(), value, unit: unit.to_owned() });
    };

    setting.say("memory, rest and scrapes: the example POM site");
    let host = Host::new(&mut sender, "pom-site")?;
    host.share_processor()?;
    let site = workspace::root().join("config/site.example.toml");
    let site = fs::read_to_string(&site).with_context(|| site.display().to_string())?;
    // The example's first server.
    let site = site.replace("\"pom1\"", &format!("\"{NAME}\""));
    let guard = Guard::on(setting, &host.namespace, &host.interface, &Order::enforce("pom-site", &site))?;
    note("daemon, resident, POM site", resident(guard.process())?, "MB");
    note("daemon, at rest, POM site", at_rest(guard.process())?, "ms of CPU per s");
    note("scrape, POM site", scrapes(&host)?.median, "ms");
    let policy = Policy::random(Family::V4, 1_000)?;
    let strangers = Mix::Port.flows(&policy, &mut Random(3))?;
    sender.fill(&Mix::Port.headers(Family::V4, &strangers))?;
    note("scrape under a flood, POM site", flooded(&mut sender, &host, || scrapes(&host))?.median, "ms");
    note("`pomguard stats`, POM site", looks(setting, &guard, &host)?.median, "ms");
    drop(guard);

    setting.say("a look at 4,096 rows");
    let host = Host::new(&mut sender, "many-rows")?;
    let site = many_rows()?;
    let guard = Guard::on(setting, &host.namespace, &host.interface, &Order::enforce("many-rows", &site))?;
    note("`pomguard stats`, 4,096 rows", looks(setting, &guard, &host)?.median, "ms");
    drop(guard);

    setting.say("memory: 100,000 tuples");
    let host = Host::new(&mut sender, "large-site")?;
    let site = Policy::random(Family::V4, limits::TUPLES)?.site_file()?;
    let guard = Guard::on(setting, &host.namespace, &host.interface, &Order::enforce("large-site", &site))?;
    note("daemon, resident, 100,000 tuples", resident(guard.process())?, "MB");
    note("read, resolve and compile 100,000 tuples", checks(setting, &guard)?.median, "ms");
    let maps = guard.pins.join("maps");
    let image = folder(&guard.pins.join("images"))?;
    note("image in the kernel, per generation", image / 1e6, "MB");
    note("per tuple, of 100,000", image / limits::TUPLES as f64, "bytes");
    let flows = locked(&maps.join(names::MAP_FLOWS))?;
    note("per flow, of 262,144", flows / limits::FLOWS as f64, "bytes");
    note("all maps in the kernel, one generation", (image + folder(&maps)?) / 1e6, "MB");
    Ok(figures)
}

/// Returns a site file with the largest possible number of inbound rows.
fn many_rows() -> Result<String> {
    let mut text = Policy::random(Family::V4, 0)?.site_file()?;
    // The outbound row to anywhere is an inbound row, too, because "anywhere" includes the host.
    for row in 1..limits::ROWS {
        let [high, low] = (row as u16).to_be_bytes();
        writeln!(
            text,
            "\n[[allow]]\nname = \"row-{row}\"\nfrom = [\"11.0.{high}.{low}\"]\nto = [\"{NAME}\"]\n\
             ports = \"{}\"\nprotocol = \"tcp\"",
            10_000 + row % 100
        )?;
    }
    Ok(text)
}

/// Returns the resident memory of a process in megabytes.
fn resident(process: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS")?;
    Ok(kilobytes * 1024.0 / 1e6)
}

/// Returns the milliseconds per second that an idle process runs.
fn at_rest(process: u32) -> Result<f64> {
    let run_time = || -> Result<f64> {
        let mut all = 0.0;
        for thread in fs::read_dir(format!("/proc/{process}/task"))? {
            let text = fs::read_to_string(thread?.path().join("schedstat"))?;
            let first = text.split_whitespace().next().context("an empty schedstat")?;
            all += first.parse::<f64>()? / 1e6;
        }
        Ok(all)
    };
    let before = run_time()?;
    thread::sleep(AT_REST);
    Ok((run_time()? - before) / AT_REST.as_secs_f64())
}

/// Returns the bytes of a pinned map, by the kernel's accounting.
fn locked(pin: &Path) -> Result<f64> {
    let map = MapData::from_pin(pin).with_context(|| pin.display().to_string())?;
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:")).context("no memlock")?;
    line.trim().parse().context("memlock")
}

/// Returns the bytes of all maps that are pinned in a folder.
fn folder(pins: &Path) -> Result<f64> {
    let entries = fs::read_dir(pins).with_context(|| pins.display().to_string())?;
    entries.map(|entry| locked(&entry?.path())).sum()
}

/// Returns the milliseconds of some scrapes, one after another.
fn scrapes(host: &Host) -> Result<Spread> {
    let one = || -> Result<f64> {
        let begin = Instant::now();
        let mut stream = TcpStream::connect(METRICS)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {METRICS}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        if !page.starts_with("HTTP/1.1 200") {
            bail!("the metrics page says: {}", page.lines().next().unwrap_or_default());
        }
        let took = begin.elapsed();
        // The daemon caches a page for a second. A later scrape makes a new page.
        thread::sleep(Duration::from_millis(1_100));
        Ok(took.as_secs_f64() * 1e3)
    };
    let samples = host.namespace.run(|| (0..SCRAPES).map(|_| one()).collect::<Result<Vec<_>>>())??;
    Spread::of(samples).context("nobody scraped")
}

/// Returns the milliseconds of `pomguard stats`. The command starts from inside the namespace: a command that
/// enters the namespace by itself is forked, and copying the bench's mappings takes longer than the measured
/// command.
fn looks(setting: &Setting, guard: &Guard, host: &Host) -> Result<Spread> {
    let mut command = Command::new(&setting.binary);
    command.args(["stats", "--json", "--config"]).arg(&guard.config).stdout(Stdio::null());
    Spread::of(host.namespace.run(|| times(&mut command))??).context("nobody looked")
}

/// Returns the milliseconds of `pomguard check`: from the files to the image, without a kernel.
fn checks(setting: &Setting, guard: &Guard) -> Result<Spread> {
    let mut command = Command::new(&setting.binary);
    command.args(["check", "--quiet", "--config"]).arg(&guard.config);
    Spread::of(times(&mut command)?).context("nothing was checked")
}

/// Returns the milliseconds of several runs of a command.
fn times(command: &mut Command) -> Result<Vec<f64>> {
    let one = |_| {
        let begin = Instant::now();
        process::run(command)?;
        Ok(begin.elapsed().as_secs_f64() * 1e3)
    };
    (0..LOOKS).map(one).collect()
}

/// Runs `work` while packets come in as fast as the host takes them.
fn flooded<T>(sender: &mut Sender, host: &Host, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        let flood = scope.spawn(|| sender.flood(host.link, || !enough.load(Ordering::Relaxed)));
        let done = work();
        enough.store(true, Ordering::Relaxed);
        flood.join().map_err(|_| anyhow!("the sender panicked"))??;
        done
    })
}
