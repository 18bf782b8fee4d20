//! Daemons cut short, or refused something, at one system call of the tester's choice: by strace.

use std::{collections::HashMap, ffi::OsString, fmt, fs, iter::StepBy, path::Path, process, slice};

use super::times;

/// A system call of a program's run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// Which call of that name it is, from 1.
    pub nth: usize,
}

/// Those calls of a run that are tried: every third, from a first one that differs from run to run, or as
/// `POMGUARD_FAULT_EVERY` and `POMGUARD_FAULT_FIRST` say.
#[derive(Clone, Debug)]
pub struct Sample<'a> {
    all: &'a [Call],
    every: usize,
    first: usize,
}

impl<'a> Sample<'a> {
    /// Of all calls of a run.
    pub fn of(all: &'a [Call]) -> Self {
        Self::thin(all, 3)
    }

    /// Of all calls of a run that takes long: every so many of them, where nothing else is asked for.
    pub fn thin(all: &'a [Call], every: usize) -> Self {
        let every = times("POMGUARD_FAULT_EVERY", every).max(1);
        let first = times("POMGUARD_FAULT_FIRST", process::id() as usize % every);
        Self { all, every, first }
    }

    /// Them.
    pub fn calls(&self) -> StepBy<slice::Iter<'a, Call>> {
        self.all.get(self.first..).unwrap_or_default().iter().step_by(self.every)
    }
}

impl fmt::Display for Sample<'_> {
    /// With what has the same calls tried again.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { all, every, first } = self;
        let tried = self.calls().len();
        write!(out, "{tried} of {} calls (EVERY={every} FIRST={first})", all.len())
    }
}

/// Options of strace that follow `calls` into a file.
pub fn follow(calls: &str, log: &Path) -> Vec<String> {
    ["-f", "-qq", "-o", &log.display().to_string(), "-e", &format!("trace={calls}")].map(str::to_owned).into()
}

/// Options of strace that have something happen at one call: `signal=KILL`, `error=ENOMEM`. The process
/// gets the signal before the call does anything.
pub fn inject(call: &Call, what: &str, log: &Path) -> Vec<String> {
    let Call { name, nth } = call;
    let mut options = follow(name, log);
    options.extend(["-e".to_owned(), format!("inject={name}:{what}:when={nth}")]);
    options
}

/// The words that run a program under strace. It keeps the process that it would have without.
pub fn words(options: &[String], program: &Path) -> Vec<OsString> {
    let options = options.iter().map(OsString::from);
    ["strace".into(), "-D".into()].into_iter().chain(options).chain(["--".into(), program.into()]).collect()
}

/// System calls in a log of strace, in their order, from the first line on that says `from`: a program's
/// run begins with those of its loader.
pub fn calls(log: &Path, from: &str) -> Vec<Call> {
    let log = fs::read_to_string(log).unwrap_or_default();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let mut begun = false;
    let mut calls = Vec::new();
    for line in log.lines() {
        // A process id, the call; lines on signals and ends have no such form.
        let Some((name, _)) = line.split_whitespace().nth(1).and_then(|it| it.split_once('(')) else {
            continue;
        };
        let nth = counts.entry(name).and_modify(|count| *count += 1).or_insert(1);
        begun |= line.contains(from);
        if begun {
            calls.push(Call { name: name.to_owned(), nth: *nth });
        }
    }
    calls
}
