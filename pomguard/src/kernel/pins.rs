//! The folder in the bpffs with every object that outlives the daemon.

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

/// The folder of the links, which is the same for every layout of the maps.
const LINKS: &str = "links";
/// The folder of the programs and of the arrays through which they jump.
const PROGRAMS: &str = "programs";
/// The folders of a set of one layout, in the order of removal.
const SET: [&str; 3] = [PROGRAMS, "images", "maps"];
/// The folder of the programs for a host whose kernel refuses the real ones.
const MINIMAL: &str = "minimal";
/// The folder of a set that is being created next to the one in force.
const NEXT: &str = "next";
/// The folder of a set that is already in force and must still be moved to the final place.
const READY: &str = "ready";

/// The bit in the mode of a folder of pins that pomguard itself created (the sticky bit, which has no effect in a folder
/// of root alone). tmpfiles.d sets the mode of its folder without this bit.
const CREATED: u32 = 0o1000;

/// The folder of the pins, and the paths in the folder.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
    /// The subfolder of a staged set; `None` for a set in the final place.
    stage: Option<&'static str>,
}

impl Pins {
    /// Returns the pins under `root`, which need not exist.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), stage: None }
    }

    /// Returns pins with the same links and a staged set of maps and programs, next to the set in force.
    #[must_use]
    pub fn staging(&self) -> Self {
        Self { root: self.root.clone(), stage: Some(NEXT) }
    }

    /// Returns the folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Creates the folder, and refuses a folder that another user could have prepared: the top of the bpffs may
    /// be writable for all.
    ///
    /// # Errors
    /// [`KernelError::Pins`] if the folder is not on a bpffs, is not root's, or is open to others.
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

    /// Returns the path of a map's pin.
    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        self.folder("maps").join(name)
    }

    /// Returns the path at which the image of a slot is pinned.
    ///
    /// The map of maps contains only the id of the image, and opening a map by id needs CAP_SYS_ADMIN.
    #[must_use]
    pub fn image(&self, slot: u8) -> PathBuf {
        self.folder("images").join(slot.to_string())
    }

    /// Returns the path of a program's pin.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder(PROGRAMS).join(name)
    }

    /// Returns the folder of the programs in force.
    pub(super) fn programs(&self) -> PathBuf {
        self.folder(PROGRAMS)
    }

    /// Returns the folders of the spare sets of programs: a set that a start is about to attach, and sets that
    /// a hook may still run.
    pub(super) fn spare_programs(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.root) else { return Vec::new() };
        let number = |name: &str| name.strip_prefix(PROGRAMS)?.strip_prefix('-')?.parse::<u32>().ok();
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut found: Vec<_> = names.filter(|name| number(name).is_some()).collect();
        found.sort();
        found.into_iter().map(|name| self.root.join(name)).collect()
    }

    /// Returns an unused path for one more spare set.
    fn spare_place(&self) -> PathBuf {
        let place = |number: u32| self.root.join(format!("{PROGRAMS}-{number}"));
        (1..u32::MAX).map(place).find(|path| !path.exists()).unwrap_or_else(|| place(0))
    }

    /// Returns a folder for a set of programs that is about to be attached: the final place if that is empty,
    /// otherwise a new spare folder next to the programs in force.
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

    /// Moves a spare set of programs to the place of the programs in force, which become a spare set.
    pub(super) fn swap_programs(&self, spare: &Path) -> Result<(), KernelError> {
        let place = self.programs();
        if *spare == place {
            return Ok(());
        }
        self.set_aside(&place)?;
        rename(spare, &place)
    }

    /// Turns a folder of programs into a spare set: a hook may still run the programs, and the kernel empties a
    /// program array that has neither a pin nor a descriptor.
    fn set_aside(&self, programs: &Path) -> Result<(), KernelError> {
        let Ok(mut entries) = fs::read_dir(programs) else { return Ok(()) };
        if entries.next().is_none() { remove(programs) } else { rename(programs, &self.spare_place()) }
    }

    /// Returns the path of the pin of a minimal program.
    #[must_use]
    pub fn minimal(&self, name: &str) -> PathBuf {
        self.root.join(MINIMAL).join(name)
    }

    /// Creates the folders of the minimal programs and their links.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn prepare_minimal(&self) -> Result<(), KernelError> {
        [self.root.clone(), self.root.join(LINKS), self.root.join(MINIMAL)]
            .iter()
            .try_for_each(|folder| make(folder, *folder == self.root))
    }

    /// Removes the folder of the minimal programs if the folder is empty.
    pub(super) fn remove_minimal_if_empty(&self) {
        // The call fails if the folder contains a minimal program; then the folder stays.
        let _ = fs::remove_dir(self.root.join(MINIMAL));
    }

    /// Removes the pins of the minimal programs.
    ///
    /// # Errors
    /// If a pin cannot be removed.
    pub fn remove_minimal(&self) -> Result<(), KernelError> {
        remove(&self.root.join(MINIMAL))
    }

    /// Returns the path at which the link of a hook on an interface is pinned. A bpffs allows no dot in a name.
    #[must_use]
    pub fn link(&self, hook: &str, interface: &str) -> PathBuf {
        self.folder(LINKS).join(format!("{hook}-{}", pin_name(interface)))
    }

    /// Returns the interfaces that have a pinned link of this hook.
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

    /// Returns every pin except the links, which are looked up by interface.
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

    /// Returns true if the maps are pinned.
    #[must_use]
    pub fn installed(&self) -> bool {
        // Every version of the layout has the first two maps: a set of another version is then refused with the
        // right error and not treated as missing.
        [names::MAP_HOST, names::MAP_POLICY, names::MAP_CONTROL].iter().any(|name| self.map(name).exists())
    }

    /// Checks that this process may read the pins. Without the permission all pins seem to be missing.
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

    /// Opens a pinned map.
    ///
    /// # Errors
    /// [`KernelError::NotInstalled`] if nothing is pinned, [`KernelError::Denied`] if this process has no
    /// permission.
    pub fn open(&self, name: &'static str) -> Result<MapData, KernelError> {
        self.readable()?;
        if !self.installed() && !self.map(name).exists() {
            return Err(KernelError::NotInstalled { path: self.root.clone() });
        }
        MapData::from_pin(self.map(name)).map_err(KernelError::map(name))
    }

    /// Opens a pinned map as aya's typed form.
    ///
    /// # Errors
    /// As [`Self::open`], and if the map is of another kind than `T`.
    pub(crate) fn typed<T>(&self, name: &'static str) -> Result<T, KernelError>
    where
        T: TryFrom<Map, Error = aya::maps::MapError>,
    {
        let data = self.open(name)?;
        let map = Map::from_map_data(data).map_err(KernelError::map(name))?;
        T::try_from(map).map_err(KernelError::map(name))
    }

    /// Maps a pinned array into memory.
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

    /// Removes every pin. The programs end with their links, unless another process holds them.
    ///
    /// A folder that [`Self::prepare`] created is removed too: the next start can create it again. Any other folder stays,
    /// empty: tmpfiles.d created it, and a unit that lists the folder in `ReadWritePaths=` does not start without it.
    ///
    /// # Errors
    /// If a pin cannot be removed.
    pub fn remove(&self) -> Result<(), KernelError> {
        // Links first: the host is open from here on, and the maps are freed when nothing uses them.
        for folder in std::iter::once(LINKS).chain(SET) {
            remove(&self.folder(folder))?;
        }
        self.remove_minimal()?;
        self.remove_set(NEXT)?;
        self.remove_set(READY)?;
        self.spare_programs().iter().try_for_each(|spare| remove(spare))?;
        if fs::symlink_metadata(&self.root).is_ok_and(|facts| facts.mode() & CREATED != 0) {
            // The call fails if the folder contains something that is not ours; then the folder stays.
            let _ = fs::remove_dir(&self.root);
        }
        Ok(())
    }

    /// Removes a staged set except the programs, which become a spare set because a hook may run them.
    fn remove_set(&self, stage: &str) -> Result<(), KernelError> {
        let stage = self.root.join(stage);
        self.set_aside(&stage.join(PROGRAMS))?;
        for folder in SET {
            remove(&stage.join(folder))?;
        }
        remove(&stage)
    }

    /// Removes the set that is being created next to the one in force.
    ///
    /// # Errors
    /// If a pin cannot be removed.
    pub fn discard_alongside(&self) -> Result<(), KernelError> {
        self.remove_set(NEXT)
    }

    /// Marks the set that was created next to the one in force as the set in force: even if this process is
    /// killed, the next start moves the set to the final place ([`Self::finish_migration`]).
    ///
    /// # Errors
    /// If the folder cannot be renamed; then nothing has changed.
    pub fn promote_alongside(&self) -> Result<(), KernelError> {
        rename(&self.root.join(NEXT), &self.root.join(READY))
    }

    /// Moves a set that an earlier process put in force to the final place, or removes a set that was not in
    /// force yet. The programs stay until no hook runs them ([`super::programs::retire`]).
    ///
    /// # Errors
    /// If a pin cannot be moved or removed.
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
        // Two sets of programs were being exchanged, and only the first was moved.
        let whole = |programs: &Path| programs.join(names::PROGRAM_INGRESS).exists();
        match self.spare_programs().into_iter().find(|spare| whole(spare)) {
            Some(spare) if !whole(&self.programs()) => self.swap_programs(&spare),
            _ => Ok(()),
        }
    }
}

/// Creates a folder, and refuses a folder that another user could write to.
///
/// With `is_root` the folder is the one of the pins: it gets the mark of a created folder, and its parents are created too.
fn make(folder: &Path, is_root: bool) -> Result<(), KernelError> {
    let mode = if is_root { 0o700 | CREATED } else { 0o700 };
    match fs::DirBuilder::new().mode(mode).recursive(is_root).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(KernelError::system("mkdir", folder.display().to_string())(error))
        }
        _ => inspect(folder),
    }
}

/// Removes a folder that contains only pins, if the folder exists.
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

/// Refuses a folder that another user could write to.
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
        // A folder created with an older umask or by `mkdir`: the owner is right, so close the folder.
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

/// Returns the name of an interface in a pin's name. A bpffs allows no dot, and two interfaces never share a
/// name.
fn pin_name(interface: &str) -> String {
    interface.replace('%', "%25").replace('.', "%2E")
}

/// Returns the interface of a pin's name.
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
