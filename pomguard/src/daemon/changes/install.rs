//! Installs a generation: out of a policy, or out of a saved image.

use anyhow::Context as _;
use log::{info, warn};

use crate::{
    daemon::context::Context,
    kernel::install::{self, Installed},
    policy::Policy,
    state::confirmed::Confirmed,
};

/// Compiles a policy and puts it in force, until the tick `deadline` if there is one.
///
/// # Errors
/// If the policy is over a limit, or the kernel refuses.
pub(super) fn install(
    context: &Context,
    policy: &Policy,
    deadline: Option<u32>,
) -> anyhow::Result<Installed> {
    let put = || {
        let image = install::next_place(&context.pins, context.ticks.clock())?.compile(policy)?;
        anyhow::Ok(install::install(&context.pins, image, deadline)?)
    };
    let installed = put().context("put the policy in force")?;
    info!(
        "generation {} in force: inbound {}, outbound {}, {} tuples, image {}",
        installed.generation(),
        policy.inbound.name(),
        policy.outbound.name(),
        installed.image().tuples(),
        installed.digest()
    );
    let idle: Vec<String> = policy
        .rows
        .iter()
        .filter(|row| row.peers.is_empty())
        .map(|row| format!("{} {}", row.id, row.direction.name()))
        .collect();
    if !idle.is_empty() {
        let (count, idle) = (idle.len(), idle.join(", "));
        warn!("{count} rows grant nothing, for the site has no address of their other side: {idle}");
    }
    Ok(installed)
}

/// Puts a policy in force that was compiled and confirmed before.
pub(super) fn reinstall(context: &Context, confirmed: &Confirmed) -> anyhow::Result<Installed> {
    let place = install::next_place(&context.pins, context.ticks.clock())?;
    let image = place.adopt(confirmed.parts()).context("the saved lines are no image of this version")?;
    Ok(install::install(&context.pins, image, None)?)
}
