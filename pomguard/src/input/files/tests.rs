use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};

use super::*;
use crate::input::{Draft, Settings};

const NOBODY: u32 = 65_534;

/// A folder of root with a settings, a site and a matrix file, each in a folder of its own. `None` without
/// root, because only root can change the owner of a file.
struct Tree {
    folder: tempfile::TempDir,
}

impl Tree {
    fn new() -> Option<Self> {
        if !geteuid().is_root() {
            return None;
        }
        let tree = Self { folder: tempfile::tempdir().unwrap() };
        for folder in ["etc", "sites", "matrices"] {
            fs::create_dir(tree.at(folder)).unwrap();
        }
        tree.settings("");
        fs::write(tree.at("matrices/own.toml"), include_str!("../../../../config/matrix/pom-4.0.toml"))
            .unwrap();
        let site = "matrix = \"../matrices/own.toml\"\nzones = 1\n[[host]]\nname = \"a\"\naddresses = [\"10.0.0.1\"]\n\
                    systems = [\"Kafka\"]\n";
        fs::write(tree.at("sites/site.toml"), site).unwrap();
        for entry in ["", "etc", "sites", "matrices"] {
            tree.mode(entry, 0o755);
        }
        for entry in ["etc/pomguard.toml", "sites/site.toml", "matrices/own.toml"] {
            tree.mode(entry, 0o644);
        }
        Some(tree)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn settings(&self, more: &str) {
        let text = format!("site = \"../sites/site.toml\"\ninterfaces = [\"eth0\"]\n{more}");
        fs::write(self.at("etc/pomguard.toml"), text).unwrap();
    }

    fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.at(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn give(&self, name: &str, user: u32, group: u32) {
        lchown(self.at(name), Some(user), Some(group)).unwrap();
    }

    /// Returns the refusal, or an empty text.
    fn refused(&self) -> String {
        Draft::load(&self.at("etc/pomguard.toml")).err().map(|faults| faults.to_string()).unwrap_or_default()
    }

    /// Returns the warnings about files that are read despite them.
    fn reported(&self) -> Vec<String> {
        let mut files = Files::reported();
        Draft::read(&mut files, &self.at("etc/pomguard.toml")).unwrap();
        files.concerns().iter().map(ToString::to_string).collect()
    }
}

/// Case f15, and each file, folder and link of that kind.
#[test]
fn f15_what_others_could_change_is_refused_with_the_command() {
    let Some(tree) = Tree::new() else { return };
    assert_eq!(tree.refused(), "", "a folder of root's in the sticky /tmp is safe");
    assert!(tree.reported().is_empty());
    for name in ["etc/pomguard.toml", "sites/site.toml", "matrices/own.toml", "etc", "sites", "matrices", ""]
    {
        let path = tree.at(name).display().to_string();
        let path = path.trim_end_matches('/');
        let before = fs::metadata(tree.at(name)).unwrap().mode() & 0o7777;
        let modes = [(0o020, "g-w", "the group"), (0o002, "o-w", "everybody"), (0o022, "go-w", "everybody")];
        for (bits, mends, who) in modes {
            tree.mode(name, before | bits);
            let message = tree.refused();
            assert!(
                message.contains(&format!("`chmod {mends} {path}`")) && message.contains(who),
                "{name}: {message}"
            );
            assert!(tree.reported().iter().any(|message| message.contains(mends)), "{name}");
            tree.mode(name, before);
        }
        tree.give(name, NOBODY, NOBODY);
        let message = tree.refused();
        assert!(
            message.contains(&format!("`chown root {path}`")) && message.contains("uid 65534"),
            "{message}"
        );
        assert!(tree.reported().iter().any(|message| message.contains("chown root")));
        tree.give(name, 0, 0);
        assert_eq!(tree.refused(), "", "mended");
    }
}

#[test]
fn f15_link_of_an_ordinary_user_is_refused_wherever_it_stands() {
    let Some(tree) = Tree::new() else { return };
    fs::rename(tree.at("sites"), tree.at("real")).unwrap();
    symlink(tree.at("real"), tree.at("sites")).unwrap();
    assert_eq!(tree.refused(), "", "a link of root's is as good as what it leads to");
    tree.give("sites", NOBODY, NOBODY);
    let link = tree.at("sites").display().to_string();
    assert!(tree.refused().contains(&format!("`chown -h root {link}`")), "{}", tree.refused());
    tree.give("sites", 0, 0);
    // The folder of a link counts, too, and so does a link behind a link.
    fs::create_dir(tree.at("links")).unwrap();
    fs::rename(tree.at("real/site.toml"), tree.at("real/true.toml")).unwrap();
    symlink("../links/site.toml", tree.at("real/site.toml")).unwrap();
    symlink("../real/true.toml", tree.at("links/site.toml")).unwrap();
    tree.mode("links", 0o755);
    assert_eq!(tree.refused(), "");
    tree.mode("links", 0o777);
    assert!(tree.refused().contains("`chmod go-w "), "{}", tree.refused());
    tree.mode("links", 0o755);
    tree.give("links/site.toml", NOBODY, 0);
    assert!(tree.refused().contains("`chown -h root "), "{}", tree.refused());
    // A cycle of links ends with an error of its own.
    fs::remove_file(tree.at("links/site.toml")).unwrap();
    symlink("site.toml", tree.at("links/site.toml")).unwrap();
    assert!(tree.refused().contains("cannot be opened"), "{}", tree.refused());
}

#[test]
fn sticky_folder_of_root_is_safe_for_what_belongs_to_root() {
    let Some(tree) = Tree::new() else { return };
    tree.mode("sites", 0o1777);
    assert_eq!(tree.refused(), "");
    tree.give("sites/site.toml", NOBODY, 0);
    assert!(tree.refused().contains("can change it"), "{}", tree.refused());
    tree.give("sites/site.toml", 0, 0);
    tree.give("sites", NOBODY, 0);
    assert!(tree.refused().contains("can replace what is in it"), "its owner may remove anything in it");
    tree.give("sites", 0, 0);
    fs::hard_link(tree.at("sites/site.toml"), tree.at("etc/second")).unwrap();
    assert!(tree.refused().contains("has a second name"), "{}", tree.refused());
    tree.mode("sites", 0o755);
    assert_eq!(tree.refused(), "", "in a folder of root's a second name is root's, too");
}

#[test]
fn files_of_another_owner_count_if_the_settings_name_it() {
    let Some(tree) = Tree::new() else { return };
    // Users by number, because every machine has these numbers.
    tree.settings("[files]\nowner = \"1234:2345\"\n");
    for name in ["sites", "sites/site.toml", "matrices"] {
        tree.give(name, 1_234, 2_345);
    }
    tree.mode("sites", 0o2775);
    tree.mode("sites/site.toml", 0o664);
    assert_eq!(tree.refused(), "");
    tree.mode("sites/site.toml", 0o666);
    assert!(tree.refused().contains("`chmod o-w "), "{}", tree.refused());
    tree.mode("sites/site.toml", 0o664);
    tree.give("sites/site.toml", 1_234, 1_235);
    assert!(tree.refused().contains("`chmod g-w "), "another group: {}", tree.refused());
    tree.give("sites/site.toml", 1_235, 2_345);
    assert!(tree.refused().contains("`chown root "), "another user: {}", tree.refused());
    tree.give("sites/site.toml", 1_234, 2_345);
    // The settings cannot name their own owner.
    for name in ["etc/pomguard.toml", "etc"] {
        tree.give(name, 1_234, 0);
        assert!(tree.refused().contains("`chown root "), "{}", tree.refused());
        tree.give(name, 0, 0);
    }
    for (owner, message) in [
        ("no-such-user", "no user no-such-user"),
        (":no-such-group", "no group no-such-group"),
        ("1234:daemon", "never decide"),
        ("", "is empty"),
        (":", "no user or group"),
        ("root:", "no user or group"),
        ("a b", "no user or group"),
    ] {
        tree.settings(&format!("[files]\nowner = \"{owner}\"\n[control]\ngroup = \"daemon\"\n"));
        assert!(tree.refused().contains(message), "{owner}: {}", tree.refused());
    }
}

/// With an access list, the group-write bit can mean that the list lets another user write.
#[test]
fn access_list_on_a_file_of_the_group_is_refused() {
    let Some(tree) = Tree::new() else { return };
    tree.settings("[files]\nowner = \":2345\"\n");
    tree.give("sites/site.toml", 0, 2_345);
    tree.mode("sites/site.toml", 0o664);
    assert_eq!(tree.refused(), "");
    // linux/posix_acl_xattr.h: the version, then tag, permissions and id of each entry. Uid 65534 may write.
    let none = u32::MAX;
    let entries: [(u16, u16, u32); 5] =
        [(1, 6, none), (2, 6, NOBODY), (4, 4, none), (16, 6, none), (32, 4, none)];
    let entry = |(tag, may, id): (u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &may.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let list = [&2_u32.to_le_bytes()[..], &entries.map(entry).concat()].concat();
    let path = CString::new(tree.at("sites/site.toml").as_os_str().as_bytes()).unwrap();
    let name = c"system.posix_acl_access";
    // SAFETY: the texts end with a zero byte, and the buffer is as long as said; all outlive the call.
    let result =
        unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), list.as_ptr().cast(), list.len(), 0) };
    if result != 0 {
        return; // A file system without access lists.
    }
    assert!(tree.refused().contains("`setfacl -b "), "{}", tree.refused());
}

/// Exceptions, the image for the next boot and the history come from these folders.
#[test]
fn folders_of_the_daemon_in_other_hands_are_refused() {
    let Some(tree) = Tree::new() else { return };
    for (key, name) in [("state", "matrices/state"), ("runtime", "matrices/run")] {
        let path = tree.at(name).display().to_string();
        tree.settings(&format!("[files]\nowner = \"1234\"\n[paths]\n{key} = \"{path}\"\n"));
        assert_eq!(tree.refused(), "", "one that is not there yet");
        fs::create_dir(tree.at(name)).unwrap();
        tree.mode(name, 0o700);
        assert_eq!(tree.refused(), "");
        for owner in [NOBODY, 1_234] {
            tree.give(name, owner, 0);
            assert!(tree.refused().contains(&format!("`chown root {path}`")), "{}", tree.refused());
            assert!(
                Settings::load(&tree.at("etc/pomguard.toml")).is_err(),
                "a start does not go by it either"
            );
        }
        tree.give(name, 0, 0);
        tree.mode(name, 0o770);
        assert!(tree.refused().contains(&format!("`chmod g-w {path}`")), "{}", tree.refused());
        tree.mode(name, 0o700);
        tree.mode("matrices", 0o777);
        assert!(tree.refused().contains("`chmod go-w "), "{}", tree.refused());
        tree.mode("matrices", 0o755);
    }
}

#[test]
fn paths_are_quoted_for_a_shell() {
    assert_eq!(quoted(Path::new("/etc/pomguard/site.toml")), "/etc/pomguard/site.toml");
    assert_eq!(quoted(Path::new("/srv/it's here/$x")), "'/srv/it'\\''s here/$x'");
}

#[test]
fn relative_path_is_judged_by_the_folder_that_it_starts_in() {
    if !geteuid().is_root() {
        return;
    }
    let mut walk = Walk { owner: Owner::default(), found: Vec::new() };
    let facts = walk.follow(Path::new("src/../Cargo.toml")).unwrap();
    assert_eq!(facts.ino(), fs::metadata("Cargo.toml").unwrap().ino());
}
