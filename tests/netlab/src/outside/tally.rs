//! Knocks and answers.

use std::{
    fmt::{self, Display, Formatter},
    str::FromStr,
};

use anyhow::{Context as _, Error, Result};

/// Knocks of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Knocks that were sent. A repetition is no knock of its own.
    pub sent: u64,
    /// Knocks that the server answered, in any way.
    pub answered: u64,
}

/// All knocks of a period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Knocks that the policy denies. Any answer counts: a refusal tells a stranger as much as a welcome.
    pub denied: Count,
    /// Knocks that the policy allows. Only an echo of the sent words counts as an answer.
    pub allowed: Count,
}

impl Tally {
    /// Returns true if the server answered all allowed knocks and no denied one.
    #[must_use]
    pub const fn is_guarded(&self) -> bool {
        self.denied.sent > 0
            && self.denied.answered == 0
            && self.allowed.sent > 0
            && self.allowed.answered == self.allowed.sent
    }

    /// Returns true if the server answered all knocks.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.denied.sent > 0
            && self.denied.answered == self.denied.sent
            && self.allowed.sent > 0
            && self.allowed.answered == self.allowed.sent
    }
}

impl Display for Tally {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let Self { denied, allowed } = self;
        write!(
            out,
            "denied {} answered {}, allowed {} answered {}",
            denied.sent, denied.answered, allowed.sent, allowed.answered
        )
    }
}

impl FromStr for Tally {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers: Vec<u64> = text.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
        let [denied, denied_answered, allowed, allowed_answered] =
            <[u64; 4]>::try_from(numbers).ok().with_context(|| format!("not a tally: {text:?}"))?;
        Ok(Self {
            denied: Count { sent: denied, answered: denied_answered },
            allowed: Count { sent: allowed, answered: allowed_answered },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Count, Tally};

    #[test]
    fn a_tally_reads_back_as_it_was_written() {
        let tally = Tally { denied: Count { sent: 7, answered: 1 }, allowed: Count { sent: 4, answered: 3 } };
        assert_eq!(tally.to_string().parse::<Tally>().unwrap(), tally);
        "denied 1, allowed 2".parse::<Tally>().unwrap_err();
    }

    #[test]
    fn nothing_sent_is_neither_guarded_nor_open() {
        let tally = Tally::default();
        assert!(!tally.is_guarded() && !tally.is_open());
    }
}
