//! The attach modes that a kernel supports.

use std::fs;

use crate::machine::BOND;

/// A kernel by its version.
pub(crate) struct Kernel(u32, u32);

impl Kernel {
    /// Returns the running kernel.
    pub(crate) fn running() -> Self {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release.split(['.', '-']).map_while(|number| number.parse().ok());
        Self(numbers.next().unwrap(), numbers.next().unwrap())
    }

    const fn is_at_least(&self, major: u32, minor: u32) -> bool {
        self.0 > major || self.0 == major && self.1 >= minor
    }

    /// Returns true if this kernel counts the processors that the emulator may add as possible ones. Linux 6.12 was seen
    /// not to; its topology code is new since 6.9.
    pub(crate) const fn has_room(&self) -> bool {
        !self.is_at_least(6, 9)
    }

    /// Returns the best attach modes of this kernel for an interface: of XDP, and of TC.
    pub(crate) fn first(&self, interface: &str) -> [&'static str; 2] {
        let native = match interface {
            // The driver has had native XDP since Linux 6.6, and loses the program at every reset of the
            // card. So `auto` never attaches natively there.
            "vmxnet3" => false,
            // The bonding driver has had native XDP since Linux 5.15.
            BOND => self.is_at_least(5, 15),
            _ => true,
        };
        let tcx = self.is_at_least(6, 6);
        [if native { "native" } else { "generic" }, if tcx { "tcx" } else { "clsact" }]
    }
}
