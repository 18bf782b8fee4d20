//! The treatment of live flows that a change of policy no longer allows.

use anyhow::Context as _;
use log::warn;

use crate::{
    daemon::context::Context,
    history::Existing,
    kernel::{
        clock::unix_now,
        seed,
        sockets::{self, Connection},
    },
    policy::{Policy, impact::goes_on},
    render::explain::described,
    state::exceptions::Exception,
};

/// The number of flows that the log names; the others are counted.
const NAMED: usize = 100;

/// Ends the live flows that no row of `policy`, which is in force, allows; or lets them continue until
/// they end. Returns the number of flows; `None` if neither was asked for.
pub(super) fn treat_existing(
    context: &Context,
    existing: Existing,
    policy: &Policy,
    exceptions: &[Exception],
) -> anyhow::Result<Option<usize>> {
    if existing.is_by_policy() {
        return Ok(None);
    }
    let now = unix_now();
    let live = sockets::connections().context("list the flows of this server")?;
    let unlisted: Vec<Connection> = live
        .into_iter()
        .filter(|flow| policy.is_own(flow.local.ip()) || policy.machine.held.contains(&flow.local.ip()))
        .filter(|flow| {
            let opening = flow.opening();
            let excepted = exceptions.iter().any(|held| held.allows(&opening, now));
            !excepted && !goes_on(policy, &opening)
        })
        .collect();
    let change = if existing == Existing::Cut { seed::forget } else { seed::keep };
    let done = change(&context.pins, context.ticks, &unlisted).context("change the flow table")?;
    let word = if existing == Existing::Cut { "ended by --cut" } else { "kept by --keep-existing" };
    for flow in done.iter().take(NAMED) {
        warn!("{word}: {}", described(&flow.opening()));
    }
    warn!("{} flows that no row allows: {word}", done.len());
    Ok(Some(done.len()))
}
