//! Files that are written whole or not at all, even if the power fails between two steps.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
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

/// Replaces a file atomically. If the disk has no room for a second file, writes a text that is not longer over the
/// old one, with blanks at the end. So a text that ends something replaces the text that began it, on a full disk too.
///
/// # Errors
/// If the disk takes neither; the old file is unchanged then.
pub fn replace_or_overwrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes).or_else(|error| overwrite(path, bytes).map_err(|_| error))
}

/// Writes a text over a file that is not shorter, which takes no room. One write makes the whole contents.
fn overwrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if bytes.len() > length {
        return Err(io::ErrorKind::StorageFull.into());
    }
    let mut text = bytes.to_vec();
    text.resize(length, b' ');
    file.write_all_at(&text, 0)?;
    file.sync_all()
}
