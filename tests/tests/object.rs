//! The embedded object: the kernel's verifier accepts every program of it.

use aya::{
    EbpfLoader,
    programs::{Program, SchedClassifier, Xdp},
};
use pomguard::kernel::{object::OBJECT, probe::Probe};
use pomguard_common::names::{PROGRAM_EGRESS, PROGRAM_INGRESS};

/// LC-37.
#[test]
fn the_verifier_accepts_both_programs() {
    let mut object = EbpfLoader::new().load(OBJECT).expect("the maps can be created");
    let ingress: &mut Xdp =
        object.program_mut(PROGRAM_INGRESS).expect("is there").try_into().expect("is XDP");
    ingress.load().expect("the verifier accepts it");
    let egress: &mut SchedClassifier =
        object.program_mut(PROGRAM_EGRESS).expect("is there").try_into().expect("is TC");
    egress.load().expect("the verifier accepts it");
}

/// The verifier gives up at 1,000,000 instructions. Measured on Linux 6.18: 473,095 and 347,276.
const CEILINGS: [u32; 2] = [750_000, 400_000];

/// LC-37.
#[test]
fn the_verifier_walks_no_more_than_its_budget() {
    let mut probe = Probe::alone().expect("the object loads");
    let walked = probe.verified_instructions().expect("the kernel tells of its programs");
    for ((name, walked), ceiling) in [PROGRAM_INGRESS, PROGRAM_EGRESS].into_iter().zip(walked).zip(CEILINGS) {
        // Kernels before 5.16 do not say; that they load it is the test above.
        let Some(walked) = walked.filter(|&walked| walked != 0) else { continue };
        println!("{name}: {walked} of {ceiling}");
        assert!(walked <= ceiling, "{name}: {walked} instructions, the ceiling is {ceiling}");
    }
}

#[test]
fn the_object_has_no_other_program() {
    let object = EbpfLoader::new().load(OBJECT).expect("the maps can be created");
    let mut names: Vec<&str> = object.programs().map(|(name, _): (&str, &Program)| name).collect();
    names.sort_unstable();
    assert_eq!(names, [PROGRAM_EGRESS, PROGRAM_INGRESS]);
}
