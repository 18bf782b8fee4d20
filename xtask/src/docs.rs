//! `cargo xtask docs`: writes anew what is written from tables in the code.

use anyhow::Result;

use crate::{process, workspace};

/// Runs the command. The tests that hold the files against the code write them when they are told to.
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
    process::run(packets.env("POMGUARD_BLESS", "1"))
}
