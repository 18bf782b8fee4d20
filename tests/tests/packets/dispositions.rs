//! docs/packets.md: the document has the contents of the table, and the table describes the real behaviour.

use std::{collections::BTreeSet, env, fs, path::Path};

use pomguard::policy::Direction;
use pomguard_common::reason::Reason;
use pomguard_tests::{
    daemon::emulated,
    dispositions::{BESIDES, Trial, document, sections},
    reference,
};

use crate::case::everywhere;

#[test]
fn the_published_table_is_the_one_that_is_tried() {
    // The text is compiled into the test: on another kernel the file is not available.
    const KEPT: &str = include_str!("../../../docs/packets.md");
    let text = document();
    if env::var_os("POMGUARD_BLESS").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/packets.md");
        fs::write(path, text).expect("docs/packets.md can be written");
        return;
    }
    assert!(KEPT == text, "docs/packets.md is stale: `cargo xtask docs` writes it anew");
}

#[test]
fn every_reason_is_in_the_published_table_or_besides() {
    let sections = sections();
    let outcomes = sections.iter().flat_map(|section| &section.classes).flat_map(|class| &class.outcomes);
    let mut message: BTreeSet<Reason> = outcomes.map(|outcome| outcome.reason).collect();
    for (reason, _) in BESIDES {
        assert!(
            message.insert(reason),
            "{} stands besides, but there is a packet that shows it",
            reason.name()
        );
    }
    let missing: Vec<_> = Reason::ALL.iter().filter(|reason| !message.contains(reason)).collect();
    assert!(missing.is_empty(), "{missing:?} are in nobody's line");
}

#[test]
fn what_the_published_table_says_is_what_happens() {
    everywhere("what_the_published_table_says_is_what_happens", reference::policy(), |subject, place| {
        let mut trial = Trial::new(subject);
        let (mut faults, mut shown) = (Vec::new(), 0);
        let sections = sections();
        let classes = || sections.iter().flat_map(|section| &section.classes);
        let outcomes = || classes().flat_map(|class| class.outcomes.iter().map(|it| (class.packet, it)));
        // Outcomes with the same policy are tried together.
        for (audited, direction) in [false, true].into_iter().flat_map(|it| Direction::ALL.map(|to| (it, to)))
        {
            for (packet, outcome) in outcomes().filter(|(_, outcome)| outcome.direction == direction) {
                if audited && (outcome.reason.verdict().is_pass() || emulated()) {
                    continue;
                }
                for places in outcome.families() {
                    shown += 1;
                    let error = trial.error(outcome, &places, audited);
                    let error = error.unwrap_or_else(|error| Some(format!("{error:#}")));
                    let family = if places.is_v6() { "IPv6" } else { "IPv4" };
                    let message = |error| format!("{packet} ({family}, {}): {error}", direction.name());
                    faults.extend(error.map(message));
                }
            }
        }
        println!("{shown} examples {place}");
        assert!(faults.is_empty(), "{} of {shown} {place}:\n{}", faults.len(), faults.join("\n"));
    });
}
