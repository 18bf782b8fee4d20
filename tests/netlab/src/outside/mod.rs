//! The far end of a cable, in user space: no kernel takes part, so the cable may lead into an emulated
//! machine, and the process needs no rights.
//!
//! A [`Knocker`] stands at the far end of a [`Segment`]. It resolves addresses for the server at the near
//! end, opens connections to the server and counts the answers ([`Tally`]). A [`FarEnds`] lets the server ask
//! for that over a stream, and a [`Step`] is one line of the server's report.

mod far_ends;
mod frames;
mod knocker;
mod segment;
mod step;
mod tally;

pub use self::{
    far_ends::{Emulator, FarEnds, PAUSED, PLUGGED, RESTORED, Request, SAVED},
    knocker::{Cable, Knocker},
    segment::{ALLOWED, CARDS, Card, DENIED, Segment},
    step::{Step, Verdict},
    tally::{Count, Tally},
};
