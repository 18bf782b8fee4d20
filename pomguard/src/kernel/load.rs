//! Loads the eBPF object: creates or takes over the maps, and has the programs verified.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
    thread,
    time::Instant,
};

use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Map, ProgramArray},
    programs::{Program, ProgramError, SchedClassifier, Xdp},
};
use log::debug;
use pomguard_common::{ABI_VERSION, counter::HostRecord, limits, names, text::FixedText};

use super::{
    KernelError, clock::Ticks, clock::unix_now, jit, mapping::Mapping, object::OBJECT, pins::Pins, raw,
};

/// Number of bits by which the programs shift the kernel's tick counter to the right; see the object's `clock`.
const GLOBAL_TICK_SHIFT: &str = "TICK_SHIFT";
/// Key of the flow table's hash; see the object's `tables`.
const GLOBAL_FLOW_SECRET: &str = "FLOW_SECRET";
/// Highest level that the programs' own log writes; 0 removes the log from the programs.
const GLOBAL_LOG_LEVEL: &str = aya_log::LEVEL;

/// The maps that a loaded object shares with the pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// All maps that outlive the daemon: for the object that enforces.
    All,
    /// The policy only, with separate counters and flows: for an object that answers queries. It counts rows
    /// in this number of slots.
    Policy(u32),
    /// No map: for an object in a test.
    Nothing,
}

impl Share {
    const fn maps(self) -> &'static [&'static str] {
        match self {
            Self::All => names::PINNED_MAPS,
            Self::Policy(_) => &[names::MAP_POLICY, names::MAP_CONTROL, names::MAP_OVERRIDES],
            Self::Nothing => &[],
        }
    }

    /// Returns the maps that an object for queries makes smaller, with the number of elements: with one value
    /// for each CPU, they would need most of the memory.
    const fn smaller(self) -> [(&'static str, Option<u32>); 3] {
        let (rows, unused) = match self {
            Self::Policy(rows) => (Some(rows), Some(1)),
            Self::All | Self::Nothing => (None, None),
        };
        [(names::MAP_ROWS, rows), (names::MAP_DROPS, unused), (names::MAP_LABELS, unused)]
    }

    /// Returns the interface whose packets are self-tests; 0 means none. An enforcing object counts test
    /// packets separately from traffic. An object with counters of its own exists for queries and counts each
    /// query.
    const fn self_test_interface(self) -> u32 {
        match self {
            Self::All => limits::LOOPBACK,
            Self::Policy(_) | Self::Nothing => 0,
        }
    }
}

/// A verified object.
pub struct Loaded {
    ebpf: Ebpf,
}

impl Loaded {
    /// Loads the object that is embedded in this binary.
    ///
    /// `log_level` is the level of the programs' own log (0 = off).
    ///
    /// # Errors
    /// If the pinned maps are of another layout, or the kernel refuses maps or programs.
    pub fn new(pins: &Pins, share: Share, ticks: Ticks, log_level: u8) -> Result<Self, KernelError> {
        jit::require()?;
        let secret = flow_secret(pins, share)?;
        let shift = ticks.shift as u8;
        let self_test = share.self_test_interface();
        let paths: Vec<_> = share.maps().iter().map(|&name| (name, pins.map(name))).collect();
        let mut loader = EbpfLoader::new();
        loader
            .override_global(GLOBAL_TICK_SHIFT, &shift, true)
            .override_global(GLOBAL_FLOW_SECRET, &secret, true)
            .override_global(names::GLOBAL_SELF_TEST, &self_test, true)
            .override_global(GLOBAL_LOG_LEVEL, &log_level, true);
        for (name, path) in &paths {
            loader.map_pin_path(name, path);
        }
        for (name, elements) in share.smaller() {
            if let Some(elements) = elements {
                loader.map_max_entries(name, elements);
            }
        }
        let ebpf = loader.load(OBJECT).map_err(|error| KernelError::Load(Box::new(error)))?;
        let mut loaded = Self { ebpf };
        if share == Share::All {
            introduce(pins, ticks, secret)?;
        }
        loaded.verify()?;
        loaded.fill_arrays()?;
        Ok(loaded)
    }

    /// Has the kernel verify all programs in parallel: for a process with CAP_BPF the verifier takes no global
    /// lock, and one general program takes more than a second.
    fn verify(&mut self) -> Result<(), KernelError> {
        let mut programs = Vec::new();
        for (name, program) in self.ebpf.programs_mut() {
            if let Some(name) = names::PROGRAMS.into_iter().find(|known| *known == name) {
                programs.push((name, program));
            }
        }
        let results: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = programs
                .iter_mut()
                .map(|(name, program)| {
                    thread::Builder::new().spawn_scoped(scope, || timed(name, program)).ok()
                })
                .collect();
            threads.into_iter().map(|thread| thread.and_then(|thread| thread.join().ok())).collect()
        });
        for ((name, program), result) in programs.into_iter().zip(results) {
            // A thread that could not be created, or that ended early, has not loaded the program.
            result.unwrap_or_else(|| load(program)).map_err(KernelError::program(name))?;
            jit::require_compiled(&program.info().map_err(KernelError::program(name))?)?;
        }
        Ok(())
    }

    /// Puts each general program into the program array. Until then a fast program cannot hand a packet on.
    pub(super) fn fill_arrays(&mut self) -> Result<(), KernelError> {
        for (array, program) in names::ARRAYS {
            let general = self.program(program)?.fd().map_err(KernelError::program(program))?;
            let general = general.try_clone().map_err(KernelError::system("dup", program))?;
            let mut programs: ProgramArray<_> = self.map_mut(array)?;
            programs.set(0, &general, 0).map_err(KernelError::map(array))?;
        }
        Ok(())
    }

    /// Returns a program of any type.
    fn program(&self, name: &'static str) -> Result<&Program, KernelError> {
        self.ebpf.program(name).ok_or(KernelError::Missing(name))
    }

    /// Returns the XDP program.
    pub(crate) fn xdp(&mut self) -> Result<&mut Xdp, KernelError> {
        let program = self
            .ebpf
            .program_mut(names::PROGRAM_INGRESS)
            .ok_or(KernelError::Missing(names::PROGRAM_INGRESS))?;
        program.try_into().map_err(KernelError::program(names::PROGRAM_INGRESS))
    }

    /// Returns the TC program.
    pub(crate) fn tc(&mut self) -> Result<&mut SchedClassifier, KernelError> {
        let program = self
            .ebpf
            .program_mut(names::PROGRAM_EGRESS)
            .ok_or(KernelError::Missing(names::PROGRAM_EGRESS))?;
        program.try_into().map_err(KernelError::program(names::PROGRAM_EGRESS))
    }

    /// Returns a map of this object as aya's typed form.
    pub(crate) fn map<'a, T>(&'a self, name: &'static str) -> Result<T, KernelError>
    where
        T: TryFrom<&'a Map, Error = aya::maps::MapError>,
    {
        T::try_from(self.ebpf.map(name).ok_or(KernelError::Missing(name))?).map_err(KernelError::map(name))
    }

    /// Returns a map of this object as aya's typed form, for changes.
    pub(crate) fn map_mut<'a, T>(&'a mut self, name: &'static str) -> Result<T, KernelError>
    where
        T: TryFrom<&'a mut Map, Error = aya::maps::MapError>,
    {
        T::try_from(self.ebpf.map_mut(name).ok_or(KernelError::Missing(name))?)
            .map_err(KernelError::map(name))
    }

    /// Maps an array of this object into memory, for changes.
    pub(super) fn mapped<T: Pod>(
        &self,
        name: &'static str,
        length: usize,
    ) -> Result<Mapping<T>, KernelError> {
        match self.ebpf.map(name) {
            Some(Map::Array(data)) => Mapping::new(data.fd().as_fd(), length, true)
                .map_err(KernelError::system("mmap", format!("map {name}"))),
            _ => Err(KernelError::Missing(name)),
        }
    }

    /// Returns the descriptor of a per-CPU array of this object.
    pub(super) fn map_fd(&self, name: &'static str) -> Result<BorrowedFd<'_>, KernelError> {
        match self.ebpf.map(name) {
            Some(Map::PerCpuArray(data)) => Ok(data.fd().as_fd()),
            _ => Err(KernelError::Missing(name)),
        }
    }

    /// Returns the object itself, for the programs' log.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Pins the programs and their arrays in a folder. The fast programs come last: if both are pinned, the set
    /// is complete.
    pub(super) fn pin_programs(&self, folder: &Path) -> Result<(), KernelError> {
        let pin = |name: &str, object: BorrowedFd<'_>| {
            let path = folder.join(name);
            raw::pin(object, &path).map_err(KernelError::system("BPF_OBJ_PIN", path.display().to_string()))
        };
        for (array, _) in names::ARRAYS {
            match self.ebpf.map(array) {
                Some(Map::ProgramArray(data)) => pin(array, data.fd().as_fd())?,
                _ => return Err(KernelError::Missing(array)),
            }
        }
        for name in names::PROGRAMS.into_iter().rev() {
            let fd = self.program(name)?.fd().map_err(KernelError::program(name))?;
            pin(name, fd.as_fd())?;
        }
        Ok(())
    }

    /// Returns the number of instructions that the verifier processed for each of [`names::PROGRAMS`] (Linux
    /// 5.16); `None` if the kernel does not tell.
    pub fn verified_instructions(&self) -> Result<[Option<u32>; names::PROGRAMS.len()], KernelError> {
        let mut walked = [None; names::PROGRAMS.len()];
        for (walked, name) in walked.iter_mut().zip(names::PROGRAMS) {
            let info = self.program(name)?.info().map_err(KernelError::program(name))?;
            *walked = info.verified_instruction_count();
        }
        Ok(walked)
    }
}

/// Has the kernel verify a program and logs the duration.
fn timed(name: &str, program: &mut Program) -> Result<(), ProgramError> {
    let start = Instant::now();
    let result = load(program);
    debug!("{name}: verified in {} ms", start.elapsed().as_millis());
    result
}

/// Has the kernel verify a program.
fn load(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::Xdp(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// Returns the secret of the pinned flow table, or a new secret.
fn flow_secret(pins: &Pins, share: Share) -> Result<u64, KernelError> {
    // Some of the maps may be missing: a start may have been interrupted.
    if share == Share::All && pins.map(names::MAP_HOST).exists() {
        let record = host_record(pins)?;
        if record.flow_secret != 0 {
            return Ok(record.flow_secret);
        }
    }
    random().map_err(KernelError::system("getrandom", "for the flow table"))
}

/// Returns a random number that is not 0.
fn random() -> io::Result<u64> {
    let mut bytes = [0_u8; 8];
    // SAFETY: the buffer has the length that is passed.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got == bytes.len().cast_signed() {
        Ok(u64::from_ne_bytes(bytes) | 1)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Returns the clock by which the programs check deadlines.
///
/// # Errors
/// [`KernelError::NotInstalled`] if nothing is pinned, [`KernelError::Layout`] for maps of another version.
pub fn ticks(pins: &Pins) -> Result<Ticks, KernelError> {
    Ok(Ticks { shift: host_record(pins)?.tick_shift, ..Ticks::probe()? })
}

/// Returns the host record. Readers and writers of other pinned maps read this record first, because this
/// function refuses maps of another layout. A record that was never filled in (version 0) counts as of this
/// layout.
pub(crate) fn host_record(pins: &Pins) -> Result<HostRecord, KernelError> {
    let mapping = pins.mapped::<HostRecord>(names::MAP_HOST, 1, false)?;
    let record = mapping.get(0).ok_or(KernelError::Unreadable)?;
    if record.abi != 0 && record.abi != ABI_VERSION {
        return Err(KernelError::Layout {
            path: pins.root().to_owned(),
            found: record.abi,
            known: ABI_VERSION,
        });
    }
    Ok(record)
}

/// Writes the fields that are fixed for the life of the maps into the host record.
fn introduce(pins: &Pins, ticks: Ticks, secret: u64) -> Result<(), KernelError> {
    let mut mapping = pins.mapped::<HostRecord>(names::MAP_HOST, 1, true)?;
    let mut record = mapping.get(0).ok_or(KernelError::Unreadable)?;
    record.abi = ABI_VERSION;
    record.tick_shift = ticks.shift;
    record.flow_secret = secret;
    if record.counting_since == 0 {
        record.counting_since = unix_now();
    }
    record.version = FixedText::new(env!("CARGO_PKG_VERSION"));
    mapping.set(0, record);
    Ok(())
}
