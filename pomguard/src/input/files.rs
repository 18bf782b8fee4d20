//! Checks that only root could have written a file that decides who may connect.
//!
//! A site, settings or matrix file counts only if root alone could have written it: the file, each folder on
//! the path from `/`, and each symbolic link. A user who owns any of them, or may write to any of them, decides
//! which connections this host allows. The same check covers the folders of `[paths]`, as far as they exist:
//! exceptions, the image for the next boot and the history come from there.
//!
//! A folder that everybody may write to is safe if it has the sticky bit and belongs to root, as `/tmp` does:
//! there nobody can rename or remove a file of root. A file in such a folder must have no second name, since
//! anybody could have made a hard link to an old file of root there.

use std::{
    ffi::CString,
    fmt, fs, io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Component, Path, PathBuf},
    ptr,
};

use nix::unistd::{Gid, Group, Uid, User, geteuid};

use super::diagnostic::{Diagnostic, Diagnostics, Fault};
use crate::model::Origin;

/// Permission of the group to write.
const GROUP_WRITES: u32 = 0o020;
/// Permission of everybody to write.
const OTHERS_WRITE: u32 = 0o002;
/// Sticky bit: only the owner of an entry, or of the folder, can rename or remove the entry.
const STICKY: u32 = 0o1000;
/// Most links that are followed, as in the kernel.
const LINKS: usize = 40;

/// `[files] owner` as written: a user, a group, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileOwner {
    /// The user who may own files and folders besides root.
    pub user: Option<String>,
    /// The group whose members may write to them.
    pub group: Option<String>,
}

impl fmt::Display for FileOwner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.user.as_deref().unwrap_or_default())?;
        self.group.as_ref().map_or(Ok(()), |group| write!(out, ":{group}"))
    }
}

impl FileOwner {
    /// Parses `user`, `user:group` or `:group`.
    pub(super) fn read(written: &str) -> Result<Self, Fault> {
        let (user, group) = match written.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (written, None),
        };
        let named = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        let owner = Self { user: named(user), group: group.and_then(named) };
        let whole = group.is_none_or(|group| !group.is_empty()) && written != ":";
        let taken = |name: &Option<String>| name.as_ref().is_none_or(|name| is_name(name));
        if !whole || !taken(&owner.user) || !taken(&owner.group) {
            return Err(Fault::new(
                "no user or group",
                "write \"user\", \"user:group\" or \":group\", by name or number",
            ));
        }
        Ok(owner)
    }
}

/// Numeric ids of the user and the group that may own and write files besides root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Owner {
    user: Option<u32>,
    group: Option<u32>,
}

/// The consequence of a file that another user could change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// The file is refused.
    Demanded,
    /// The file is read, and the concern is reported.
    Reported,
}

/// Reads the files of one draft, and checks who could change them.
#[derive(Clone, Debug)]
pub struct Files {
    trust: Trust,
    owner: Owner,
    concerns: Vec<Diagnostic>,
}

impl Files {
    /// Refuses a file that a user other than root could change, if this process could put the file in force. A
    /// process without root cannot, and may read any file.
    #[must_use]
    pub fn of_process() -> Self {
        let trust = if geteuid().is_root() { Trust::Demanded } else { Trust::Reported };
        Self { trust, owner: Owner::default(), concerns: Vec::new() }
    }

    /// Reads any file. [`Self::concerns`] lists the findings for which the service would refuse a file.
    #[must_use]
    pub const fn reported() -> Self {
        Self { trust: Trust::Reported, owner: Owner { user: None, group: None }, concerns: Vec::new() }
    }

    /// Returns the findings for which the service refuses the files, in the order in which they were found.
    #[must_use]
    pub fn concerns(&self) -> &[Diagnostic] {
        &self.concerns
    }

    /// Takes `[files] owner`, written at `origin`, for the files that the settings name. The settings file must
    /// belong to root: otherwise it could name its own owner. `control_group` may not own files.
    pub(super) fn entrust(
        &mut self,
        owner: &FileOwner,
        origin: &Origin,
        control_group: &str,
    ) -> Result<(), Diagnostics> {
        let wrong = |problem: String, remedy: &str| {
            let name = |of: &Option<String>| of.clone().unwrap_or_default();
            let found = format!("{}:{}", name(&owner.user), name(&owner.group));
            Diagnostics::one(origin.clone(), &found, &problem, remedy)
        };
        let unknown = |kind: &str, name: &str| {
            wrong(format!("this machine has no {kind} {name}"), "write one that `getent` finds")
        };
        let user = owner.user.as_deref();
        let user = user.map(|name| user_number(name).ok_or_else(|| unknown("user", name))).transpose()?;
        let group = owner.group.as_deref();
        let group = group.map(|name| group_number(name).ok_or_else(|| unknown("group", name))).transpose()?;
        if group.is_some() && group == group_number(control_group) {
            return Err(wrong(
                format!("the members of {control_group} may ask the daemon, and never decide"),
                "write another group than that of [control]",
            ));
        }
        self.owner = Owner { user, group };
        Ok(())
    }

    /// Checks an opened file and the path that leads to the file.
    pub(super) fn judge(&mut self, path: &Path, opened: &fs::Metadata) -> Result<(), Diagnostics> {
        let mut walk = Walk { owner: self.owner, found: Vec::new() };
        let found = match walk.follow(path) {
            Ok(facts) if (facts.dev(), facts.ino()) == (opened.dev(), opened.ino()) => walk.found,
            Ok(_) => vec![Concern {
                found: "the file".to_owned(),
                problem: "was replaced while it was read".to_owned(),
                remedy: "try again".to_owned(),
            }],
            Err(error) => vec![Concern::unseen("the file", &error)],
        };
        self.take(&path.display().to_string(), found)
    }

    /// Checks the folders that `file` names, as far as they exist. Only root may own these folders.
    pub(super) fn judge_folders(&mut self, file: &str, folders: [&Path; 2]) -> Result<(), Diagnostics> {
        for path in folders {
            let mut walk = Walk { owner: Owner::default(), found: Vec::new() };
            let found = match walk.follow(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    vec![Concern::unseen(&format!("the folder {}", path.display()), &error)]
                }
                _ => walk.found,
            };
            self.take(file, found)?;
        }
        Ok(())
    }

    /// Refuses a file because of the findings, or keeps the findings as concerns.
    fn take(&mut self, file: &str, found: Vec<Concern>) -> Result<(), Diagnostics> {
        let diagnostic = |Concern { found, problem, remedy }| {
            let origin = Origin { file: file.into(), line: 1 };
            Diagnostic { origin, found, problem, remedy }
        };
        let found: Vec<Diagnostic> = found.into_iter().map(diagnostic).collect();
        if self.trust == Trust::Demanded && !found.is_empty() {
            return Err(Diagnostics(found));
        }
        for concern in found {
            // Two files mostly share their folders, so their concerns repeat.
            if !self.concerns.iter().any(|it| (&it.found, &it.problem) == (&concern.found, &concern.problem))
            {
                self.concerns.push(concern);
            }
        }
        Ok(())
    }
}

/// Returns the number of a user, by name or number.
fn user_number(name: &str) -> Option<u32> {
    let found = || User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
    name.parse().ok().or_else(found)
}

/// Returns the number of a group, by name or number.
fn group_number(name: &str) -> Option<u32> {
    let found = || Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
    name.parse().ok().or_else(found)
}

/// A finding that a user other than root could change something.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Concern {
    found: String,
    problem: String,
    remedy: String,
}

impl Concern {
    /// The path to `what` cannot be checked.
    fn unseen(what: &str, error: &io::Error) -> Self {
        Self {
            found: format!("the way to {what}"),
            problem: format!("cannot be looked at: {error}"),
            remedy: "check the path and its permissions".to_owned(),
        }
    }
}

/// Kinds of entries on the path to a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Link,
    Folder,
    File,
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Link => "the link",
            Self::Folder => "the folder",
            Self::File => "the file",
        })
    }
}

/// A walk from `/` to a file, which checks each entry before it looks up the next.
struct Walk {
    owner: Owner,
    found: Vec<Concern>,
}

impl Walk {
    /// Follows a path through all its links and returns the metadata of the end.
    fn follow(&mut self, path: &Path) -> io::Result<fs::Metadata> {
        let absolute = std::path::absolute(path)?;
        let mut ahead = steps(&absolute);
        let mut at = PathBuf::from("/");
        let mut facts = fs::symlink_metadata(&at)?;
        self.judge(&at, &facts, Kind::Folder, false);
        let mut links = 0;
        while let Some(step) = ahead.pop() {
            let next = match step {
                Step::Top => PathBuf::from("/"),
                // `at` has no links, so its parent is the folder that contains `at`.
                Step::Up => at.parent().unwrap_or_else(|| Path::new("/")).to_owned(),
                Step::Down(name) => at.join(name),
            };
            let entry = fs::symlink_metadata(&next)?;
            let shared = is_shared(&facts);
            if entry.is_symlink() {
                links += 1;
                if links > LINKS {
                    return Err(io::Error::from_raw_os_error(libc::ELOOP));
                }
                self.judge(&next, &entry, Kind::Link, shared);
                ahead.extend(steps(&fs::read_link(&next)?));
                continue;
            }
            let kind = if entry.is_dir() { Kind::Folder } else { Kind::File };
            self.judge(&next, &entry, kind, shared);
            (at, facts) = (next, entry);
        }
        Ok(facts)
    }

    /// Checks one entry of a folder. `shared` is true if everybody may add entries to that folder.
    fn judge(&mut self, path: &Path, facts: &fs::Metadata, kind: Kind, shared: bool) {
        let shown = quoted(path);
        let mut add = |problem: String, remedy: String| {
            let concern = Concern { found: format!("{kind} {}", path.display()), problem, remedy };
            if !self.found.contains(&concern) {
                self.found.push(concern);
            }
        };
        if facts.uid() != 0 && Some(facts.uid()) != self.owner.user {
            let (can, command) = match kind {
                Kind::Link => ("can point it elsewhere", "chown -h root"),
                Kind::Folder => ("can replace what is in it", "chown root"),
                Kind::File => ("can change it", "chown root"),
            };
            add(format!("belongs to {}, who {can}", user_name(facts.uid())), format!("`{command} {shown}`"));
        }
        // The permissions of a link have no effect.
        if kind == Kind::Link || (kind == Kind::Folder && facts.mode() & STICKY != 0) {
            return;
        }
        let group = facts.mode() & GROUP_WRITES != 0 && Some(facts.gid()) != self.owner.group;
        let others = facts.mode() & OTHERS_WRITE != 0;
        let (who, bits) = match (group, others) {
            (false, false) => (None, ""),
            (true, false) => (Some(group_name(facts.gid())), "g-w"),
            (false, true) => (Some("everybody".to_owned()), "o-w"),
            (true, true) => (Some("everybody".to_owned()), "go-w"),
        };
        if let Some(who) = who {
            let by = if kind == Kind::Folder { ", who can replace what is in it" } else { "" };
            add(format!("can be written by {who}{by}"), format!("`chmod {bits} {shown}`"));
        }
        // With an access list, the group bits are the mask: the most that the list gives to anybody.
        if facts.mode() & GROUP_WRITES != 0 && !group && has_access_list(path) {
            add("has an access list, by which others may write".to_owned(), format!("`setfacl -b {shown}`"));
        }
        if kind == Kind::File && shared && facts.nlink() > 1 {
            add(
                "has a second name, so anybody may have put it into a folder that everybody may write to"
                    .to_owned(),
                format!("`cp {shown} /etc/pomguard/`, and name the copy"),
            );
        }
    }
}

enum Step {
    Top,
    Up,
    Down(PathBuf),
}

/// Returns the steps of a path, last one first.
fn steps(path: &Path) -> Vec<Step> {
    let step = |component: Component<'_>| match component {
        Component::RootDir => Some(Step::Top),
        Component::ParentDir => Some(Step::Up),
        Component::Normal(name) => Some(Step::Down(name.into())),
        Component::CurDir | Component::Prefix(_) => None,
    };
    let mut steps: Vec<Step> = path.components().filter_map(step).collect();
    steps.reverse();
    steps
}

/// Returns true if the path has an access list beyond the permission bits.
fn has_access_list(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    let name = c"system.posix_acl_access";
    // SAFETY: both texts end with a zero byte and outlive the call; there is no buffer to write to.
    let length = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), ptr::null_mut(), 0) };
    length > 0
}

/// Returns true if users other than the owner may add entries to a folder.
fn is_shared(facts: &fs::Metadata) -> bool {
    facts.is_dir() && facts.mode() & (GROUP_WRITES | OTHERS_WRITE) != 0
}

fn user_name(uid: u32) -> String {
    let name = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    name.map_or_else(|| format!("uid {uid}"), |user| format!("{} (uid {uid})", user.name))
}

fn group_name(gid: u32) -> String {
    let name = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
    name.map_or_else(|| format!("group {gid}"), |group| format!("the group {}", group.name))
}

/// Quotes a path for a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+@%:,".contains(letter);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// Returns true if useradd(8) and groupadd(8) accept the name.
pub(super) fn is_name(written: &str) -> bool {
    let taken = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
    written.len() <= 32 && !written.starts_with('-') && written.chars().all(taken)
}

#[cfg(test)]
mod tests;
