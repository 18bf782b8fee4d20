//! Random packets under random policies, judged by the loaded programs, by the same code on the host, which
//! finds changes by the compiler and the verifier, and by a naive second implementation of the documentation.
//!
//! `POMGUARD_FUZZ_PACKETS` sets the number of packets, `POMGUARD_FUZZ_SEED` repeats a run.

use std::time::Instant;

use anyhow::Result;
use pomguard_common::reason::Reason;
use pomguard_tests::{
    differential::{Models, Reasons, Run, compare, compare_modes},
    harness::{bench, root_or_skip},
    questions, reference,
};

/// Reasons that no random packet reaches: no rate is exceeded, the tables have room, and the image is
/// complete.
const NEVER: [Reason; 3] = [Reason::RateLimited, Reason::FlowTableFull, Reason::Internal];

fn concluded(packets: u64, begun: Instant, reasons: &Reasons) {
    println!("{packets} packets in {:.1?}: no difference; {reasons:?}", begun.elapsed());
    let made = |reason: &&Reason| !NEVER.contains(reason) && !reasons.contains_key(reason.name());
    let missed: Vec<&str> = Reason::ALL.iter().filter(made).map(|reason| reason.name()).collect();
    // About forty packets of the rarest reason are expected in this number: to miss that reason by chance
    // takes more runs than there will be.
    assert!(packets < 200_000 || missed.is_empty(), "the generator never made a packet of {missed:?}");
}

#[test]
fn decision_code_agrees_with_a_naive_reading_of_the_docs() -> Result<()> {
    let run = Run::asked("decision code and naive reading", 200_000)?;
    let (begun, mut reasons, mut models) = (Instant::now(), Reasons::new(), Models::new()?);
    for scenario in run.scenarios() {
        compare(&scenario, &mut models, None, &mut reasons)?;
    }
    concluded(run.packets, begun, &reasons);
    Ok(())
}

/// An audit that counts fewer packets than enforce drops makes a promotion look clean that will cut
/// connections.
#[test]
fn enforce_and_audit_count_the_same_frames_alike() -> Result<()> {
    let run = Run::asked("enforce and audit", 200_000)?;
    let mut models = Models::new()?;
    for scenario in run.scenarios() {
        compare_modes(&scenario, &mut models)?;
    }
    Ok(())
}

#[test]
fn loaded_programs_agree_with_their_code_and_the_oracle() -> Result<()> {
    let what = "loaded_programs_agree_with_their_code_and_the_oracle";
    if !root_or_skip(what) {
        return Ok(());
    }
    let run = Run::asked("loaded programs", 1_000_000)?;
    let Some(mut bench) = bench(what, reference::policy()) else { return Ok(()) };
    let (begun, mut reasons, mut models) = (Instant::now(), Reasons::new(), Models::new()?);
    for scenario in run.scenarios() {
        compare(&scenario, &mut models, Some(&mut bench), &mut reasons)?;
    }
    concluded(run.packets, begun, &reasons);
    Ok(())
}

#[test]
fn general_programs_agree_with_their_code_and_the_oracle() -> Result<()> {
    let what = "general_programs_agree_with_their_code_and_the_oracle";
    if !root_or_skip(what) {
        return Ok(());
    }
    let run = Run::asked("general programs", 200_000)?;
    let Some(mut bench) = bench(what, reference::policy()) else { return Ok(()) };
    bench.leave_all_to_general()?;
    let (begun, mut reasons, mut models) = (Instant::now(), Reasons::new(), Models::new()?);
    for scenario in run.scenarios() {
        compare(&scenario, &mut models, Some(&mut bench), &mut reasons)?;
    }
    concluded(run.packets, begun, &reasons);
    Ok(())
}

/// `explain` answers from the policy and by the programs. A disagreement of the two is shouted, so on a healthy
/// host there must be none.
#[test]
fn explain_from_the_policy_agrees_with_the_decision_code() -> Result<()> {
    let run = Run::asked("questions about the policy", 20_000)?;
    let reasons = questions::ask(run.seed, run.packets as usize, None)?;
    println!("{reasons:?}");
    // The kinds of questions that the two once answered differently.
    for reason in [
        Reason::Row,
        Reason::Failsafe,
        Reason::EchoV6,
        Reason::PeerFlow,
        Reason::Dhcp,
        Reason::PortZero,
        Reason::SpoofedSource,
        Reason::NotLocalKnown,
        Reason::SourceNotOurs,
        Reason::Exception,
        Reason::Isolated,
        Reason::UnsolicitedReply,
    ] {
        let made = reasons.contains_key(reason.name());
        assert!(run.packets < 20_000 || made, "no question ends as {}", reason.name());
    }
    Ok(())
}

#[test]
fn explain_from_the_policy_agrees_with_the_loaded_programs() -> Result<()> {
    let what = "explain_from_the_policy_agrees_with_the_loaded_programs";
    let Some(mut bench) = bench(what, reference::policy()) else { return Ok(()) };
    let run = Run::asked("questions to the programs", 4_000)?;
    let reasons = questions::ask(run.seed, run.packets as usize, Some(&mut bench))?;
    println!("{reasons:?}");
    Ok(())
}
