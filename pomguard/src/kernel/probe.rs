//! Sends a frame through the loaded program, so that the kernel itself gives the verdict.
//!
//! The program uses the policy in force (or an image of the caller) with counters and flows of its own: a query
//! changes nothing.

use aya::{
    maps::{Array, ArrayOfMaps, MapData, PerCpuArray, PerCpuValues, ProgramArray},
    programs::{TestRun as _, TestRunOptions},
    util::nr_cpus,
};
use pomguard_common::{
    Direction,
    control::{Control, Override, word},
    counter::{Counters, RowTally, Tally},
    decide::NO_ROW,
    drops,
    flow::Bucket,
    image::{Active, Line},
    limits, names,
    reason::{REASONS, Reason},
    serve::Served,
};

use super::{
    KernelError,
    clock::Ticks,
    counters,
    drops::{DropEntry, Rest, contents},
    image_array, install,
    load::{Loaded, Share},
    mapping::Mapping,
    pins::Pins,
    tally::sum_row,
};
use crate::compile::Image;

/// Row slots that a probe of the policy in force has beyond the last one in use, for rows to come.
const SPARE_SLOTS: u32 = 64;

/// The verdict of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeVerdict {
    /// True if the packet passes.
    pub passes: bool,
    /// The reason of the verdict.
    pub reason: Reason,
    /// True if the packet would be dropped and passes because of audit mode.
    pub audited: bool,
    /// Slot of the row that allowed the packet, or [`NO_ROW`].
    pub row: u16,
}

/// A loaded object for queries.
pub struct Probe {
    loaded: Loaded,
    /// Slots of the rows whose tallies are read.
    slots: Vec<u16>,
    /// Number of row slots that the object counts in.
    rows: u32,
}

impl Probe {
    /// Creates a probe of the policy in force, which counts in these row slots.
    ///
    /// # Errors
    /// If nothing is installed, or the object cannot be loaded.
    pub fn of_installed(pins: &Pins, slots: Vec<u16>) -> Result<Self, KernelError> {
        if !pins.installed() {
            return Err(KernelError::NotInstalled { path: pins.root().to_owned() });
        }
        let rows = u32::from(slots.iter().copied().max().unwrap_or_default()) + 1 + SPARE_SLOTS;
        let rows = rows.min(limits::ROW_SLOTS as u32);
        Ok(Self { loaded: Loaded::new(pins, Share::Policy(rows), Ticks::probe()?, 0)?, slots, rows })
    }

    /// Reads the tallies of these row slots from now on. Returns false if the probe has no room for one of
    /// them: then the rows need a new probe.
    pub fn follow(&mut self, slots: Vec<u16>) -> bool {
        let fit = slots.iter().all(|&slot| u32::from(slot) < self.rows);
        self.slots = slots;
        fit
    }

    /// Creates a separate probe without a policy.
    ///
    /// # Errors
    /// If the object cannot be loaded.
    pub fn alone() -> Result<Self, KernelError> {
        let nowhere = Pins::new(std::path::Path::new("/nonexistent"));
        let loaded = Loaded::new(&nowhere, Share::Nothing, Ticks::probe()?, 0)?;
        Ok(Self { loaded, slots: Vec::new(), rows: limits::ROW_SLOTS as u32 })
    }

    /// Puts an image in force in a separate probe.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn set(&mut self, image: &Image, slots: Vec<u16>) -> Result<(), KernelError> {
        let data = image_array::fresh()?;
        install::fill(&data, image)?;
        let array =
            Array::try_from(aya::maps::Map::Array(data)).map_err(KernelError::map(names::MAP_POLICY))?;
        {
            let mut policy: ArrayOfMaps<_, Array<MapData, Line>> = self.loaded.map_mut(names::MAP_POLICY)?;
            policy.set(0, &array, 0).map_err(KernelError::map(names::MAP_POLICY))?;
        }
        let mut control: Array<_, [u64; Control::WORDS]> = self.loaded.map_mut(names::MAP_CONTROL)?;
        let mut words = control.get(&0, 0).map_err(KernelError::map(names::MAP_CONTROL))?;
        words[word::ACTIVE] = Active::confirmed(0).0;
        control.set(0, words, 0).map_err(KernelError::map(names::MAP_CONTROL))?;
        self.slots = slots;
        Ok(())
    }

    /// Writes the state next to the image: the control words (the active word stays, or selects a slot without
    /// an image), and the lines of the override table.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn hold(
        &mut self,
        words: [u64; Control::WORDS],
        lines: &[Override],
        no_policy: bool,
    ) -> Result<(), KernelError> {
        let mut table: Array<_, Override> = self.loaded.map_mut(names::MAP_OVERRIDES)?;
        for (at, line) in (0..).zip(lines) {
            table.set(at, line, 0).map_err(KernelError::map(names::MAP_OVERRIDES))?;
        }
        let slot = if no_policy { limits::GENERATIONS as u8 - 1 } else { 0 };
        let mut control: Array<_, [u64; Control::WORDS]> = self.loaded.map_mut(names::MAP_CONTROL)?;
        let mut words = words;
        words[word::ACTIVE] = Active::confirmed(slot).0;
        control.set(0, words, 0).map_err(KernelError::map(names::MAP_CONTROL))
    }

    /// Clears all flows and fragmented datagrams.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn forget_connections(&mut self) -> Result<(), KernelError> {
        for (name, buckets) in
            [(names::MAP_FLOWS, limits::FLOW_BUCKETS), (names::MAP_FRAGMENTS, limits::FRAGMENT_BUCKETS)]
        {
            const WORDS: usize = size_of::<Bucket>() / 8;
            let mut table: Array<_, [u64; WORDS]> = self.loaded.map_mut(name)?;
            for bucket in 0..buckets as u32 {
                table.set(bucket, [0; WORDS], 0).map_err(KernelError::map(name))?;
            }
        }
        Ok(())
    }

    /// Clears the table of served ports.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn forget_ports(&mut self) -> Result<(), KernelError> {
        let mut table: Mapping<u64> = self.loaded.mapped(names::MAP_SERVED, Served::COUNT)?;
        for port in 0..table.len() {
            if table.get(port) != Some(0) {
                table.set(port, 0);
            }
        }
        Ok(())
    }

    /// Empties the arrays of the general programs, as the kernel does when their pins and descriptors are gone.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn take_out_general(&mut self) -> Result<(), KernelError> {
        for (array, _) in names::ARRAYS {
            let mut programs: ProgramArray<_> = self.loaded.map_mut(array)?;
            programs.clear_index(&0).map_err(KernelError::map(array))?;
        }
        Ok(())
    }

    /// Puts the general programs back into their arrays.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn put_in_general(&mut self) -> Result<(), KernelError> {
        self.loaded.fill_arrays()
    }

    /// Returns the counters of the probe, summed over the CPUs.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn counters(&self) -> Result<Counters, KernelError> {
        let map: PerCpuArray<_, Counters> = self.loaded.map(names::MAP_COUNTERS)?;
        Ok(counters::sum(&map.get(&0, 0).map_err(KernelError::map(names::MAP_COUNTERS))?))
    }

    /// Returns the tally of a row, summed over the CPUs.
    ///
    /// # Errors
    /// If the tally cannot be read.
    pub fn row(&self, slot: u16) -> Result<RowTally, KernelError> {
        let map: PerCpuArray<_, RowTally> = self.loaded.map(names::MAP_ROWS)?;
        Ok(sum_row(&map.get(&u32::from(slot), 0).map_err(KernelError::map(names::MAP_ROWS))?))
    }

    /// Clears the table of drops.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn forget_drops(&mut self) -> Result<(), KernelError> {
        let cpus = nr_cpus().map_err(|(path, source)| KernelError::system("read", path)(source))?;
        let mut table: PerCpuArray<_, [u64; drops::ELEMENT]> = self.loaded.map_mut(names::MAP_DROPS)?;
        for index in 0..drops::ELEMENTS as u32 {
            let empty = PerCpuValues::try_from(vec![[0; drops::ELEMENT]; cpus]);
            let empty = empty.map_err(KernelError::system("bpf", format!("map {}", names::MAP_DROPS)))?;
            table.set(index, empty, 0).map_err(KernelError::map(names::MAP_DROPS))?;
        }
        Ok(())
    }

    /// Returns the entries of the table of drops, and the packets that are in no entry.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn drops(&self) -> Result<(Vec<DropEntry>, Vec<Rest>), KernelError> {
        contents(self.loaded.map_fd(names::MAP_DROPS)?, Ticks::probe()?)
    }

    /// Runs a frame and returns true if the frame passes.
    ///
    /// # Errors
    /// If the kernel cannot run the frame: the kernel accepts no frame below 14 bytes.
    pub fn verdict(&mut self, direction: Direction, frame: &[u8]) -> Result<bool, KernelError> {
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
        match direction {
            Direction::Inbound => {
                let run = self.loaded.xdp()?.test_run(options);
                Ok(run.map_err(KernelError::program(names::PROGRAM_INGRESS))?.return_value == 2)
            }
            Direction::Outbound => {
                let run = self.loaded.tc()?.test_run(options);
                Ok(run.map_err(KernelError::program(names::PROGRAM_EGRESS))?.return_value != 2)
            }
        }
    }

    /// Runs a frame and returns the verdict with the reason.
    ///
    /// # Errors
    /// As [`Self::verdict`], and [`KernelError::Unreadable`] if no counter changed.
    pub fn run(&mut self, direction: Direction, frame: &[u8]) -> Result<ProbeVerdict, KernelError> {
        let before = self.counters()?;
        let rows = self.tallies()?;
        let passes = self.verdict(direction, frame)?;
        let after = self.counters()?;
        let (old, new) = (&before.direction[direction.index()], &after.direction[direction.index()]);
        let moved = |old: &[Tally; REASONS], new: &[Tally; REASONS]| {
            Reason::ALL.iter().copied().find(|it| old[it.index()].packets != new[it.index()].packets)
        };
        let judged = moved(&old.judged, &new.judged).map(|reason| (reason, false));
        let (reason, audited) = judged
            .or_else(|| moved(&old.audited, &new.audited).map(|reason| (reason, true)))
            .ok_or(KernelError::Unreadable)?;
        let hit = self.tallies()?.into_iter().zip(rows).position(|(new, old)| new != old);
        let row = hit.and_then(|index| self.slots.get(index).copied()).unwrap_or(NO_ROW);
        Ok(ProbeVerdict { passes, reason, audited, row })
    }

    /// Runs a frame as [`Self::run`] does and removes the traces of the frame: the next question is judged as
    /// if this one had not been asked.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn ask(&mut self, direction: Direction, frame: &[u8]) -> Result<ProbeVerdict, KernelError> {
        let flows = self.counters()?.flows_opened;
        let finding = self.run(direction, frame)?;
        if self.counters()?.flows_opened != flows {
            self.forget_flows()?;
        }
        if direction == Direction::Inbound && finding.passes {
            self.forget_ports()?;
        }
        Ok(finding)
    }

    /// Clears all flows through a memory mapping.
    fn forget_flows(&mut self) -> Result<(), KernelError> {
        const WORDS: usize = size_of::<Bucket>() / 8;
        let mut table: Mapping<[u64; WORDS]> = self.loaded.mapped(names::MAP_FLOWS, limits::FLOW_BUCKETS)?;
        for bucket in 0..table.len() {
            if table.get(bucket).is_some_and(|words| words != [0; WORDS]) {
                table.set(bucket, [0; WORDS]);
            }
        }
        Ok(())
    }

    fn tallies(&self) -> Result<Vec<u64>, KernelError> {
        self.slots.iter().map(|&slot| Ok(self.row(slot)?.packets)).collect()
    }

    /// Returns the number of instructions that the verifier processed for each of [`names::PROGRAMS`].
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn verified_instructions(&self) -> Result<[Option<u32>; names::PROGRAMS.len()], KernelError> {
        self.loaded.verified_instructions()
    }
}
