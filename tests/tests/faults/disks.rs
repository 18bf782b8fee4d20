//! A state folder on a disk that accepts no more data, under load.

use std::{
    fs,
    io::Write as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use pomguard_tests::{
    daemon::{Daemon, Lab},
    faults::{
        Leftovers, Load,
        policies::{Policy, Touchstone},
        report,
    },
};

/// The longest time of a step on a busy machine. The daemon tries to save its state again every few seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// Room for the files of a few changes, and that number of inodes.
const SMALL: &str = "size=4m,nr_inodes=256";
const FILLING: &str = "filling";

/// The reason why the disk accepts no data.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    Full,
    WithoutInodes,
    ReadOnly,
}

/// The laboratory's state folder, on a small disk of its own.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn new(folder: &'a Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        mount(Some("small"), folder, Some("tmpfs"), MsFlags::empty(), Some(SMALL)).unwrap();
        fs::create_dir(folder.join(FILLING)).unwrap();
        Self(folder)
    }

    fn refuse(&self, why: Refusal) {
        let filling = self.0.join(FILLING);
        match why {
            Refusal::Full => {
                let mut file = fs::File::create(filling.join("0")).unwrap();
                while file.write_all(&[0; 4096]).is_ok() {}
            }
            Refusal::WithoutInodes => {
                let mut files = 0..;
                while files
                    .next()
                    .is_some_and(|name| fs::File::create(filling.join(format!("{name}"))).is_ok())
                {
                }
            }
            Refusal::ReadOnly => self.remount(MsFlags::MS_RDONLY),
        }
        fs::write(self.0.join("probe"), [0; 4096]).unwrap_err();
    }

    fn take(&self, why: Refusal) {
        if matches!(why, Refusal::ReadOnly) {
            self.remount(MsFlags::empty());
        }
        let filling = self.0.join(FILLING);
        fs::remove_dir_all(&filling).unwrap();
        fs::create_dir(filling).unwrap();
        let _ = fs::remove_file(self.0.join("probe"));
    }

    fn remount(&self, flags: MsFlags) {
        mount(None::<&str>, self.0, None::<&str>, MsFlags::MS_REMOUNT | flags, None::<&str>).unwrap();
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        // The thread may be the process' main thread and live on.
        let _ = umount2(self.0, MntFlags::MNT_DETACH);
    }
}

/// Waits until the daemon reports, or no longer reports, that its state is not on disk.
fn wait_unsaved(lab: &Lab, daemon: &Daemon, unsaved: bool, when: &str) {
    let line = format!("pomguard_state{{state=\"state-unsaved\"}} {}", u8::from(unsaved));
    let until = Instant::now() + PATIENCE;
    while !lab.metrics().lines().any(|it| it == line) {
        assert!(Instant::now() < until, "{when}: never {line}: {}", daemon.log());
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn lc_21_full_disk_under_load_hinders_no_reload() {
    let name = "lc_21_full_disk_under_load_hinders_no_reload";
    let Some(lab) = Lab::new(name) else { return };
    let state = lab.state();
    let disk = Disk::new(&state);
    Policy::One.write(&lab);
    let daemon = Daemon::start(&lab);
    wait_unsaved(&lab, &daemon, false, "at first");
    let mut touchstone = Touchstone::new(&lab);
    let mut load = Load::start(&lab, 32, 10_000);
    let mut policy = Policy::One;
    for why in [Refusal::Full, Refusal::WithoutInodes, Refusal::ReadOnly] {
        let when = format!("LC-21, {why:?}");
        disk.refuse(why);
        policy = policy.next();
        policy.write(&lab);
        let status = daemon.reload();
        assert!(!status.contains("refused"), "{when}: {status}");
        assert_eq!(touchstone.which(&when), policy, "{when}: a reload goes on without its record");
        wait_unsaved(&lab, &daemon, true, &when);
        assert_eq!(
            lab.pomguard(&["status"]).status.code(),
            Some(3),
            "{when}: there is something to attend to"
        );

        policy.next().write(&lab);
        let apply = lab.pomguard(&["apply", "--confirm-within", "60s", "--quiet"]);
        let said = String::from_utf8_lossy(&apply.stderr);
        assert_eq!(apply.status.code(), Some(1), "{when}: {apply:?}");
        assert!(said.contains("history") && said.contains("nothing was changed"), "{when}: {said}");
        assert_eq!(touchstone.which(&when), policy, "{when}: an operator's change needs a record");
        Leftovers::of(&lab).assert_whole(&when);
        load.assert_none_delivered(&when);

        disk.take(why);
        wait_unsaved(&lab, &daemon, false, &when);
        policy = policy.next();
        let apply = lab.pomguard(&["apply", "--quiet"]);
        assert!(apply.status.success(), "{when}, with room again: {apply:?}");
        assert_eq!(touchstone.which(&when), policy, "{when}, with room again");
    }
    let outcome = load.finish(&lab, "LC-21").assert_none_delivered_none_lost();
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    assert!(daemon.stop().success());

    // The disk holds the policy in force, which a boot uses if the files are unusable.
    assert!(lab.pomguard(&["detach", "--yes"]).status.success());
    fs::write(lab.site(), "systems = 7\n").unwrap();
    let daemon = Daemon::start(&lab);
    assert_eq!(touchstone.which("LC-21, after a boot"), policy);
    assert!(daemon.stop().success());
    report(&format!("a disk that is full, without inodes, read-only: 3 reloads in force, {outcome}"));
}
