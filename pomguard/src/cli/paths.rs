//! The settings and the folders of a verb. Most verbs must work even if the settings are missing or broken: in an
//! emergency there is no time to repair a file.

use std::{path::Path, time::Duration};

use super::output::Output;
use crate::{
    control::{client, protocol::Request},
    history::{self, History},
    input::settings::{Paths, Settings},
    observe::status::Status,
    policy::{conflict::Note, setting},
};

/// The longest wait for a daemon that is asked only for its folders.
const PATIENCE: Duration = Duration::from_secs(1);

/// Returns the folders in use: those of the daemon, or of the change that was put in force last. Returns the folders of
/// the settings if neither is known.
pub(super) fn in_use(settings: &Settings) -> Paths {
    let ask = |runtime: &Path| client::ask_within::<Status>(runtime, Request::Status, None, PATIENCE).ok();
    let paths_of = |status: Status| status.daemon?.paths;
    ask(&settings.paths.runtime)
        .and_then(paths_of)
        .or_else(|| {
            let recorded = recorded(settings)?;
            if recorded.runtime == settings.paths.runtime {
                return Some(recorded);
            }
            Some(ask(&recorded.runtime).and_then(paths_of).unwrap_or(recorded))
        })
        .unwrap_or_else(|| settings.paths.clone())
}

/// Returns the folders of the change that was put in force last, if the history has it.
pub(super) fn recorded(settings: &Settings) -> Option<Paths> {
    let history = History::open(&settings.paths.state);
    let (records, _) = history.list();
    let (draft, _) = history.policy(history::in_force(&records)?).ok()?;
    Some(draft.settings.paths)
}

/// Returns a note if the files name other folders than those in use. Settings without a file name none.
pub(super) fn note(used: &Paths, settings: &Settings) -> Option<Note> {
    if !settings.has_file() {
        return None;
    }
    let sentences = setting::other_paths(used, &settings.paths);
    let message = format!(
        "{}; `pomguard apply` changes no folder, so write the folder in use into the files, or restart the daemon",
        sentences.join("; ")
    );
    (!sentences.is_empty()).then(|| Note { kind: "other-paths", message, rows: Vec::new() })
}

/// Returns the settings as [`settings`] does, but with the folders of the change that was put in force last if no daemon
/// listens in the folder of the settings. A running daemon and the programs go by the folders of the last start: what a
/// verb wrote to other folders would be undone. Waits for no answer, because an emergency cannot wait.
pub(super) fn settings_in_use(config: &Path, out: &mut Output) -> Settings {
    let mut settings = settings(config, out);
    if !client::is_listening(&settings.paths.runtime)
        && let Some(used) = recorded(&settings)
        && let Some(note) = note(&used, &settings)
    {
        out.complain(format_args!("pomguard: warning: {}", note.message));
        settings.paths = used;
    }
    settings
}

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
