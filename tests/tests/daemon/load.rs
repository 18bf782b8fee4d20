//! Reloads while connections come and go.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use pomguard_tests::daemon::{Connection, Daemon, LISTED, Lab, REMOVABLE, SERVER, SERVER6};

const RELOADS: u64 = 50;

/// FL-09.
#[test]
fn no_connection_fails_while_policies_change() {
    let Some(lab) = Lab::new("no_connection_fails_while_policies_change") else { return };
    let daemon = Daemon::start(&lab);
    let first = lab.stats();
    let (done, opened) = (AtomicBool::new(false), AtomicU64::new(0));
    let running = || !done.load(Ordering::Relaxed);
    let mut transfer = Connection::open(&lab.peer, SERVER, LISTED);
    thread::scope(|scope| {
        // If anything fails below, the other threads still end.
        let _end = Raise(&done);
        let streams = [SERVER.into(), std::net::IpAddr::from(SERVER6)].map(|server| {
            let (lab, opened) = (&lab, &opened);
            scope.spawn(move || {
                while running() {
                    assert!(Connection::open(&lab.peer, server, REMOVABLE).answers());
                    opened.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let block = scope.spawn(|| {
            let block = vec![0x5a; 30_000];
            while running() {
                assert!(transfer.carries(&block, Duration::from_secs(10)), "the transfer stands still");
            }
        });
        for reload in 0..RELOADS {
            let port = 20_000 + reload % 2;
            lab.write_site(&format!(
                "[[allow]]\nname = \"turn\"\nfrom = [\"10.77.0.3\"]\nto = [\"server\"]\nports = \"{port}\"\n\
                 protocol = \"tcp\"\n"
            ));
            let status = daemon.reload();
            assert!(!status.contains("refused"), "{status}");
        }
        done.store(true, Ordering::Relaxed);
        assert!(streams.into_iter().chain([block]).all(|task| task.join().is_ok()));
    });
    let last = lab.stats();
    assert_eq!(last.generation(), first.generation() + RELOADS);
    assert!(opened.load(Ordering::Relaxed) > RELOADS, "there was load");
    // TCP would send a lost SYN again, so the drop counters show that none was dropped.
    for direction in ["inbound", "outbound"] {
        assert_eq!(last.total(direction, "dropped"), 0, "{direction}: {last}");
    }
    let connections = last.row("pom-4.0/16", "inbound", "connections");
    assert_eq!(connections, opened.load(Ordering::Relaxed), "each was counted once");
}

/// A guard that sets a flag when dropped.
struct Raise<'a>(&'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
