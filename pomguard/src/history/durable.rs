//! Files that are written whole or not at all, even if the power fails between two steps.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Writes a new file of mode 0600 and waits until the disk has the contents.
pub(super) fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Waits until the disk has the changes of a folder's entries.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Replaces a file atomically: a reader sees the old contents or the new contents.
///
/// # Errors
/// If the disk is full or read-only; the old file is unchanged then.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let result = create(&new, bytes).and_then(|()| fs::rename(&new, path));
    if result.is_err() {
        // Remove the half-written file: it takes room, and the disk may be full.
        let _ = fs::remove_file(&new);
    }
    result?;
    sync_folder(path.parent().unwrap_or_else(|| Path::new("/")))
}
