//! The interface between a policy and the kernel: the only module that makes kernel calls.
//!
//! | step | module |
//! | --- | --- |
//! | the folder in the bpffs, with owner and mode | [`pins`] |
//! | the object, its maps and programs | [`load`] |
//! | the interfaces | [`attach`]; how they are attached now: [`attached`] |
//! | a compiled image: written, frozen, read back, switched to | [`install`] |
//! | the array of one generation | `image_array`, `generation`; read: [`image_reader`] |
//! | state that belongs to no generation | [`control`] |
//! | the counters of the maps | [`counters`], of the rows `tally`, of the denied [`drops`] |
//! | flows that exist before the programs | [`sockets`], [`seed`] |
//! | pinned maps of another layout, replaced; their counters, carried over | [`takeover`], [`carry`] |
//! | sets of programs, pinned before they are attached | [`programs`] |
//! | a host whose kernel refuses the programs | [`minimal`] |
//! | descriptors of the pinned objects | [`pinned_objects`] |
//! | descriptors of the hooks, and their state | [`hook_handles`] |
//! | the expected contents of the maps | [`map_baseline`] |
//! | a change of XDP mode, without an open moment | `bridge`; the driver's name: [`driver`] |
//! | relations of the devices | [`machine`], and to attach below others `upper` |
//! | a driver's message for a refusal of native mode | `refusal` |
//! | packets that a card received, next to those that the programs received | [`sight`] |
//! | the kernel's announcements about interfaces | [`monitor`] |
//! | requests by netlink | `netlink` |
//! | capabilities that a process lacks; a kernel that interprets programs | [`capabilities`], `jit` |
//! | this machine, for `pomguard doctor` | [`doctor`] |
//! | a frame through the loaded program | [`probe`], [`selfprobe`] |
//!
//! Every object that outlives the daemon is pinned. Code that reads or changes maps opens the pins and works
//! the same with the daemon dead or alive.

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
pub mod flow_filters;
pub mod frame;
pub(crate) mod generation;
pub mod hook_handles;
pub mod identity;
mod image_array;
pub mod image_reader;
pub mod install;
pub mod interface;
mod jit;
mod link_pin;
pub mod load;
pub mod machine;
pub mod map_baseline;
pub(crate) mod mapping;
pub mod minimal;
pub mod monitor;
mod netlink;
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
