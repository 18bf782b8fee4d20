//! Golden files: output that users read or parse, kept in `pomguard/tests/golden` and compared to the byte.

use std::{env, fs, path::Path};

/// Compares `text` with the golden file, or writes the file if POMGUARD_BLESS is set.
pub(crate) fn assert_golden(name: &str, text: &str) {
    assert_same(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name), text);
}

/// Compares `text` with a file of the repository, named relative to the root of the repository.
pub(crate) fn assert_repository_file(name: &str, text: &str) {
    assert_same(&repository(name), text);
}

/// Returns the path of a file of the repository, named relative to the root of the repository.
pub(crate) fn repository(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn assert_same(path: &Path, text: &str) {
    if env::var_os("POMGUARD_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        return;
    }
    let kept = fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == text,
        "{} differs; look at it, then bless it with POMGUARD_BLESS=1. Now:\n{text}\nKept:\n{kept}",
        path.display()
    );
}
