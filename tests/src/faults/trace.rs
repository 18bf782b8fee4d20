//! Uses strace to end a daemon, or make a system call fail, at one system call that the test chooses.

use std::{collections::HashMap, ffi::OsString, fmt, fs, iter::StepBy, path::Path, process, slice};

use super::times;

/// A system call of a program's run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Name of the system call.
    pub name: String,
    /// The number of the call among the calls of that name, from 1.
    pub nth: usize,
}

/// The system calls of a run that the test tries: every third from a first one that differs between runs, or
/// as `POMGUARD_FAULT_EVERY` and `POMGUARD_FAULT_FIRST` say.
#[derive(Clone, Debug)]
pub struct Sample<'a> {
    all: &'a [Call],
    every: usize,
    first: usize,
}

impl<'a> Sample<'a> {
    /// Takes a sample of all calls of a run.
    pub fn of(all: &'a [Call]) -> Self {
        Self::thin(all, 3)
    }

    /// Takes a thinner sample of the calls of a long run: every `every`th call, unless the environment says
    /// otherwise.
    pub fn thin(all: &'a [Call], every: usize) -> Self {
        let every = times("POMGUARD_FAULT_EVERY", every).max(1);
        let first = times("POMGUARD_FAULT_FIRST", process::id() as usize % every);
        Self { all, every, first }
    }

    /// Returns the calls of the sample.
    pub fn calls(&self) -> StepBy<slice::Iter<'a, Call>> {
        self.all.get(self.first..).unwrap_or_default().iter().step_by(self.every)
    }
}

impl fmt::Display for Sample<'_> {
    /// Writes the values that repeat the same sample.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { all, every, first } = self;
        let tried = self.calls().len();
        write!(out, "{tried} of {} calls (EVERY={every} FIRST={first})", all.len())
    }
}

/// Returns the options of strace that log `calls` to a file.
pub fn follow(calls: &str, log: &Path) -> Vec<String> {
    ["-f", "-qq", "-o", &log.display().to_string(), "-e", &format!("trace={calls}")].map(str::to_owned).into()
}

/// Returns the options of strace that inject a fault at one call: `signal=KILL`, `error=ENOMEM`. The process
/// gets the signal before the call has an effect.
pub fn inject(call: &Call, what: &str, log: &Path) -> Vec<String> {
    let Call { name, nth } = call;
    let mut options = follow(name, log);
    options.extend(["-e".to_owned(), format!("inject={name}:{what}:when={nth}")]);
    options
}

/// Returns the words that run a program under strace. With `-D` the program keeps the process id that it
/// would have without strace.
pub fn words(options: &[String], program: &Path) -> Vec<OsString> {
    let options = options.iter().map(OsString::from);
    ["strace".into(), "-D".into()].into_iter().chain(options).chain(["--".into(), program.into()]).collect()
}

/// Reads the system calls in a log of strace, in order, from the first line that contains `from`: a program's
/// run begins with the calls of its loader.
pub fn calls(log: &Path, from: &str) -> Vec<Call> {
    let log = fs::read_to_string(log).unwrap_or_default();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let mut begun = false;
    let mut calls = Vec::new();
    for line in log.lines() {
        // The form is a process id and the call. Lines about signals and exits have another form.
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
