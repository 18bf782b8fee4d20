//! The result of the loaded programs for packets of every shape: verdict, reason, row, all other counters and
//! the flow table. Each packet is run untagged and behind a priority tag, in both families, and its mirror
//! image outbound where that makes sense.
//!
//! Ids are those of the test catalogue: L2 and IP (base parsing), FR (fragments), EH (extension headers), IC
//! (ICMP), TP (TCP), UD (UDP), SP (spoofing).

#![expect(clippy::expect_used, reason = "a test stops at the first surprise")]

mod addresses;
mod base;
mod case;
mod closed;
mod damage;
mod decision;
mod dispositions;
mod extensions;
mod fast_path;
mod first;
mod fragmented;
mod fragments;
mod groups;
mod icmp;
mod icmp_errors;
mod large;
mod link;
mod modes;
mod overrides;
mod own_multicast;
mod rates;
mod room;
mod self_tests;
mod serve;
mod suspended;
mod tcp;
mod tcp_late;
mod time;
mod tunnels;
mod udp;
mod week;
