//! The grace period: packets in the middle of unknown connections pass for a while after the first attachment.

use anyhow::anyhow;
use log::{error, info};
use pomguard_common::control::Timed;

use crate::{daemon::context::Context, kernel::control, render::quantity::duration};

/// Begins a grace period of `seconds`.
pub(in crate::daemon) fn begin(context: &Context, seconds: u32) {
    let begun = context
        .ticks
        .deadline(seconds)
        .and_then(|deadline| control::set_grace(&context.pins, Timed::until(1, deadline)));
    match begun {
        Ok(()) => info!(
            "packets in the middle of unknown connections pass for {}, and are counted",
            duration(seconds.into())
        ),
        Err(error) => error!("no grace period: {:#}", anyhow!(error)),
    }
}
