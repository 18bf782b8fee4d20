//! The object: its maps made or taken over, its programs verified.

use std::{fs, io, thread};

use aya::{
    Ebpf, EbpfLoader,
    programs::{ProgramError, SchedClassifier, Xdp},
};
use pomguard_common::{ABI_VERSION, counter::HostRecord, limits, names};

use super::{KernelError, clock::Ticks, clock::unix_now, object::OBJECT, pins::Pins};

/// Bits dropped from the kernel's tick counter; see the object's `clock`.
const GLOBAL_TICK_SHIFT: &str = "TICK_SHIFT";
/// Keys the hash of the flow table; see the object's `tables`.
const GLOBAL_FLOW_SECRET: &str = "FLOW_SECRET";
/// Highest level that the programs' own log writes; 0 removes it from them.
const GLOBAL_LOG_LEVEL: &str = aya_log::LEVEL;

/// Which maps a loaded object shares with the pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// All that outlive the daemon: the object that enforces.
    All,
    /// The policy alone, with counters and flows of its own: an object to ask questions of.
    Policy,
    /// None: an object for tests.
    Nothing,
}

impl Share {
    const fn maps(self) -> &'static [&'static str] {
        match self {
            Self::All => names::PINNED_MAPS,
            Self::Policy => &[names::MAP_POLICY, names::MAP_CONTROL, names::MAP_PINHOLES],
            Self::Nothing => &[],
        }
    }

    /// The interface whose packets are self-tests; 0 = none. An object that enforces counts test packets apart from
    /// traffic. One with counters of its own is there to be asked, and counts each question.
    const fn self_test_interface(self) -> u32 {
        match self {
            Self::All => limits::LOOPBACK,
            Self::Policy | Self::Nothing => 0,
        }
    }
}

/// A verified object.
pub struct Loaded {
    ebpf: Ebpf,
}

impl Loaded {
    /// Loads the object that is part of this binary.
    ///
    /// `log_level` is that of the programs' own log (0 = off).
    ///
    /// # Errors
    /// When pinned maps are of another layout, or the kernel refuses maps or programs.
    pub fn new(pins: &Pins, share: Share, ticks: Ticks, log_level: u8) -> Result<Self, KernelError> {
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
        let ebpf = loader.load(OBJECT).map_err(|error| KernelError::Load(Box::new(error)))?;
        let mut loaded = Self { ebpf };
        if share == Share::All {
            introduce(pins, ticks, secret)?;
        }
        loaded.verify()?;
        Ok(loaded)
    }

    /// Has the kernel verify both programs at the same time: the verifier takes no common lock for who has
    /// CAP_BPF, and each of the two takes it more than a second.
    fn verify(&mut self) -> Result<(), KernelError> {
        let (mut ingress, mut egress) = (None, None);
        for (name, program) in self.ebpf.programs_mut() {
            match name {
                names::PROGRAM_INGRESS => ingress = Some(program),
                names::PROGRAM_EGRESS => egress = Some(program),
                _ => {}
            }
        }
        let ingress = ingress.ok_or(KernelError::Missing(names::PROGRAM_INGRESS))?;
        let egress = egress.ok_or(KernelError::Missing(names::PROGRAM_EGRESS))?;
        let xdp: &mut Xdp = ingress.try_into().map_err(KernelError::program(names::PROGRAM_INGRESS))?;
        let tc: &mut SchedClassifier =
            egress.try_into().map_err(KernelError::program(names::PROGRAM_EGRESS))?;
        let (beside, second) = thread::scope(|scope| {
            let thread = thread::Builder::new().spawn_scoped(scope, || xdp.load());
            let second = tc.load();
            // A thread that there was no room for, or that ended early, has not loaded it.
            (thread.ok().and_then(|thread| thread.join().ok()), second)
        });
        beside.unwrap_or_else(|| xdp.load()).map_err(KernelError::program(names::PROGRAM_INGRESS))?;
        second.map_err(KernelError::program(names::PROGRAM_EGRESS))
    }

    /// The XDP program.
    pub(crate) fn xdp(&mut self) -> Result<&mut Xdp, KernelError> {
        let program = self
            .ebpf
            .program_mut(names::PROGRAM_INGRESS)
            .ok_or(KernelError::Missing(names::PROGRAM_INGRESS))?;
        program.try_into().map_err(KernelError::program(names::PROGRAM_INGRESS))
    }

    /// The TC program.
    pub(crate) fn tc(&mut self) -> Result<&mut SchedClassifier, KernelError> {
        let program = self
            .ebpf
            .program_mut(names::PROGRAM_EGRESS)
            .ok_or(KernelError::Missing(names::PROGRAM_EGRESS))?;
        program.try_into().map_err(KernelError::program(names::PROGRAM_EGRESS))
    }

    /// A map of this object, as aya's typed form.
    pub(crate) fn map<'a, T>(&'a self, name: &'static str) -> Result<T, KernelError>
    where
        T: TryFrom<&'a aya::maps::Map, Error = aya::maps::MapError>,
    {
        T::try_from(self.ebpf.map(name).ok_or(KernelError::Missing(name))?).map_err(KernelError::map(name))
    }

    /// A map of this object, to change.
    pub(crate) fn map_mut<'a, T>(&'a mut self, name: &'static str) -> Result<T, KernelError>
    where
        T: TryFrom<&'a mut aya::maps::Map, Error = aya::maps::MapError>,
    {
        T::try_from(self.ebpf.map_mut(name).ok_or(KernelError::Missing(name))?)
            .map_err(KernelError::map(name))
    }

    /// The object itself, for the programs' log.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Pins the programs, so that they can be asked for by name; one that was there is replaced.
    ///
    /// # Errors
    /// When a pin cannot be made.
    pub fn pin_programs(&mut self, pins: &Pins) -> Result<(), KernelError> {
        let pin =
            |path: std::path::PathBuf,
             result: &mut dyn FnMut(&std::path::Path) -> Result<(), aya::pin::PinError>| {
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(KernelError::system("unlink", path.display().to_string())(error));
                    }
                    _ => {}
                }
                result(&path)
                    .map_err(|source| KernelError::Pin { path: path.clone(), source: Box::new(source) })
            };
        let xdp = self.xdp()?;
        pin(pins.program(names::PROGRAM_INGRESS), &mut |path| xdp.pin(path))?;
        let tc = self.tc()?;
        pin(pins.program(names::PROGRAM_EGRESS), &mut |path| tc.pin(path))
    }

    /// Instructions that the verifier walked, per program (Linux 5.16); none where it does not say.
    pub fn verified_instructions(&mut self) -> Result<[Option<u32>; 2], KernelError> {
        let count = |info: Result<aya::programs::ProgramInfo, ProgramError>, name| {
            info.map(|info| info.verified_instruction_count()).map_err(KernelError::program(name))
        };
        Ok([
            count(self.xdp()?.info(), names::PROGRAM_INGRESS)?,
            count(self.tc()?.info(), names::PROGRAM_EGRESS)?,
        ])
    }
}

/// The secret that belongs to the pinned flow table, or a new one.
fn flow_secret(pins: &Pins, share: Share) -> Result<u64, KernelError> {
    // Not all of the maps need be there: a start may have been cut short.
    if share == Share::All && pins.map(names::MAP_HOST).exists() {
        let record = host_record(pins)?;
        if record.flow_secret != 0 {
            return Ok(record.flow_secret);
        }
    }
    random().map_err(KernelError::system("getrandom", "for the flow table"))
}

/// A random number that is not 0.
fn random() -> io::Result<u64> {
    let mut bytes = [0_u8; 8];
    // SAFETY: the buffer is as long as said.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got == bytes.len().cast_signed() {
        Ok(u64::from_ne_bytes(bytes) | 1)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The record about the host. Whoever reads or writes other pinned maps asks for it first: maps of
/// another layout are refused here. One that was never filled in (version 0) is of this layout.
pub(super) fn host_record(pins: &Pins) -> Result<HostRecord, KernelError> {
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

/// Fills what is fixed for the life of the maps into the record about the host.
fn introduce(pins: &Pins, ticks: Ticks, secret: u64) -> Result<(), KernelError> {
    let mut mapping = pins.mapped::<HostRecord>(names::MAP_HOST, 1, true)?;
    let mut record = mapping.get(0).ok_or(KernelError::Unreadable)?;
    record.abi = ABI_VERSION;
    record.tick_shift = ticks.shift;
    record.flow_secret = secret;
    if record.counting_since == 0 {
        record.counting_since = unix_now();
    }
    record.version = padded(env!("CARGO_PKG_VERSION"));
    mapping.set(0, record);
    Ok(())
}

/// Text cut to a fixed size at a character boundary and filled up with zero bytes.
pub(super) fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut end = text.len().min(N);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut bytes = [0; N];
    bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
    bytes
}

/// The text of such a field.
pub(super) fn unpadded(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
