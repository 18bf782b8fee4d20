//! The settings, for verbs that have to work where they are gone or broken: an emergency is no time to mend
//! a file.

use std::path::Path;

use super::output::Output;
use crate::input::settings::Settings;

/// The settings. Where they are refused, the usual paths and no interface, and a warning on stderr that
/// says what is wrong and where is looked instead.
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
