//! Files decide who may connect, so only root may decide about them (case f15).

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, lchown, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use pomguard_tests::daemon::{Daemon, LISTED, Lab, REMOVABLE, SERVER, UNLISTED, is_shut, opens};

use crate::cli::{done, json, refused, said};

const NOBODY: u32 = 65_534;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A way in which another user can control a file.
struct Way {
    /// Gives the control to another user.
    spoil: fn(&Lab),
    /// Restores the owner or the permissions.
    mend: fn(&Lab),
    /// The command that the error message names, up to the path.
    command: &'static str,
}

fn folder(lab: &Lab) -> PathBuf {
    lab.config().parent().unwrap().to_owned()
}

const WAYS: [Way; 5] = [
    Way { spoil: |lab| mode(&lab.site(), 0o646), mend: |lab| mode(&lab.site(), 0o644), command: "chmod o-w" },
    Way {
        spoil: |lab| lchown(lab.site(), Some(NOBODY), Some(NOBODY)).unwrap(),
        mend: |lab| lchown(lab.site(), Some(0), Some(0)).unwrap(),
        command: "chown root",
    },
    Way {
        spoil: |lab| mode(&folder(lab), 0o777),
        mend: |lab| mode(&folder(lab), 0o755),
        command: "chmod go-w",
    },
    Way {
        spoil: |lab| {
            fs::rename(lab.site(), lab.file("real")).unwrap();
            symlink(lab.file("real"), lab.site()).unwrap();
            lchown(lab.site(), Some(NOBODY), Some(NOBODY)).unwrap();
        },
        mend: |lab| fs::rename(lab.file("real"), lab.site()).unwrap(),
        command: "chown -h root",
    },
    Way {
        spoil: |lab| lchown(lab.config(), Some(NOBODY), Some(NOBODY)).unwrap(),
        mend: |lab| lchown(lab.config(), Some(0), Some(0)).unwrap(),
        command: "chown root",
    },
];

#[test]
fn f15_files_in_other_hands_are_refused_by_every_way_in() {
    let Some(lab) = Lab::new("f15_files_in_other_hands_are_refused_by_every_way_in") else { return };
    lab.let_others_in();
    let daemon = Daemon::start(&lab);
    let before = lab.stats();
    // These files would remove a row.
    lab.write_site("[[row]]\nid = \"pom-4.0/16\"\nenabled = false\nforce = true\n");
    for Way { spoil, mend, command } in WAYS {
        spoil(&lab);
        for verb in [&["apply", "--quiet"][..], &["check"], &["check", "--quiet"], &["plan"]] {
            let message = refused(&lab, verb);
            assert!(message.contains(command), "{verb:?}: {command} is not in: {message}");
        }
        assert!(daemon.reload().contains("refused"), "{command}");
        // For an ordinary user, and for a site that is only tried, the check is a warning.
        let as_nobody = |verb: &[&str]| {
            let mut command = Command::new("/usr/bin/setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
            command.arg(lab.public_binary()).args(verb).arg("--config").arg(lab.config()).output().unwrap()
        };
        let check = as_nobody(&["check"]);
        assert!(check.status.success() && said(&check).contains("file-owner: "), "{}", said(&check));
        assert!(said(&check).contains(command), "{}", said(&check));
        let plan = as_nobody(&["plan"]);
        assert!(
            said(&plan).contains("pomguard: warning: ") && said(&plan).contains(command),
            "{}",
            said(&plan)
        );
        let site = lab.site().display().to_string();
        let tried = json(&lab, &["check", "--site", &site]);
        let notes: Vec<&str> =
            tried["notes"].as_array().unwrap().iter().filter_map(|it| it["kind"].as_str()).collect();
        assert!(notes.contains(&"file-owner"), "{tried}");
        mend(&lab);
        done(&lab, &["check", "--quiet"]);
    }
    assert_eq!(lab.stats().image(), before.image(), "nothing of it was put in force");
    assert!(opens(&lab.peer, SERVER, REMOVABLE));

    // A start with such files continues with the previous policy, and reports it.
    assert!(daemon.stop().success());
    lchown(lab.site(), Some(NOBODY), None).unwrap();
    let daemon = Daemon::start(&lab);
    let status = lab.pomguard(&["status"]);
    assert_eq!(status.status.code(), Some(3));
    assert!(
        said(&status).contains("files-refused") && said(&status).contains("chown root"),
        "{}",
        said(&status)
    );
    assert!(opens(&lab.peer, SERVER, REMOVABLE) && is_shut(&lab.peer, SERVER, UNLISTED));
    lchown(lab.site(), Some(0), None).unwrap();
    done(&lab, &["apply", "--quiet"]);
    assert!(is_shut(&lab.peer, SERVER, REMOVABLE) && opens(&lab.peer, SERVER, LISTED));
    drop(daemon);
}

/// The first start of a host: nothing is in force, and such files are not put in force.
#[test]
fn f15_first_start_with_files_in_other_hands_fails_aloud() {
    let Some(lab) = Lab::new("f15_first_start_with_files_in_other_hands_fails_aloud") else { return };
    lchown(lab.site(), Some(NOBODY), None).unwrap();
    let mut daemon = Daemon::spawn(&lab);
    assert_eq!(daemon.wait_end().code(), Some(1));
    let site = lab.site().display().to_string();
    assert!(daemon.log().contains(&format!("`chown root {site}`")), "{}", daemon.log());
    assert_eq!(lab.xdp_program(), None);
    // The owner that the settings name may own the files.
    let settings = fs::read_to_string(lab.config()).unwrap();
    fs::write(lab.config(), format!("{settings}\n[files]\nowner = \"{NOBODY}\"\n")).unwrap();
    let _daemon = Daemon::start(&lab);
    assert!(opens(&lab.peer, SERVER, LISTED) && is_shut(&lab.peer, SERVER, UNLISTED));
}
