//! What pomguard's developers run.

fn main() {}
