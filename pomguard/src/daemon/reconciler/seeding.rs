//! Enters the connections that exist at the first attachment into the flow table.

use anyhow::anyhow;
use log::{error, info, warn};

use crate::{
    daemon::{context::Context, overrides::grace},
    kernel::{
        self,
        seed::{Seeded, Unlisted},
    },
};

/// The number of flows that no row allows and that the log names.
const NAMED: usize = 20;

/// Enters live connections into the flow table before the first attachment, or before the daemon leaves
/// maps of another layout. The socket table does not show every connection: during the grace period,
/// packets in the middle of unknown connections pass, too. At a boot there are no live connections, and
/// no grace period begins.
pub(super) fn seed_on_first_attach(context: &Context, grace: Option<u32>) {
    let message = seed(context);
    let (Some(seconds), Some(1..)) = (grace, message) else { return };
    grace::begin(context, seconds);
}

/// Enters live connections into the flow table and returns their number.
pub(super) fn seed(context: &Context) -> Option<usize> {
    let judged = context.replaced.is_some() || context.lost_flows;
    let unlisted = if judged { Unlisted::AsJudged } else { Unlisted::GoOn };
    let seeded = match kernel::seed::seed(&context.pins, context.ticks, unlisted) {
        Ok(seeded) => seeded,
        Err(error) => {
            error!("live connections are not known, and may be cut: {:#}", anyhow!(error));
            return None;
        }
    };
    let Seeded { live, by_row, grandfathered, left_out, refused } = seeded;
    if unlisted == Unlisted::AsJudged {
        info!("{live} live connections: {by_row} that this host opened go on from its socket table");
    } else if by_row + grandfathered.len() + refused > 0 {
        let others = grandfathered.len();
        info!("{live} live connections: {by_row} by a row of this host's, {others} that no row allows go on");
    }
    for it in grandfathered.iter().take(NAMED) {
        let arrow = if it.inbound { "<-" } else { "->" };
        warn!(
            "no row allows {} {arrow} {} (protocol {}): it goes on until it ends",
            it.local, it.peer, it.protocol
        );
    }
    for it in left_out.iter().take(NAMED) {
        let arrow = if it.inbound { "<-" } else { "->" };
        warn!("no row allows {} {arrow} {} (protocol {})", it.local, it.peer, it.protocol);
    }
    if refused > 0 {
        error!("{refused} live connections found no room in the flow table, and may be cut");
    }
    Some(live)
}
