//! Runs the daemon's pinned programs on frames, as the kernel runs them.

use std::path::Path;

use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions, Xdp};
use aya_obj::programs::XdpAttachType;
use pomguard_common::{
    Direction,
    names::{PROGRAM_EGRESS, PROGRAM_INGRESS},
};

/// XDP_PASS.
const XDP_PASS: u32 = 2;
/// TC_ACT_SHOT.
const TC_DROP: u32 = 2;

/// Number of words of `struct xdp_md`.
const XDP_WORDS: usize = 6;
/// The word of `struct xdp_md` with the packet's end.
const XDP_END: usize = 1;
/// The word of `struct xdp_md` with the interface that the packet came in by.
const XDP_INTERFACE: usize = 3;
/// Number of words of `struct __sk_buff` up to the interface.
const TC_WORDS: usize = 11;
/// The word of `struct __sk_buff` with the interface that the packet leaves by.
const TC_INTERFACE: usize = 10;

/// A pinned program of the daemon.
#[derive(Debug)]
pub enum Pinned {
    /// The XDP program.
    Inbound(Xdp),
    /// The TC program.
    Outbound(SchedClassifier),
}

impl Pinned {
    /// Opens the program of a direction, below the daemon's folder of pins.
    pub fn open(pins: &Path, direction: Direction) -> Self {
        let at = |name: &str| pins.join("programs").join(name);
        match direction {
            Direction::Inbound => {
                Self::Inbound(Xdp::from_pin(at(PROGRAM_INGRESS), XdpAttachType::Interface).unwrap())
            }
            Direction::Outbound => Self::Outbound(SchedClassifier::from_pin(at(PROGRAM_EGRESS)).unwrap()),
        }
    }

    /// Judges a frame as if it came in or left by an interface of the calling thread's namespace. Returns
    /// true if the frame passes.
    pub fn judges(&self, interface: u32, frame: &[u8]) -> bool {
        let mut words = match self {
            Self::Inbound(_) => vec![0; XDP_WORDS],
            Self::Outbound(_) => vec![0; TC_WORDS],
        };
        if matches!(self, Self::Inbound(_)) {
            words[XDP_END] = frame.len() as u32;
            words[XDP_INTERFACE] = interface;
        } else {
            words[TC_INTERFACE] = interface;
        }
        let context: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
        self.run(TestRunOptions { data_in: Some(frame), ctx_in: Some(&context), ..TestRunOptions::default() })
    }

    /// Runs the program on a frame as the kernel's test run does, with the loopback interface. Returns true
    /// if the frame passes.
    pub fn tests(&self, frame: &[u8]) -> bool {
        self.run(TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() })
    }

    fn run(&self, options: TestRunOptions<'_>) -> bool {
        match self {
            Self::Inbound(program) => program.test_run(options).unwrap().return_value == XDP_PASS,
            Self::Outbound(program) => program.test_run(options).unwrap().return_value != TC_DROP,
        }
    }
}
