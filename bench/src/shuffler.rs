//! The object of the bench: shufflers and floors for both hooks, and a program that sends.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, ProgramArray},
    programs::{ProgramFd, SchedClassifier, TestRun, TestRunAttrs, TestRunOptions, Xdp, XdpMode},
};
use pomguard_common::{Direction, bench};

use super::traffic::Header;

/// Live frames that the kernel makes at once; at most 256.
const BATCH: u32 = 64;

/// Destination MAC address of the frames.
pub(super) const DESTINATION: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Source MAC address of the frames.
pub(super) const SOURCE: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// The loaded shufflers.
pub(super) struct Shuffler {
    ebpf: Ebpf,
}

impl Shuffler {
    /// Loads the object of the bench.
    pub(super) fn load(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| path.display().to_string())?;
        let mut shuffler =
            Self { ebpf: EbpfLoader::new().load(&bytes).context("loading the bench's object")? };
        for name in [bench::SHUFFLE_XDP, bench::FLOOR_XDP, bench::FORWARD_XDP, bench::ORACLE_XDP] {
            shuffler.xdp(name)?.load().context(name)?;
        }
        for name in [bench::SHUFFLE_TC, bench::FLOOR_TC] {
            shuffler.tc(name)?.load().context(name)?;
        }
        Ok(shuffler)
    }

    fn xdp(&mut self, name: &str) -> Result<&mut Xdp> {
        Ok(self.ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
    }

    fn tc(&mut self, name: &str) -> Result<&mut SchedClassifier> {
        Ok(self.ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
    }

    /// Sets the headers for the next runs.
    pub(super) fn fill(&mut self, headers: &[Header]) -> Result<()> {
        if headers.is_empty() || headers.len() > bench::HEADERS {
            bail!("{} headers; the bench's map holds {}", headers.len(), bench::HEADERS);
        }
        let map = self.ebpf.map_mut(bench::MAP_HEADERS).context("no map of headers")?;
        let mut map: Array<_, Header> = map.try_into()?;
        for (index, header) in (0..).zip(headers) {
            map.set(index, header, 0)?;
        }
        self.set_place(bench::Place { next: 0, count: headers.len() as u64 })
    }

    fn set_place(&mut self, place: bench::Place) -> Result<()> {
        let map = self.ebpf.map_mut(bench::MAP_PLACE).context("no map of the place")?;
        let mut map: Array<_, bench::Place> = map.try_into()?;
        Ok(map.set(0, place, 0)?)
    }

    /// Measures the nanoseconds per run of a program that does nothing.
    pub(super) fn floor(&mut self, hook: Direction, runs: usize) -> Result<f64> {
        let target = match hook {
            Direction::Inbound => self.xdp(bench::FLOOR_XDP)?.fd()?.try_clone()?,
            Direction::Outbound => self.tc(bench::FLOOR_TC)?.fd()?.try_clone()?,
        };
        self.run(hook, &target, runs)
    }

    /// Measures the nanoseconds per run of `target` behind the shuffler.
    pub(super) fn run(&mut self, hook: Direction, target: &ProgramFd, runs: usize) -> Result<f64> {
        let (map, program) = match hook {
            Direction::Inbound => (bench::MAP_TARGET_XDP, bench::SHUFFLE_XDP),
            Direction::Outbound => (bench::MAP_TARGET_TC, bench::SHUFFLE_TC),
        };
        self.aim(map, target)?;
        // Starts at the first header, so that every run of a case sees the same packets.
        let headers = self.place()?.count;
        self.set_place(bench::Place { next: 0, count: headers })?;
        let frame = self.frame()?;
        let options =
            TestRunOptions { data_in: Some(&frame), repeat: u32::try_from(runs)?, ..TestRunOptions::new() };
        let result = match hook {
            Direction::Inbound => self.xdp(program)?.test_run(options)?,
            Direction::Outbound => self.tc(program)?.test_run(options)?,
        };
        if result.return_value == bench::FAILED {
            return Err(anyhow!("the shuffler could not call the program under test"));
        }
        Ok(result.duration.as_secs_f64() * 1e9)
    }

    /// Sets the program that a shuffler calls.
    fn aim(&mut self, map: &str, target: &ProgramFd) -> Result<()> {
        let map = self.ebpf.map_mut(map).with_context(|| format!("no map {map}"))?;
        let mut map: ProgramArray<_> = map.try_into()?;
        map.set(0, target, 0).context("setting the program under test")
    }

    /// Attaches a program of the object to an interface of the calling thread's namespace.
    pub(super) fn attach(&mut self, name: &str, interface: u32) -> Result<()> {
        self.xdp(name)?.attach_to_if_index(interface, XdpMode::Driver).with_context(|| name.to_owned())?;
        Ok(())
    }

    /// Makes the packets of [`Self::send`] leave by this interface.
    pub(super) fn direct(&mut self, interface: u32) -> Result<()> {
        let forward = self.xdp(bench::FORWARD_XDP)?.fd()?.try_clone()?;
        self.aim(bench::MAP_TARGET_XDP, &forward)?;
        let map = self.ebpf.map_mut(bench::MAP_LINK).context("no map of the link")?;
        let mut link: Array<_, u32> = map.try_into()?;
        Ok(link.set(0, interface, 0)?)
    }

    /// Sends this number of frames, each with the next header, from the calling thread's namespace.
    ///
    /// The kernel makes them (`BPF_PROG_TEST_RUN` with live frames, Linux 5.18): no socket, no copy.
    pub(super) fn send(&mut self, frames: u32) -> Result<()> {
        let frame = self.frame()?;
        let options = TestRunOptions {
            data_in: Some(&frame),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        };
        self.xdp(bench::SHUFFLE_XDP)?.test_run(options).context("sending live frames (Linux 5.18)")?;
        Ok(())
    }

    fn place(&self) -> Result<bench::Place> {
        let map: Array<_, bench::Place> =
            self.ebpf.map(bench::MAP_PLACE).context("no map of the place")?.try_into()?;
        Ok(map.get(&0, 0)?)
    }

    /// Returns an Ethernet frame around the first header. The kernel reads the frame before the program runs.
    fn frame(&self) -> Result<Vec<u8>> {
        let map: Array<_, Header> =
            self.ebpf.map(bench::MAP_HEADERS).context("no map of headers")?.try_into()?;
        let header = map.get(&0, 0)?;
        let kind: [u8; 2] = if header[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
        let mut frame = [DESTINATION, SOURCE].concat();
        frame.extend(kind);
        frame.extend(header);
        Ok(frame)
    }
}
