//! `cargo xtask docs`: writes the files again that are written from tables in the code.

use anyhow::Result;
use pomguard_workspace::{self as workspace, process};

/// Runs the command. The tests that compare the files with the code also write them on request.
pub(crate) fn run() -> Result<()> {
    let mut packets = workspace::cargo("test");
    packets.args([
        "--locked",
        "--quiet",
        "--package",
        "pomguard-tests",
        "--test",
        "packets",
        "published_table_is",
    ]);
    process::run(packets.env("POMGUARD_BLESS", "1"))?;
    let mut files = workspace::cargo("test");
    files.args(["--locked", "--quiet", "--package", "pomguard", "--lib", "documents_about_the_files"]);
    process::run(files.env("POMGUARD_BLESS", "1"))
}
