//! One element of the table of ports that serve.

use crate::{protocol, word::Half};

/// The ticks at which each transport of a port was last let in; 0 = never.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Served {
    /// TCP, or the protocol of an element for a protocol without ports.
    first: Half,
    /// UDP.
    second: Half,
}

impl Served {
    /// Number of elements of the table: the ports, then the protocols without ports.
    pub const COUNT: usize = 65_536 + 256;
}

const _: () = assert!(size_of::<Served>() == 8);

impl Served {
    #[inline(always)]
    pub(crate) const fn last_served(&self, protocol: u8) -> &Half {
        if protocol == protocol::UDP { &self.second } else { &self.first }
    }
}
