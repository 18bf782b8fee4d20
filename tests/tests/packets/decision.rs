//! The word in which the programs pass on a decision.

use pomguard_common::{
    decide::{Decision, NO_ROW},
    reason::Reason,
};

#[test]
fn decision_comes_back_from_its_word() {
    assert!(Decision::of_word(0).is_none(), "no packet was decided");
    for reason in [Reason::Row, Reason::OwnFlow, Reason::Port, Reason::Internal] {
        let decision = Decision::because(reason);
        assert_eq!(Decision::of_word(decision.word()), Some(decision));
        assert_eq!((decision.reason(), decision.row()), (reason, NO_ROW));
    }
    assert_eq!(Decision::of_word(1).map(Decision::word), Some(1), "the least one");
}

#[test]
fn a_number_that_is_no_reason_is_an_internal_fault() {
    let unknown = Decision::of_word(0xff).expect("a word");
    assert_eq!(unknown.reason(), Reason::Internal);
    assert!(!unknown.passes());
}

#[test]
fn a_decision_is_shown_with_its_row_if_it_has_one() {
    let of_none = format!("{:?}", Decision::because(Reason::Port));
    assert!(of_none.contains("row: None"), "{of_none}");
    let of_one = format!("{:?}", Decision::of_word(7 << 16 | Reason::Row as u64).expect("a word"));
    assert!(of_one.contains("row: Some(7)"), "{of_one}");
}
