//! An object under test: pomguard's programs, with the policy that a guard has pinned.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, Map, MapData, PerCpuArray, ProgramArray},
    programs::{Program, ProgramFd, SchedClassifier, Xdp},
};
use pomguard_common::{
    Direction,
    counter::{Counters, HostRecord},
    flow::prints,
    limits::FLOW_WAYS,
    names,
    reason::Reason,
};

use super::case::Case;
use crate::shuffler::Shuffler;

/// Loaded programs with counters and flow tables of their own.
pub(super) struct Subject {
    pub(super) name: String,
    ebpf: Ebpf,
}

impl Subject {
    /// Loads an object with the policy that is pinned below `pins`.
    pub(super) fn load(object: &Path, pins: &Path) -> Result<Self> {
        let bytes = fs::read(object).with_context(|| object.display().to_string())?;
        let maps = pins.join("maps");
        let host = MapData::from_pin(maps.join(names::MAP_HOST)).context("the pinned record of the host")?;
        let host: HostRecord = Array::try_from(Map::Array(host))?.get(&0, 0)?;
        let shift = host.tick_shift as u8;
        let mut loader = EbpfLoader::new();
        loader
            .override_global("TICK_SHIFT", &shift, true)
            .override_global("FLOW_SECRET", &host.flow_secret, true)
            .override_global(aya_log::LEVEL, &0_u8, true)
            // Test packets count as traffic here. An older object has no such distinction.
            .override_global(names::GLOBAL_SELF_TEST, &0_u32, false);
        for name in [names::MAP_POLICY, names::MAP_CONTROL, names::MAP_OVERRIDES] {
            loader.map_pin_path(name, maps.join(name));
        }
        let ebpf = loader.load(&bytes).with_context(|| object.display().to_string())?;
        let name = object.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut subject = Self { name, ebpf };
        subject.xdp()?.load()?;
        subject.tc()?.load()?;
        subject.fill_arrays()?;
        subject.free_prints()?;
        Ok(subject)
    }

    /// Marks all slots of the new flow table as free, as the daemon does. An object of an earlier version has no
    /// prints.
    fn free_prints(&mut self) -> Result<()> {
        let Some(map) = self.ebpf.map_mut(names::MAP_FLOW_PRINTS) else { return Ok(()) };
        let mut map: Array<_, u64> = map.try_into()?;
        for bucket in 0..map.len() {
            map.set(bucket, u64::from_le_bytes([prints::FREE; FLOW_WAYS]), 0)?;
        }
        Ok(())
    }

    /// Loads the general programs and puts them into the arrays through which the fast programs jump. An
    /// object of an earlier version has neither.
    fn fill_arrays(&mut self) -> Result<()> {
        for (array, program) in names::ARRAYS {
            let Some(program) = self.ebpf.program_mut(program) else { continue };
            match program {
                Program::Xdp(program) => program.load()?,
                Program::SchedClassifier(program) => program.load()?,
                _ => bail!("a general program of an unknown type"),
            }
            let general = program.fd()?.try_clone()?;
            let array = self.ebpf.map_mut(array).context("no array for a general program")?;
            ProgramArray::try_from(array)?.set(0, &general, 0)?;
        }
        Ok(())
    }

    fn xdp(&mut self) -> Result<&mut Xdp> {
        Ok(self.ebpf.program_mut(names::PROGRAM_INGRESS).context("no XDP program")?.try_into()?)
    }

    fn tc(&mut self) -> Result<&mut SchedClassifier> {
        Ok(self.ebpf.program_mut(names::PROGRAM_EGRESS).context("no TC program")?.try_into()?)
    }

    fn program(&mut self, hook: Direction) -> Result<ProgramFd> {
        Ok(match hook {
            Direction::Inbound => self.xdp()?.fd()?.try_clone()?,
            Direction::Outbound => self.tc()?.fd()?.try_clone()?,
        })
    }

    /// Returns the nanoseconds per packet over the shuffler's headers.
    pub(super) fn run(&mut self, shuffler: &mut Shuffler, hook: Direction, runs: usize) -> Result<f64> {
        let program = self.program(hook)?;
        shuffler.run(hook, &program, runs)
    }

    /// Runs a case like `run`. Fails if packets were not counted under the case's reason, except for a few:
    /// of a hundred thousand flows some have found no room in their two buckets.
    pub(super) fn counted(&mut self, shuffler: &mut Shuffler, case: &Case, runs: usize) -> Result<f64> {
        let before = self.count(case)?;
        let nanoseconds = self.run(shuffler, case.hook, runs)?;
        let counted = self.count(case)? - before;
        if counted < runs as u64 / 1_000 * 999 {
            bail!(
                "{}: {counted} of {runs} packets are counted under {}: {:?}",
                self.name,
                case.reason.name(),
                self.all(case.hook)?
            );
        }
        Ok(nanoseconds)
    }

    fn counters(&self) -> Result<Vec<Counters>> {
        let map: PerCpuArray<_, Counters> =
            self.ebpf.map(names::MAP_COUNTERS).context("no counters")?.try_into()?;
        Ok(map.get(&0, 0)?.to_vec())
    }

    fn count(&self, case: &Case) -> Result<u64> {
        let of_cpu = |counters: &Counters| {
            let half = &counters.direction[case.hook.index()];
            (if case.audited { half.audited } else { half.judged })[case.reason.index()].packets
        };
        Ok(self.counters()?.iter().map(of_cpu).sum())
    }

    /// Returns all reasons counted at a hook, with their packets.
    fn all(&self, hook: Direction) -> Result<Vec<(&'static str, u64)>> {
        let counters = self.counters()?;
        let of_reason = |reason: &Reason| {
            let halves = counters.iter().map(|counters| &counters.direction[hook.index()]);
            let packets =
                halves.map(|half| half.judged[reason.index()].packets + half.audited[reason.index()].packets);
            (reason.name(), packets.sum::<u64>())
        };
        Ok(Reason::ALL.iter().map(of_reason).filter(|(_, packets)| *packets != 0).collect())
    }
}
