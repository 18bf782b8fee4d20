//! What the maps say, for people and programs.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`snapshot`], [`reading`] | one reading of the maps: the plain data, and how it is taken |
//! | [`recent`] | what was counted lately of the traffic that a change would end |
//! | [`status`], [`in_force`] | what is in force and what needs attention: the plain data, and how it is read |
//! | [`family`] | every metric: name, kind, labels, meaning |
//! | [`metrics`] | the page, from a reading and the daemon's own state |
//! | [`condition`] | named states and repairs |
//! | [`doctor`] | what stands in the way of enforcement on this machine |
//! | [`drops`] | who was denied: accounts, history on disk, names |
//! | [`exposition`] | the page in the format that a scraper asks for |
//! | [`http`] | the listener that serves it |
//! | [`printable`] | names from files, made safe to show |

pub mod condition;
pub mod doctor;
pub mod drops;
pub mod exposition;
pub mod family;
#[cfg(test)]
pub(crate) mod golden;
pub mod http;
pub mod in_force;
pub mod metrics;
pub mod printable;
pub mod reading;
pub mod recent;
#[cfg(test)]
pub(crate) mod sample;
pub mod snapshot;
pub mod status;
