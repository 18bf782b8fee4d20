//! The environment of the demo and the benches: pomguard in its released form, in a sandbox that disappears.

pub(crate) mod binary;
pub(crate) mod daemon;
pub(crate) mod sandbox;
