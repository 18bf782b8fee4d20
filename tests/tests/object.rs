//! The embedded object: the kernel's verifier accepts every program of it.

use aya::{
    EbpfLoader,
    programs::{Program, SchedClassifier, Xdp},
};
use pomguard::kernel::object::OBJECT;
use pomguard_common::names::{PROGRAM_EGRESS, PROGRAM_INGRESS};

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

#[test]
fn the_object_has_no_other_program() {
    let object = EbpfLoader::new().load(OBJECT).expect("the maps can be created");
    let mut names: Vec<&str> = object.programs().map(|(name, _): (&str, &Program)| name).collect();
    names.sort_unstable();
    assert_eq!(names, [PROGRAM_EGRESS, PROGRAM_INGRESS]);
}
