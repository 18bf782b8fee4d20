//! Descriptors of all pinned objects: an object whose pin is deleted stays alive and is pinned again.

use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use super::{KernelError, pins::Pins, raw};

/// Maps, images and programs, by the path of their pin.
#[derive(Debug)]
pub struct PinnedObjects {
    objects: Vec<(PathBuf, OwnedFd)>,
}

impl PinnedObjects {
    /// Opens every object that is pinned now, except the links: those belong to the hook handles of their
    /// interface.
    ///
    /// # Errors
    /// If a pin cannot be opened.
    pub fn open(pins: &Pins) -> Result<Self, KernelError> {
        let mut objects = Vec::new();
        for path in pins.kept() {
            let object = raw::open_pin(&path)
                .map_err(KernelError::system("BPF_OBJ_GET", path.display().to_string()))?;
            objects.push((path, object));
        }
        Ok(Self { objects })
    }

    /// Returns the object that is pinned at this path.
    #[must_use]
    pub fn object(&self, path: &Path) -> Option<BorrowedFd<'_>> {
        self.objects.iter().find(|(at, _)| at == path).map(|(_, object)| object.as_fd())
    }

    /// Pins every object again that is not pinned at the expected path, including `links`. Returns these paths.
    ///
    /// # Errors
    /// If the folder no longer belongs to pomguard, or the kernel refuses.
    pub fn restore<'a>(
        &'a self,
        pins: &Pins,
        links: impl Iterator<Item = (PathBuf, &'a OwnedFd)>,
    ) -> Result<Vec<PathBuf>, KernelError> {
        let own = self.objects.iter().map(|(path, object)| (path.clone(), object));
        let mut lost = Vec::new();
        for (path, object) in own.chain(links) {
            if !is_pinned(&path, object.as_fd())? {
                lost.push((path, object));
            }
        }
        if !lost.is_empty() {
            // This is also needed if another file system was mounted over the folder: then the folders are
            // missing.
            pins.prepare()?;
        }
        for (path, object) in &lost {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(KernelError::system("unlink", path.display().to_string())(error));
                }
                _ => {}
            }
            raw::pin(object.as_fd(), path)
                .map_err(KernelError::system("BPF_OBJ_PIN", path.display().to_string()))?;
        }
        Ok(lost.into_iter().map(|(path, _)| path).collect())
    }
}

/// Returns true if exactly this object is pinned at the path.
fn is_pinned(path: &Path, object: BorrowedFd<'_>) -> Result<bool, KernelError> {
    let fail = |path: &Path| KernelError::system("BPF_OBJ_GET_INFO_BY_FD", path.display().to_string());
    let own = raw::identity(object).map_err(fail(path))?;
    match raw::open_pin(path) {
        Ok(pinned) => Ok(raw::identity(pinned.as_fd()).map_err(fail(path))? == own),
        Err(_) => Ok(false),
    }
}
