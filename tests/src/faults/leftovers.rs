//! The objects that daemons leave in the kernel: all that must be pinned and attached, and nothing else.

use std::collections::BTreeSet;

use aya::programs::{SchedClassifier, tc::TcAttachType};
use pomguard::kernel::{attach, pins::Pins};
use pomguard_common::{
    limits,
    names::{ARRAYS, PINNED_MAPS, PROGRAMS},
};

use crate::daemon::{INTERFACE, Lab};

/// The pinned and attached objects at one moment.
#[derive(Debug)]
pub struct Leftovers {
    /// Paths of the pins below the folder of pins.
    pins: BTreeSet<String>,
    /// Number of programs on the egress hook, by TCX and by clsact.
    egress: [usize; 2],
    attached: [String; 2],
}

impl Leftovers {
    /// Reads the state of the server.
    pub fn of(lab: &Lab) -> Self {
        let below =
            |path: std::path::PathBuf| path.strip_prefix(lab.pins()).unwrap().to_string_lossy().into_owned();
        let pins = Pins::new(lab.pins());
        let (info, egress) = lab
            .server
            .run(|| {
                let info = attach::describe(&pins, INTERFACE);
                // A kernel without TCX refuses the query.
                let tcx = SchedClassifier::query_tcx(INTERFACE, TcAttachType::Egress);
                let clsact = attach::clsact_program(info.ifindex).unwrap();
                (info, [tcx.map_or(0, |(_, programs)| programs.len()), usize::from(clsact.is_some())])
            })
            .unwrap();
        Self { pins: lab.pinned().into_iter().map(below).collect(), egress, attached: [info.xdp, info.tc] }
    }

    /// Asserts that one program per hook guards the host, and that nothing is pinned except the objects that
    /// a daemon always pins. A killed start may leave a spare set of programs.
    pub fn assert_guarded(&self, when: &str) {
        let [xdp, tc] = &self.attached;
        assert_eq!(xdp, "native", "{when}: {self:?}");
        assert_eq!(self.egress, if tc == "tcx" { [1, 0] } else { [0, 1] }, "{when}: {self:?}");
        let of_a_start = |pin: &str| all().iter().any(|it| spare(it).is_some_and(|it| pin.ends_with(&it)));
        let mut strangers: BTreeSet<String> = &self.pins - &all();
        strangers.retain(|pin| !(pin.starts_with("programs-") && of_a_start(pin)));
        assert!(strangers.is_empty(), "{when}: pinned besides: {strangers:?}");
    }

    /// Asserts that every object is pinned that a daemon in force pins.
    pub fn assert_whole(&self, when: &str) {
        self.assert_guarded(when);
        let missing: Vec<_> =
            all().difference(&self.pins).filter(|pin| !pin.starts_with("images/")).cloned().collect();
        assert!(missing.is_empty(), "{when}: not pinned: {missing:?}");
        let spare: Vec<_> = self.pins.iter().filter(|pin| pin.starts_with("programs-")).collect();
        assert!(spare.is_empty(), "{when}: programs that no hook runs are pinned: {spare:?}");
        assert!(self.pins.iter().any(|pin| pin.starts_with("images/")), "{when}: no image is pinned");
    }
}

/// Returns every pin that a daemon makes for one interface.
fn all() -> BTreeSet<String> {
    let images = (0..limits::GENERATIONS).map(|slot| format!("images/{slot}"));
    let maps = PINNED_MAPS.iter().map(|map| format!("maps/{map}"));
    let arrays = ARRAYS.map(|(array, _)| array);
    let programs = PROGRAMS.into_iter().chain(arrays).map(|program| format!("programs/{program}"));
    let links = ["xdp", "tcx"].map(|hook| format!("links/{hook}-{INTERFACE}"));
    images.chain(maps).chain(programs).chain(links).collect()
}

/// Returns the end of the pin's path in a spare set of programs, or `None` if the pin is not a program.
fn spare(pin: &str) -> Option<String> {
    Some(format!("/{}", pin.strip_prefix("programs/")?))
}
