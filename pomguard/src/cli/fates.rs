//! The fates of live flows under the policy in force, for `status` and `stats`.

use super::{own_addresses, way_in};
use crate::{
    daemon::overrides::emergency::Scene,
    history::{self, Existing, History},
    input::settings::Settings,
    kernel::pins::Pins,
    observe::{fates, status::Flows},
    state::exceptions,
};

/// Returns the fates of the live flows at the end of the bypass that holds or, without a bypass, if everything
/// in audit were in enforce now. Returns `None` if nothing is in force, the history does not have the policy, or
/// this user may not read the history.
pub(super) fn read(settings: &Settings) -> Option<Flows> {
    let here = own_addresses::present(settings).unwrap_or_default();
    let policy = way_in::in_force(settings)?.on(&here);
    let exceptions = exceptions::load(&settings.paths.state).unwrap_or_default();
    let (records, _) = History::open(&settings.paths.state).list();
    let current = history::pending(&records).or_else(|| history::in_force(&records));
    let existing = current.map_or(Existing::ByPolicy, |record| record.existing);
    let suspension = Scene::open(&settings.paths).ok().and_then(|scene| scene.in_force());
    fates::flows(&policy, &here, &Pins::new(&settings.paths.pins), &exceptions, existing, suspension)
}
