//! The identity of a machine: the facts that tell the machine which saved a policy from a copy of the disk.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The facts that identify a machine. A fact is missing if the machine does not have it, or if it cannot be
/// read now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The id of the installation, from `/etc/machine-id`.
    #[serde(default)]
    pub machine_id: Option<String>,
    /// The UUID of the board or of the virtual machine, from the firmware.
    #[serde(default)]
    pub product_uuid: Option<String>,
    /// The MAC addresses of the guarded interfaces.
    #[serde(default)]
    pub macs: BTreeSet<String>,
}

impl Identity {
    /// Returns true if `now` is the identity of another machine: at least one fact is known of both, and no
    /// fact is the same.
    #[must_use]
    pub fn is_other(&self, now: &Self) -> bool {
        let same = |before: &Option<String>, now: &Option<String>| {
            Some(before.as_ref()?.eq_ignore_ascii_case(now.as_ref()?))
        };
        let known = !self.macs.is_empty() && !now.macs.is_empty();
        let compared = [
            same(&self.machine_id, &now.machine_id),
            same(&self.product_uuid, &now.product_uuid),
            known.then(|| !self.macs.is_disjoint(&now.macs)),
        ];
        let mut compared = compared.into_iter().flatten().peekable();
        compared.peek().is_some() && !compared.any(|same| same)
    }

    /// Returns the identity to save: the facts of now, and the saved fact where the fact of now is missing.
    #[must_use]
    pub fn renewed(self, now: Self) -> Self {
        Self {
            machine_id: now.machine_id.or(self.machine_id),
            product_uuid: now.product_uuid.or(self.product_uuid),
            macs: if now.macs.is_empty() { self.macs } else { now.macs },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The relation of a saved fact to the fact of now.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Fact {
        Same,
        Different,
        NotSaved,
        NotReadable,
        Neither,
    }

    use Fact::{Different, Neither, NotReadable, NotSaved, Same};

    const FACTS: [Fact; 5] = [Same, Different, NotSaved, NotReadable, Neither];

    /// Returns the saved fact and the fact of now.
    fn pair(fact: Fact, name: &str) -> [Option<String>; 2] {
        let [one, two] = ["1", "2"].map(|end| format!("{name}{end}"));
        match fact {
            Same => [Some(one.clone()), Some(one)],
            Different => [Some(one), Some(two)],
            NotSaved => [None, Some(one)],
            NotReadable => [Some(one), None],
            Neither => [None, None],
        }
    }

    #[test]
    fn machine_is_another_if_facts_are_known_and_none_is_same() {
        let mut others = 0;
        for machine_id in FACTS {
            for product_uuid in FACTS {
                for mac in FACTS {
                    let facts = [machine_id, product_uuid, mac];
                    let [[id, id_now], [uuid, uuid_now], [mac, mac_now]] =
                        [(machine_id, "id"), (product_uuid, "uuid"), (mac, "mac")]
                            .map(|(it, at)| pair(it, at));
                    let identity = |machine_id, product_uuid, mac: Option<String>| Identity {
                        machine_id,
                        product_uuid,
                        macs: mac.into_iter().collect(),
                    };
                    let (before, now) = (identity(id, uuid, mac), identity(id_now, uuid_now, mac_now));
                    let expected = facts.contains(&Different) && !facts.contains(&Same);
                    assert_eq!(before.is_other(&now), expected, "{facts:?}");
                    assert_eq!(now.is_other(&before), expected, "{facts:?}, the other way round");
                    others += usize::from(expected);
                    // What is saved next is the machine of now.
                    assert!(!before.renewed(now.clone()).is_other(&now), "{facts:?}");
                }
            }
        }
        assert_eq!(others, 37, "4 * 4 * 4 without the same, less 3 * 3 * 3 without a different one");
    }

    #[test]
    fn one_of_several_cards_is_enough() {
        let with = |macs: &[&str]| Identity {
            machine_id: Some("a".to_owned()),
            macs: macs.iter().map(|&mac| mac.to_owned()).collect(),
            ..Identity::default()
        };
        let now = Identity { machine_id: Some("b".to_owned()), ..with(&["3", "2"]) };
        assert!(!with(&["1", "2"]).is_other(&now));
        assert!(with(&["1", "4"]).is_other(&now));
    }

    #[test]
    fn missing_card_keeps_the_saved_one() {
        let saved = Identity { macs: BTreeSet::from(["1".to_owned()]), ..Identity::default() };
        let now = Identity { machine_id: Some("a".to_owned()), ..Identity::default() };
        let renewed = saved.clone().renewed(now);
        assert_eq!(renewed.macs, saved.macs);
        assert_eq!(renewed.machine_id.as_deref(), Some("a"));
    }
}
