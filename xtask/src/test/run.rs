//! The state that the stages of one run share: the build, and the time of each test.

use anyhow::Result;

use super::{
    build::{self, Built},
    times::TestTime,
};

/// One run of the tests.
#[derive(Default)]
pub(super) struct Run {
    built: Option<Built>,
    /// Time of every test that ran.
    pub(super) times: Vec<TestTime>,
    /// Tests that ran, over all stages.
    pub(super) tests: u64,
}

impl Run {
    /// Creates a run with tests from another build than the common one.
    pub(super) fn with(built: Built) -> Self {
        Self { built: Some(built), ..Self::default() }
    }

    /// Returns the products of the build, and the list for the time of each test. Builds if no stage has
    /// built yet.
    pub(super) fn built(&mut self) -> Result<(&Built, &mut Vec<TestTime>)> {
        let Self { built, times, .. } = self;
        let built = match built {
            Some(built) => built,
            None => built.insert(build::everything()?),
        };
        Ok((built, times))
    }
}
