//! A real daemon between real machines, from its first start to `detach`.
//!
//! Tests whose name begins with `basic_` run on other kernels in emulation, too, where a start alone takes
//! about twenty seconds. The other tests report there that they were skipped.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic keeps the place where it happened")]

mod accounting;
mod addresses;
mod answers;
mod at_once;
mod audit;
mod boot;
mod cli;
mod control;
mod death;
mod doctor;
mod drops;
mod emergency;
mod explain;
mod exporter;
mod failsafe;
mod first_attach;
mod floods;
mod flow_filters;
mod fragments;
mod groups;
mod healing;
mod identity;
mod large;
mod layout;
mod life;
mod link_types;
mod load;
mod locks;
mod machine;
mod mode_change;
mod modes;
mod moving_addresses;
mod operations;
mod operator;
mod outbound;
mod output;
mod own_multicast;
mod owners;
mod plan;
mod promotion;
mod refused;
mod reload;
mod self_tests;
mod settings;
mod sites;
mod sizes;
mod split_headers;
mod start;
mod suspension;
mod sweep;
mod tagged;
mod unseen;
mod watch;
mod way_in;
