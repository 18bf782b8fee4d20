//! The contents of the maps, for people and programs.
//!
//! | module | contents |
//! | --- | --- |
//! | [`snapshot`], [`reading`] | one reading of the maps: the plain data, and how the reading is taken |
//! | [`counts`] | readings of the counters on disk, to compare with |
//! | [`verdict`] | the kernel's half of `explain` |
//! | [`recent`] | recent counts of the traffic that a change would end |
//! | [`status`], [`in_force`] | the policy in force and the conditions: the plain data, and how they are read |
//! | [`fates`] | the fates of live flows under a policy |
//! | [`family`] | every metric: name, kind, labels, meaning |
//! | [`metrics`] | the page, from a reading and the daemon's own state |
//! | [`condition`] | conditions and repairs |
//! | [`doctor`] | obstacles to enforcement on this machine |
//! | [`drops`] | denied connections: counts, history on disk, names |
//! | [`exposition`] | the page in the format that a scraper asks for |
//! | [`http`] | the listener that serves the page |
//! | [`journal`] | the protocol of the systemd journal |
//! | [`passes`] | packets that passed between two readings |
//! | [`printable`] | names from files, made safe to show |

pub mod condition;
pub mod counts;
pub mod doctor;
pub mod drops;
pub mod exposition;
pub mod family;
pub mod fates;
#[cfg(test)]
pub(crate) mod golden;
pub mod http;
pub mod in_force;
pub mod journal;
pub mod metrics;
pub mod passes;
pub mod printable;
pub mod reading;
pub mod recent;
#[cfg(test)]
pub(crate) mod sample;
pub mod snapshot;
pub mod status;
pub mod verdict;
