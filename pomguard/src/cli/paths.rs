//! The settings and the folders of a verb. Most verbs must work even if the settings are missing or broken: in an
//! emergency there is no time to repair a file.

use std::path::Path;

use super::output::Output;
use crate::{
    history::{self, History},
    input::settings::{Paths, Settings},
    policy::{conflict::Note, setting},
    state::runtime::Runtime,
};

/// Returns the folders in use: those of the last start. They are recorded in the runtime folder, which is that of the
/// settings or that of the change that was put in force last. Without a record, the folders of that change or, if it is not
/// known, those of the settings count.
pub(super) fn in_use(settings: &Settings) -> Paths {
    let change = recorded(settings);
    let runtimes = [Some(&settings.paths), change.as_ref()].into_iter().flatten();
    let starts = runtimes.filter_map(|paths| Runtime::new(&paths.runtime).recorded_paths());
    let last = starts.max_by_key(|(since, _)| *since);
    last.map(|(_, paths)| paths).or(change).unwrap_or_else(|| settings.paths.clone())
}

/// Returns the folders of the change that was put in force last, if the history has it.
fn recorded(settings: &Settings) -> Option<Paths> {
    let history = History::open(&settings.paths.state);
    let (records, _) = history.list();
    let text = history.sources(history::in_force(&records)?).ok()?.settings;
    Some(Settings::parse(&text.name, &text.text).ok()?.paths)
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

/// Returns the settings as [`settings`] does, with the folders that [`go_by_those_in_use`] finds.
pub(super) fn settings_in_use(config: &Path, out: &mut Output) -> Settings {
    let mut settings = settings(config, out);
    go_by_those_in_use(&mut settings, out);
    settings
}

/// Replaces the folders of the settings by those in use, with a warning if they differ. What a verb wrote to other folders
/// would be undone by the daemon. Asks no daemon: an emergency cannot wait.
pub(super) fn go_by_those_in_use(settings: &mut Settings, out: &mut Output) {
    let used = in_use(settings);
    if let Some(note) = note(&used, settings) {
        out.complain(format_args!("pomguard: warning: {}", note.message));
        settings.paths = used;
    }
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
