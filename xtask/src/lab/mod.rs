//! What the demo and the benches run on: pomguard as it is shipped, in surroundings that vanish.

pub(crate) mod binary;
pub(crate) mod daemon;
pub(crate) mod sandbox;
