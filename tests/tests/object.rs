//! The embedded object: the kernel's verifier accepts all of its programs.

use std::fs;

use aya::{EbpfLoader, programs::Program};
use pomguard::kernel::{object::OBJECT, probe::Probe};
use pomguard_common::names::PROGRAMS;

/// LC-37.
#[test]
fn the_verifier_accepts_every_program() {
    let mut object = EbpfLoader::new().load(OBJECT).expect("the maps can be created");
    for (name, program) in object.programs_mut() {
        match program {
            Program::Xdp(program) => program.load(),
            Program::SchedClassifier(program) => program.load(),
            other => panic!("{name} is {:?}", other.prog_type()),
        }
        .unwrap_or_else(|error| panic!("{name}: {error:?}"));
    }
}

/// The largest number of instructions that the verifier may walk, in the order of [`PROGRAMS`]. The verifier
/// gives up at 1,000,000.
const CEILINGS: [u32; PROGRAMS.len()] = [40_000, 33_000, 100_000, 110_000];

/// Returns true if a kernel of this release reports how many instructions its verifier walked (Linux 5.16).
fn tells_how_far_it_walked(release: &str) -> bool {
    let mut numbers = release.split('.').map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(5), Some(16))
}

/// LC-37.
#[test]
fn the_verifier_walks_no_more_than_its_budget() {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("every Linux has it");
    if !tells_how_far_it_walked(&release) {
        println!("this kernel does not tell; that it loads the programs is the test above");
        return;
    }
    let probe = Probe::alone().expect("the object loads");
    let walked = probe.verified_instructions().expect("the kernel tells of its programs");
    for ((name, walked), ceiling) in PROGRAMS.into_iter().zip(walked).zip(CEILINGS) {
        let walked = walked.expect("this kernel tells");
        println!("{name}: {walked} of {ceiling}");
        assert!((1..=ceiling).contains(&walked), "{name}: {walked} instructions, the ceiling is {ceiling}");
    }
}

#[test]
fn the_object_has_no_other_program() {
    let object = EbpfLoader::new().load(OBJECT).expect("the maps can be created");
    let mut names: Vec<&str> = object.programs().map(|(name, _): (&str, &Program)| name).collect();
    names.sort_unstable();
    let mut known = PROGRAMS;
    known.sort_unstable();
    assert_eq!(names, known);
}
