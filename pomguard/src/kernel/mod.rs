//! Where a policy meets the kernel: the only module that calls it.
//!
//! | step | module |
//! | --- | --- |
//! | the folder in the bpffs, and who may be in it | [`pins`] |
//! | the object, its maps and programs | [`load`] |
//! | the interfaces | [`attach`]; how they are attached now: [`attached`] |
//! | a compiled image: written, frozen, read back, switched to | [`install`] |
//! | the array of one generation | `image_array`, `generation` |
//! | what holds alongside the generations | [`control`] |
//! | the counters of the maps | [`counters`], of the rows `tally`, of who was denied [`drops`] |
//! | connections that were there first | [`sockets`], [`seed`] |
//! | pinned maps of another layout, replaced; their counters, carried over | [`takeover`], [`carry`] |
//! | sets of programs, pinned before they are attached | [`programs`] |
//! | a host whose kernel refuses the programs | [`minimal`] |
//! | what is pinned, held open | [`held`] |
//! | the hooks, held open and looked at | [`hold`] |
//! | what the maps are to hold, compared with what they do | [`content`] |
//! | a change of XDP mode, without an open moment | `bridge`; which driver it is: [`driver`] |
//! | devices that stand on each other | [`machine`], and to attach below others `upper` |
//! | a driver's words for a refusal of native mode | `refusal` |
//! | what a card took, alongside what the guard saw | [`sight`] |
//! | what the kernel announces of interfaces | [`monitor`] |
//! | what a process may not do that loading takes | [`powers`] |
//! | this machine, for `pomguard doctor` | [`doctor`] |
//! | a frame through the loaded program | [`probe`], [`selfprobe`] |
//!
//! Everything that outlives the daemon is pinned. What reads or changes maps goes by the pins and
//! works alike with the daemon dead or alive.

pub mod address;
pub mod attach;
pub mod attached;
mod bridge;
pub mod capabilities;
pub mod carry;
pub mod clock;
pub mod control;
pub mod counters;
pub mod doctor;
pub mod driver;
pub mod drops;
mod error;
pub mod frame;
pub(crate) mod generation;
pub mod hook_handles;
mod image_array;
pub mod install;
pub mod interface;
mod link_pin;
pub mod load;
pub mod machine;
pub mod map_baseline;
pub(crate) mod mapping;
pub mod minimal;
pub mod monitor;
pub mod object;
pub mod pinned_objects;
pub mod pins;
pub mod probe;
pub mod programs;
mod raw;
mod refusal;
pub mod seed;
pub mod selfprobe;
pub mod sight;
pub mod sockets;
pub mod sweep;
pub mod takeover;
pub(crate) mod tally;
mod upper;

pub use error::KernelError;
