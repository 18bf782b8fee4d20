//! Runs test programs side by side, and afterwards, one by one, the tests that need the machine to
//! themselves.

use std::{
    collections::VecDeque,
    ffi::OsString,
    io::{BufRead as _, BufReader, PipeReader, pipe},
    os::unix::process::CommandExt as _,
    process::{Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use pomguard_workspace::process;

use super::{build::TestProgram, count::Count, times::TestTime};

/// The timeout of a test program.
const LONGEST: Duration = Duration::from_secs(900);
/// The time within which the output of an ended program must be read to its end. A process that the program
/// left behind keeps the output open.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// The number of lines that are shown of the start and of the end of an output.
const SHOWN: usize = 80;
/// The prefix of tests that measure or fill the machine. They run alone.
const ALONE: &str = "alone_";

/// One process: a test program with all of its tests, or with one test.
pub(super) struct Job<'a> {
    program: &'a TestProgram,
    test: Option<String>,
    threads: usize,
}

impl<'a> Job<'a> {
    /// Runs all tests of a program in one process, one after another: they share what they load.
    pub(super) fn whole(program: &'a TestProgram) -> Self {
        Self { program, test: None, threads: 1 }
    }

    /// Runs all tests of a program in one process, as many at once as there are processors: they share
    /// nothing.
    pub(super) fn pure(program: &'a TestProgram) -> Self {
        Self { program, test: None, threads: processors() }
    }

    /// Runs one test in a process of its own.
    pub(super) fn single(program: &'a TestProgram, test: &str) -> Self {
        Self { program, test: Some(test.to_owned()), threads: 1 }
    }

    /// Runs each test of a program in a process of its own.
    pub(super) fn each(program: &'a TestProgram) -> Result<Vec<Self>> {
        Ok(names(program)?.iter().map(|name| Self::single(program, name)).collect())
    }

    /// Returns the names of the program and the test.
    fn title(&self) -> String {
        let Self { program, test, .. } = self;
        match test {
            Some(test) => format!("{} {test}", program.name),
            None if program.is_unit => format!("{} (alongside the code)", program.package),
            None => program.name.clone(),
        }
    }

    /// Returns true if the job is one test whose name contains `text`, or the whole of a program with this
    /// name.
    pub(super) fn is_named(&self, text: &str) -> bool {
        self.test.as_deref().map_or(self.program.name == text, |test| test.contains(text))
    }

    fn runs_alone(&self) -> bool {
        self.test.as_deref().is_some_and(is_alone)
    }

    fn command(&self, environment: &[(&str, OsString)]) -> Command {
        let mut command = Command::new(&self.program.path);
        command.current_dir(&self.program.folder).env("CARGO_MANIFEST_DIR", &self.program.folder);
        for (name, value) in environment {
            command.env(name, value);
        }
        command.arg(format!("--test-threads={}", self.threads));
        if let Some(test) = &self.test {
            command.args(["--exact", test]);
        }
        command
    }
}

fn is_alone(test: &str) -> bool {
    test.rsplit("::").next().is_some_and(|name| name.starts_with(ALONE))
}

/// Returns the names of the tests of a program.
pub(super) fn names(program: &TestProgram) -> Result<Vec<String>> {
    let mut command = Command::new(&program.path);
    let text = process::output(command.args(["--list", "--format", "terse"]))?;
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// A process that has ended.
struct Finished {
    title: String,
    took: Duration,
    count: Count,
    times: Vec<TestTime>,
    /// The output for the reader: everything after a failure, or else the lines that the tests reported.
    text: Vec<String>,
    failed: Option<String>,
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Returns the number of processes to run at once. The daemons of the tests wait more than they work.
fn workers() -> usize {
    (processors() * 3).div_ceil(2)
}

/// Runs the jobs in order, as many at once as the machine bears, and appends the time of each test to
/// `times`. The error names the failed jobs.
pub(super) fn run(
    jobs: Vec<Job<'_>>,
    environment: &[(&str, OsString)],
    times: &mut Vec<TestTime>,
) -> Result<Count> {
    let (alone, alongside_others): (Vec<_>, Vec<_>) = jobs.into_iter().partition(Job::runs_alone);
    let (mut total, mut failed) = (Count::default(), Vec::new());
    let mut again = Vec::new();
    for (job, finished) in side_by_side(alongside_others, workers(), environment)? {
        times.extend(finished.times);
        match finished.failed {
            None => total.add(&finished.count),
            Some(_) => again.push(job),
        }
    }
    // A shared machine can starve one of several tests. A failure counts only if it occurs again when the
    // test runs alone.
    let alongside_nothing = again.iter().map(Job::title).collect::<Vec<_>>();
    for title in &alongside_nothing {
        println!("again, with nothing alongside it: {title}");
    }
    again.extend(alone);
    for (_, finished) in side_by_side(again, 1, environment)? {
        times.extend(finished.times);
        total.add(&finished.count);
        if let Some(why) = finished.failed {
            failed.push(format!("{} ({why})", finished.title));
        } else if alongside_nothing.contains(&finished.title) {
            println!("FAILED alongside others, ok alone: {}", finished.title);
        }
    }
    if failed.is_empty() { Ok(total) } else { bail!("{total}; failed: {}", failed.join(", ")) }
}

/// Runs jobs in order, `workers` at once, and prints each when it has ended.
fn side_by_side<'a>(
    jobs: Vec<Job<'a>>,
    workers: usize,
    environment: &[(&str, OsString)],
) -> Result<Vec<(Job<'a>, Finished)>> {
    let queue = Mutex::new(VecDeque::from(jobs));
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..workers {
            let (queue, sender) = (&queue, sender.clone());
            scope.spawn(move || {
                loop {
                    let job = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some(job) = job else { return };
                    let finished = finish(&job, environment);
                    if sender.send((job, finished)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut all = Vec::new();
        for (job, finished) in receiver {
            let finished = finished?;
            finished.print();
            all.push((job, finished));
        }
        Ok(all)
    })
}

impl Finished {
    fn print(&self) {
        let word = if self.failed.is_some() { "FAILED" } else { "ok" };
        println!("{word:<6} {:>6.1} s  {}  ({})", self.took.as_secs_f32(), self.title, self.count);
        for line in shortened(&self.text) {
            println!("    {line}");
        }
    }
}

/// Leaves out the middle of a long output: the first and the last lines name the failure.
fn shortened(text: &[String]) -> Vec<String> {
    let left_out = text.len().saturating_sub(2 * SHOWN);
    if left_out == 0 {
        return text.to_vec();
    }
    let (first, last) = (&text[..SHOWN], &text[SHOWN + left_out..]);
    [first, &[format!("[{left_out} lines left out]")], last].concat()
}

/// Runs one job to its end.
fn finish(job: &Job<'_>, environment: &[(&str, OsString)]) -> Result<Finished> {
    let title = job.title();
    let began = Instant::now();
    let (reader, writer) = pipe().context("a pipe")?;
    let mut command = job.command(environment);
    // A process group of its own, so that a hanging program is killed with all its children.
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
    let mut child = command.spawn().with_context(|| title.clone())?;
    // The command holds the write end of the pipe.
    drop(command);
    let lines = listen(reader);
    let mut said: Vec<(Duration, String)> = Vec::new();
    let mut ended: Option<(ExitStatus, Instant)> = None;
    let mut failed = None;
    loop {
        match lines.recv_timeout(Duration::from_millis(50)) {
            Ok(line) => said.push((began.elapsed(), line)),
            Err(mpsc::RecvTimeoutError::Disconnected) if ended.is_some() => break,
            Err(_) => {}
        }
        match ended {
            Some((_, at)) if at.elapsed() > LAST_WORDS => {
                failed = Some("left a process behind that holds its output".to_owned());
                break;
            }
            Some(_) => {}
            None => {
                if began.elapsed() > LONGEST {
                    failed = Some(format!("not done after {} s", LONGEST.as_secs()));
                    // The group may have ended by now.
                    let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
                }
                ended = child.try_wait()?.map(|status| (status, Instant::now()));
            }
        }
    }
    if let Some((status, _)) = ended.filter(|(status, _)| !status.success()) {
        failed.get_or_insert_with(|| status.to_string());
    }
    let mut count = Count::default();
    for (_, line) in &said {
        count.see(line);
    }
    if failed.is_none() && count.is_empty() {
        failed = Some("ran no test".to_owned());
    }
    let times = match &job.test {
        Some(_) => vec![TestTime { name: title.clone(), took: began.elapsed() }],
        // When tests run side by side, the end of one test says nothing about the time of the next.
        None if job.threads > 1 => vec![TestTime { name: title.clone(), took: began.elapsed() }],
        None => times_of(job.program, &said),
    };
    let all = failed.is_some();
    let text = said.into_iter().map(|(_, line)| line).filter(|line| all || is_report(line)).collect();
    Ok(Finished { title, took: began.elapsed(), count, times, text, failed })
}

/// Passes on the lines of a pipe as they come.
fn listen(reader: PipeReader) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Returns true if a test printed the line past the harness for the reader.
fn is_report(line: &str) -> bool {
    const HARNESS: [&str; 3] = ["running ", "test ", "test result"];
    !line.trim().is_empty() && !HARNESS.iter().any(|start| line.starts_with(start))
}

/// Returns the time of each test of a program that ran several: from the end of the test before to its own
/// end.
fn times_of(program: &TestProgram, said: &[(Duration, String)]) -> Vec<TestTime> {
    let mut last = Duration::ZERO;
    let mut times = Vec::new();
    for (at, line) in said {
        let name = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")).map(|(name, _)| name);
        if let Some(name) = name {
            times.push(TestTime { name: format!("{} {name}", program.name), took: at.saturating_sub(last) });
            last = *at;
        }
    }
    times
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn shell(folder: &std::path::Path, script: &str) -> TestProgram {
        let path = folder.join("program");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("it is written");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).expect("it can be run");
        TestProgram {
            package: "package".into(),
            name: "program".into(),
            is_unit: false,
            path,
            folder: PathBuf::from("/"),
        }
    }

    fn run_script(script: &str) -> (Result<Count>, Vec<TestTime>) {
        let folder = tempfile::tempdir().expect("a folder");
        let program = shell(folder.path(), script);
        let mut times = Vec::new();
        (run(vec![Job::whole(&program)], &[], &mut times), times)
    }

    const LINE: &str = "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";

    #[test]
    fn a_program_is_counted_and_its_tests_are_timed() {
        let (count, times) = run_script(&format!("echo 'test a::b ... ok'\necho '{LINE}'"));
        assert_eq!(count.expect("it passes").to_string(), "1 tests");
        assert_eq!(times.iter().map(|time| time.name.as_str()).collect::<Vec<_>>(), ["program a::b"]);
    }

    #[test]
    fn middle_of_a_long_output_is_left_out() {
        let lines = |count: usize| (0..count).map(|number| number.to_string()).collect::<Vec<_>>();
        assert_eq!(shortened(&lines(2 * SHOWN)), lines(2 * SHOWN));
        let short = shortened(&lines(1_000));
        assert_eq!(short.len(), 2 * SHOWN + 1);
        assert_eq!(short[SHOWN], "[840 lines left out]");
        assert_eq!((short[SHOWN - 1].as_str(), short[SHOWN + 1].as_str()), ("79", "920"));
    }

    #[test]
    fn a_program_that_fails_is_named_with_its_status() {
        let (count, _) = run_script(&format!("echo '{LINE}'\nexit 3"));
        let error = count.expect_err("it fails").to_string();
        assert!(error.contains("program (exit status: 3)"), "{error}");
    }

    #[test]
    fn a_program_that_fails_alongside_others_has_a_second_try_alone() {
        let script = format!("echo '{LINE}'\n[ -e \"$0.tried\" ] || {{ touch \"$0.tried\"; exit 3; }}");
        let (count, _) = run_script(&script);
        assert_eq!(count.expect("the second try passes"), Count { passed: 1, failed: 0, ignored: 0 });
    }

    #[test]
    fn a_program_that_runs_no_test_fails() {
        let error = run_script("exit 0").0.expect_err("it fails").to_string();
        assert!(error.contains("ran no test"), "{error}");
    }

    #[test]
    fn a_test_that_needs_the_machine_says_so_in_its_name() {
        assert!(is_alone("scrapes::alone_fl_07"));
        assert!(!is_alone("alone_module::fl_07"));
    }
}
