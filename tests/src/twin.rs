//! The decision code of the programs, run on the host: what the compiler of the BPF object and the
//! kernel's verifier must not change.

use std::{cell::OnceCell, iter};

use anyhow::{Context as _, Result};
use pomguard::compile::Image as Compiled;
use pomguard_common::{
    Direction,
    decide::{self, Decision, Tables},
    flow::{Slot, State, Store, Tags},
    image::{Forget, Image, Line},
    limits::{FLOW_BUCKETS, FLOW_WAYS, FRAGMENT_BUCKETS},
};

/// A table of conversations in vectors.
struct Table {
    tags: Vec<Tags>,
    slots: Vec<Slot>,
    ages: [u32; 8],
    now: u32,
}

impl Table {
    fn new(buckets: usize) -> Self {
        Self {
            tags: iter::repeat_with(Tags::default).take(buckets).collect(),
            slots: iter::repeat_with(Slot::default).take(buckets * FLOW_WAYS).collect(),
            ages: [0; 8],
            now: 0,
        }
    }
}

impl Forget for Table {}

impl Store for Table {
    fn tags(&self, bucket: u32) -> Option<&Tags> {
        self.tags.get(bucket as usize)
    }

    fn slot(&self, slot: u32) -> Option<&Slot> {
        self.slots.get(slot as usize)
    }

    fn mask(&self) -> u32 {
        self.tags.len() as u32 - 1
    }

    fn secret(&self) -> u64 {
        0x5eed
    }

    fn age(&self, state: State) -> u32 {
        self.ages[state as usize]
    }

    fn now(&self) -> u32 {
        self.now
    }
}

/// A host with a policy and conversations.
pub struct Twin {
    lines: Vec<Line>,
    flows: Table,
    trains: Table,
}

impl Twin {
    /// One that enforces `image` and has no conversations.
    ///
    /// # Errors
    /// When the image has no head of this version.
    pub fn new(image: &Compiled) -> Result<Self> {
        let lines = image.lines().to_vec();
        let ages = {
            let image = Image::open(lines.as_slice()).context("the image opens")?;
            std::array::from_fn(|state| image.age(state as u32))
        };
        let table = |buckets| Table { ages, ..Table::new(buckets) };
        Ok(Self { flows: table(FLOW_BUCKETS), trains: table(FRAGMENT_BUCKETS), lines })
    }

    /// What becomes of a frame.
    ///
    /// # Errors
    /// When the image has no head of this version.
    pub fn judge(&self, direction: Direction, frame: &[u8]) -> Result<Decision> {
        let image = Image::open(self.lines.as_slice()).context("the image opens")?;
        let tables = Tables { image, flows: &self.flows, trains: &self.trains };
        Ok(decide::judge(direction, frame, &tables, &OnceCell::new()))
    }
}
