//! The `pomguard` command.

fn main() {}
