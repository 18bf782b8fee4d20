//! The folder in the bpffs that holds everything that outlives the daemon.

use std::{
    fs, io,
    os::{
        fd::AsFd as _,
        unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use aya::{
    Pod,
    maps::{Map, MapData},
};
use nix::sys::statfs::{FsType, statfs};
use pomguard_common::names;

use super::{KernelError, mapping::Mapping};

/// Magic number of the BPF file system (include/uapi/linux/magic.h).
const BPF_FS: FsType = FsType(0xcafe_4a11);

/// Links have their own folder whatever the layout of the maps is.
const LINKS: &str = "links";
/// Programs with the arrays that they jump through.
const PROGRAMS: &str = "programs";
/// What belongs together and is of one layout, in the order in which it is taken away.
const SET: [&str; 3] = [PROGRAMS, "images", "maps"];
/// The programs of a host whose kernel refuses the real ones.
const MINIMAL: &str = "minimal";
/// A set that is being made alongside the one in force.
const NEXT: &str = "next";
/// A set that is in force already, and has yet to be moved to its place.
const READY: &str = "ready";

/// The folder, and what lies where in it.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
    /// Where below it the set lies; none when it lies in its place.
    stage: Option<&'static str>,
}

impl Pins {
    /// The pins under `root`, which need not exist.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), stage: None }
    }

    /// The same links, with a set of maps and programs alongside the one in force.
    #[must_use]
    pub fn staging(&self) -> Self {
        Self { root: self.root.clone(), stage: Some(NEXT) }
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the folder, and refuses one that somebody else could have prepared: the top of the bpffs
    /// may be writable for all.
    ///
    /// # Errors
    /// [`KernelError::Pins`] when it is not on a bpffs, not root's, or open to others.
    pub fn prepare(&self) -> Result<(), KernelError> {
        let stage = self.stage.map(|stage| self.root.join(stage));
        let below = std::iter::once(LINKS).chain(SET).map(|name| self.folder(name));
        for folder in std::iter::once(self.root.clone()).chain(stage).chain(below) {
            make(&folder, folder == self.root)?;
        }
        Ok(())
    }

    fn folder(&self, name: &str) -> PathBuf {
        match self.stage {
            Some(stage) if name != LINKS => self.root.join(stage).join(name),
            _ => self.root.join(name),
        }
    }

    /// Where a map is pinned.
    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        self.folder("maps").join(name)
    }

    /// Where the image in a generation slot is pinned.
    ///
    /// The map of maps names it by id, and opening a map by id takes CAP_SYS_ADMIN.
    #[must_use]
    pub fn image(&self, slot: u8) -> PathBuf {
        self.folder("images").join(slot.to_string())
    }

    /// Where a program is pinned.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder(PROGRAMS).join(name)
    }

    /// Where the programs in force are pinned.
    pub(super) fn programs(&self) -> PathBuf {
        self.folder(PROGRAMS)
    }

    /// Sets of programs alongside those in force: one that a start is about to attach, and those that a hook may
    /// still run.
    pub(super) fn spare_programs(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.root) else { return Vec::new() };
        let number = |name: &str| name.strip_prefix(PROGRAMS)?.strip_prefix('-')?.parse::<u32>().ok();
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut found: Vec<_> = names.filter(|name| number(name).is_some()).collect();
        found.sort();
        found.into_iter().map(|name| self.root.join(name)).collect()
    }

    /// A place for one more such set.
    fn spare_place(&self) -> PathBuf {
        let place = |number: u32| self.root.join(format!("{PROGRAMS}-{number}"));
        (1..u32::MAX).map(place).find(|path| !path.exists()).unwrap_or_else(|| place(0))
    }

    /// Makes a folder for a set of programs that is to be attached: in its place where there is none yet, as
    /// a spare one alongside those in force else.
    pub(super) fn new_programs(&self) -> Result<PathBuf, KernelError> {
        let place = self.programs();
        if fs::read_dir(&place).is_ok_and(|mut entries| entries.next().is_none()) {
            return Ok(place);
        }
        let place = self.spare_place();
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&place)
            .map_err(KernelError::system("mkdir", place.display().to_string()))?;
        Ok(place)
    }

    /// Gives a spare set of programs the place of those in force, which become a spare one.
    pub(super) fn swap_programs(&self, spare: &Path) -> Result<(), KernelError> {
        let place = self.programs();
        if *spare == place {
            return Ok(());
        }
        self.set_aside(&place)?;
        rename(spare, &place)
    }

    /// Makes a spare set of programs out of a folder: a hook may still run them, and the kernel empties a
    /// program array that has neither a pin nor a descriptor.
    fn set_aside(&self, programs: &Path) -> Result<(), KernelError> {
        let Ok(mut entries) = fs::read_dir(programs) else { return Ok(()) };
        if entries.next().is_none() { remove(programs) } else { rename(programs, &self.spare_place()) }
    }

    /// Where the minimal program of this name is pinned.
    #[must_use]
    pub fn minimal(&self, name: &str) -> PathBuf {
        self.root.join(MINIMAL).join(name)
    }

    /// Makes the folders that the minimal programs and their links take.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn prepare_minimal(&self) -> Result<(), KernelError> {
        [self.root.clone(), self.root.join(LINKS), self.root.join(MINIMAL)]
            .iter()
            .try_for_each(|folder| make(folder, *folder == self.root))
    }

    /// Removes their folder if nothing is in it.
    pub(super) fn remove_minimal_if_empty(&self) {
        // It stays where a minimal program is in it.
        let _ = fs::remove_dir(self.root.join(MINIMAL));
    }

    /// Removes the pins of the minimal programs.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn remove_minimal(&self) -> Result<(), KernelError> {
        remove(&self.root.join(MINIMAL))
    }

    /// Where the link of a hook on an interface is pinned. A bpffs takes no dot in a name.
    #[must_use]
    pub fn link(&self, hook: &str, interface: &str) -> PathBuf {
        self.folder(LINKS).join(format!("{hook}-{}", pin_name(interface)))
    }

    /// Interfaces that have a pinned link of this hook.
    pub fn linked(&self, hook: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.folder(LINKS)) else { return Vec::new() };
        let prefix = format!("{hook}-");
        let mut found: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter_map(|name| Some(interface_name(name.strip_prefix(&prefix)?)))
            .collect();
        found.sort();
        found
    }

    /// Every pin but the links: those have to be asked for by interface.
    #[must_use]
    pub fn kept(&self) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = SET
            .into_iter()
            .map(|folder| self.folder(folder))
            .chain(self.spare_programs())
            .filter_map(|folder| fs::read_dir(folder).ok())
            .flat_map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())))
            .collect();
        found.sort();
        found
    }

    /// Whether the maps are there.
    #[must_use]
    pub fn installed(&self) -> bool {
        // The first two are there in every version of the layout: one of another version is refused
        // as such, not taken for nothing.
        [names::MAP_HOST, names::MAP_POLICY, names::MAP_CONTROL].iter().any(|name| self.map(name).exists())
    }

    /// Makes sure that this process may look at the pins: without the right to, all of them seem to be missing.
    ///
    /// # Errors
    /// [`KernelError::Denied`].
    pub fn readable(&self) -> Result<(), KernelError> {
        match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(KernelError::Denied { path: self.root.clone() })
            }
            _ => Ok(()),
        }
    }

    /// A pinned map.
    ///
    /// # Errors
    /// [`KernelError::NotInstalled`] when nothing is pinned, [`KernelError::Denied`] when this process may not
    /// look.
    pub fn open(&self, name: &'static str) -> Result<MapData, KernelError> {
        self.readable()?;
        if !self.installed() && !self.map(name).exists() {
            return Err(KernelError::NotInstalled { path: self.root.clone() });
        }
        MapData::from_pin(self.map(name)).map_err(KernelError::map(name))
    }

    /// A pinned map as aya's typed form.
    ///
    /// # Errors
    /// As [`Self::open`], and when the map is of another kind than `T`.
    pub(crate) fn typed<T>(&self, name: &'static str) -> Result<T, KernelError>
    where
        T: TryFrom<Map, Error = aya::maps::MapError>,
    {
        let data = self.open(name)?;
        let map = Map::from_map_data(data).map_err(KernelError::map(name))?;
        T::try_from(map).map_err(KernelError::map(name))
    }

    /// A pinned array as memory.
    pub(crate) fn mapped<T: Pod>(
        &self,
        name: &'static str,
        length: usize,
        writable: bool,
    ) -> Result<Mapping<T>, KernelError> {
        let data = self.open(name)?;
        Mapping::new(data.fd().as_fd(), length, writable)
            .map_err(KernelError::system("mmap", format!("map {name}")))
    }

    /// Removes every pin. The programs go with their links, unless something else holds them.
    ///
    /// The folder itself stays, empty: tmpfiles.d made it, and a unit that names it in
    /// `ReadWritePaths=` does not start again without it.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn remove(&self) -> Result<(), KernelError> {
        // Links first: the host is open from here on, and the maps go when nothing uses them.
        for folder in std::iter::once(LINKS).chain(SET) {
            remove(&self.folder(folder))?;
        }
        self.remove_minimal()?;
        self.remove_set(NEXT)?;
        self.remove_set(READY)?;
        self.spare_programs().iter().try_for_each(|spare| remove(spare))
    }

    /// Removes a set, but for its programs: those are set aside, because a hook may run them.
    fn remove_set(&self, stage: &str) -> Result<(), KernelError> {
        let stage = self.root.join(stage);
        self.set_aside(&stage.join(PROGRAMS))?;
        for folder in SET {
            remove(&stage.join(folder))?;
        }
        remove(&stage)
    }

    /// Removes the set alongside the one in force.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn discard_alongside(&self) -> Result<(), KernelError> {
        self.remove_set(NEXT)
    }

    /// Has the set alongside the one in force count as the one in force: whatever ends this process, the next
    /// start moves it to its place ([`Self::finish_migration`]).
    ///
    /// # Errors
    /// When the folder cannot be renamed; then nothing has changed.
    pub fn promote_alongside(&self) -> Result<(), KernelError> {
        rename(&self.root.join(NEXT), &self.root.join(READY))
    }

    /// Finishes what an earlier process began alongside the set in force, or takes it away where it was not
    /// in force yet. Its programs stay until no hook runs them ([`super::programs::retire`]).
    ///
    /// # Errors
    /// When a pin cannot be moved or removed.
    pub fn finish_migration(&self) -> Result<(), KernelError> {
        self.remove_set(NEXT)?;
        let ready = self.root.join(READY);
        for folder in SET {
            let (from, to) = (ready.join(folder), self.root.join(folder));
            if from.exists() {
                if folder == PROGRAMS {
                    self.set_aside(&to)?;
                } else {
                    remove(&to)?;
                }
                rename(&from, &to)?;
            }
        }
        remove(&ready)?;
        // Two sets of programs were to change places, and only the first left its own.
        let whole = |programs: &Path| programs.join(names::PROGRAM_INGRESS).exists();
        match self.spare_programs().into_iter().find(|spare| whole(spare)) {
            Some(spare) if !whole(&self.programs()) => self.swap_programs(&spare),
            _ => Ok(()),
        }
    }
}

/// Makes a folder, with those above it if `all`, and refuses one that somebody else could write to.
fn make(folder: &Path, all: bool) -> Result<(), KernelError> {
    match fs::DirBuilder::new().mode(0o700).recursive(all).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(KernelError::system("mkdir", folder.display().to_string())(error))
        }
        _ => inspect(folder),
    }
}

/// Removes a folder that has nothing but pins in it, if it is there.
pub(super) fn remove(folder: &Path) -> Result<(), KernelError> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten() {
        fs::remove_file(entry.path())
            .map_err(KernelError::system("unlink", entry.path().display().to_string()))?;
    }
    fs::remove_dir(folder).map_err(KernelError::system("rmdir", folder.display().to_string()))
}

fn rename(from: &Path, to: &Path) -> Result<(), KernelError> {
    fs::rename(from, to).map_err(KernelError::system("rename", from.display().to_string()))
}

/// Refuses a folder that somebody else could write to.
fn inspect(folder: &Path) -> Result<(), KernelError> {
    let refuse = |problem: &str| KernelError::Pins { path: folder.to_owned(), problem: problem.to_owned() };
    let facts =
        fs::symlink_metadata(folder).map_err(KernelError::system("stat", folder.display().to_string()))?;
    if !facts.is_dir() {
        return Err(refuse("it is not a folder"));
    }
    let own = nix::unistd::geteuid().as_raw();
    if facts.uid() != own {
        return Err(refuse("it belongs to another user"));
    }
    if facts.mode() & 0o077 != 0 {
        // A folder made by an older umask or by `mkdir`: ours, so it can be closed.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
            .map_err(KernelError::system("chmod", folder.display().to_string()))?;
    }
    let kind = statfs(folder)
        .map_err(io::Error::from)
        .map_err(KernelError::system("statfs", folder.display().to_string()))?
        .filesystem_type();
    if kind != BPF_FS {
        return Err(refuse("it is not on a bpffs: `mount -t bpf bpf /sys/fs/bpf`"));
    }
    Ok(())
}

/// An interface's name as a pin has it: a bpffs takes no dot. Two interfaces never share one.
fn pin_name(interface: &str) -> String {
    interface.replace('%', "%25").replace('.', "%2E")
}

/// The interface that a pin is named after.
fn interface_name(pin: &str) -> String {
    pin.replace("%2E", ".").replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_has_a_pin_of_its_own_and_is_found_by_it() {
        let names = ["eth0", "eth0.5", "eth0%5", "eth0%2E5", "eth0%252E5", "%25", "."];
        for (index, name) in names.iter().enumerate() {
            let pin = pin_name(name);
            assert!(!pin.contains('.'), "{pin}");
            assert_eq!(interface_name(&pin), *name, "{pin}");
            assert!(names[..index].iter().all(|other| pin_name(other) != pin), "{pin} is shared");
        }
    }
}
