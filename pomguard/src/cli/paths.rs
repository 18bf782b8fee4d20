//! Reads the settings for verbs that must work even if the settings are missing or broken: in an emergency
//! there is no time to repair a file.

use std::path::Path;

use super::output::Output;
use crate::input::settings::Settings;

/// Returns the settings. If the settings file is refused, returns the usual paths and no interface, and prints
/// a warning on stderr with the fault and the paths in use.
pub(super) fn settings(config: &Path, out: &mut Output) -> Settings {
    Settings::load(config).unwrap_or_else(|faults| {
        let usual = Settings::without_file(Path::new(""));
        out.complain(format_args!("pomguard: {faults}"));
        out.complain(format_args!(
            "pomguard: warning: going on without the settings, by the usual paths: {}, {}, {}",
            usual.paths.pins.display(),
            usual.paths.state.display(),
            usual.paths.runtime.display()
        ));
        usual
    })
}
