//! Files that are there whole or not at all, even when the power fails between two steps.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Writes a new file that only we may read, down to the disk.
pub(super) fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Has what changed in a folder reach the disk.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Replaces a file: a reader sees the old one or the new one.
///
/// # Errors
/// When the disk is full or read-only; the old file is there then as it was.
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
        // A half-written file would only take room on a disk that is full.
        let _ = fs::remove_file(&new);
    }
    result?;
    sync_folder(path.parent().unwrap_or_else(|| Path::new("/")))
}
