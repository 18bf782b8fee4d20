//! The properties that the fuzz targets check for any input. A crash becomes a named case: its bytes go into
//! the list of `regressions`, and stay there.

#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a fuzz target says what it found by panicking"
)]

use std::{cell::RefCell, path::Path};

use pomguard::{
    compile::{self, Clock, SlotTable},
    input::{Diagnostics, Draft, Matrix, Settings, site},
    policy::{self, Direction},
};
use pomguard_tests::{harness::Subject as _, host_datapath::HostDatapath, oracle, reference};

#[cfg(test)]
mod regressions;

/// A clock of four ticks a second.
const CLOCK: Clock = Clock { ticks_per_1000s: 4_000, offset: 0 };

/// Judges a frame. The first byte chooses the hook, the rest is the frame. The programs' own code on the host
/// and the oracle must agree about the whole effect, under the reference policy and with empty tables.
pub fn packet(data: &[u8]) {
    thread_local! {
        static DATAPATH: RefCell<HostDatapath> =
            RefCell::new(HostDatapath::new(reference::policy()).expect("the reference policy compiles"));
    }
    let Some((&hook, frame)) = data.split_first() else { return };
    let direction = Direction::ALL[usize::from(hook & 1)];
    let wanted = oracle::Host::new(reference::policy()).judge(direction, frame);
    DATAPATH.with_borrow_mut(|datapath| {
        datapath.forget().expect("time goes by");
        let found = datapath.judge(direction, frame).expect("the image opens");
        assert_eq!(found, wanted.effect(datapath.in_force(), direction), "{direction:?}");
    });
}

/// Parses a matrix: any text is accepted, or refused with errors that name a line of the text.
pub fn matrix(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(faults) = Matrix::parse("matrix.toml", text) {
        in_place(&faults, text);
    }
}

/// Parses a site file: any text is accepted, or refused with errors that name a line of the text. An accepted
/// file resolves for each of its hosts and compiles, or is refused with an error.
pub fn site(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Only the shipped matrix: another one is a file, and an input must not choose which file is read.
    if text.contains("matrix") && !text.contains("matrix = \"pom-4.0\"") {
        return;
    }
    let (found, matrix) = match site::parse("site.toml", text, Path::new("/nonexistent")) {
        Ok(both) => both,
        Err(faults) => return in_place(&faults, text),
    };
    let hosts: Vec<_> = found.hosts.iter().map(|host| host.name.clone()).take(4).collect();
    for host in hosts {
        let mut settings = Settings::without_file(Path::new("site.toml"));
        settings.host = Some(host);
        let draft = Draft { matrix: matrix.clone(), site: found.clone(), settings };
        let Ok(policy) = policy::resolve(&draft, &[]) else { continue };
        let Ok(slots) = SlotTable::assign(&[], &policy) else { continue };
        // The result is an image, or an error about an exceeded limit.
        let _ = compile::compile(&policy, &slots, CLOCK, 1);
    }
}

/// Parses a settings file: any text is accepted, or refused with errors that name a line of the text.
pub fn settings(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(faults) = Settings::parse("pomguard.toml", text) {
        in_place(&faults, text);
    }
}

/// Asserts that each error has a text, and names an existing line.
fn in_place(faults: &Diagnostics, text: &str) {
    let lines = text.lines().count().max(1) + usize::from(text.ends_with('\n'));
    assert!(!faults.0.is_empty(), "refused without a word");
    for error in &faults.0 {
        assert!((1..=lines).contains(&error.origin.line), "line {} of {lines}: {error}", error.origin.line);
        assert!(!error.problem.is_empty(), "{error:?} says nothing");
        assert!(!error.to_string().chars().any(|it| it.is_control() && it != '\n'), "{error} has controls");
    }
}
