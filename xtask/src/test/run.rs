//! What the stages of one run share: the build, and the time of each test.

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
    /// A run of tests that were built otherwise than by the build of all.
    pub(super) fn with(built: Built) -> Self {
        Self { built: Some(built), ..Self::default() }
    }

    /// Everything that the build made, and the list that takes the time of each test. Builds if no stage
    /// has built yet.
    pub(super) fn built(&mut self) -> Result<(&Built, &mut Vec<TestTime>)> {
        let Self { built, times, .. } = self;
        let built = match built {
            Some(built) => built,
            None => built.insert(build::everything()?),
        };
        Ok((built, times))
    }
}
