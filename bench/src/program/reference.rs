//! The reference under test: a program with one table of exact keys, filled with the tuples of the policy.

use std::{collections::BTreeSet, fs, net::IpAddr, path::Path};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, PerCpuArray},
    programs::{ProgramFd, Xdp},
};
use pomguard_common::{Direction, bench, protocol, reason::Reason};

use super::case::Case;
use crate::{policy::Policy, shuffler::Shuffler};

/// Words of a line.
const WORDS: usize = 8;

/// The loaded reference.
pub(super) struct Reference {
    ebpf: Ebpf,
}

impl Reference {
    /// Loads the reference with the tuples of a policy. Returns `None` if the policy has too many prefix lengths.
    pub(super) fn load(object: &Path, policy: &Policy) -> Result<Option<Self>> {
        let lengths: BTreeSet<u32> =
            policy.tuples.iter().map(|tuple| u32::from(tuple.peer.prefix_len())).collect();
        if lengths.len() > bench::REFERENCE_LENGTHS || lengths.contains(&0) {
            return Ok(None);
        }
        // Hosts first: most peers are hosts.
        let lengths: Vec<u32> = lengths.into_iter().rev().collect();
        let bytes = fs::read(object).with_context(|| object.display().to_string())?;
        let mut ebpf = EbpfLoader::new().load(&bytes).context("loading the bench's object")?;
        let lines = table(policy);
        let head = bench::Reference {
            mask: u32::try_from(lines.len())? - 1,
            count: u32::try_from(lengths.len())?,
            lengths: std::array::from_fn(|at| lengths.get(at).copied().unwrap_or(0)),
        };
        let map = ebpf.map_mut(bench::MAP_REFERENCE_LINES).context("no table of the reference")?;
        let mut map: Array<_, [u64; WORDS]> = map.try_into()?;
        for (number, line) in (0..).zip(lines) {
            map.set(number, line, 0)?;
        }
        let map = ebpf.map_mut(bench::MAP_REFERENCE).context("no head of the reference")?;
        let mut map: Array<_, bench::Reference> = map.try_into()?;
        map.set(0, head, 0)?;
        let mut reference = Self { ebpf };
        reference.xdp()?.load().context("loading the reference")?;
        Ok(Some(reference))
    }

    fn xdp(&mut self) -> Result<&mut Xdp> {
        Ok(self.ebpf.program_mut(bench::REFERENCE_XDP).context("no reference")?.try_into()?)
    }

    fn program(&mut self) -> Result<ProgramFd> {
        Ok(self.xdp()?.fd()?.try_clone()?)
    }

    /// Returns true if the reference can judge the packets of a case: its table has no flows.
    pub(super) fn knows(case: &Case) -> bool {
        case.hook == Direction::Inbound && case.reason != Reason::OwnFlow
    }

    /// Returns the nanoseconds per packet of a case. Fails if a packet was judged wrongly.
    pub(super) fn counted(&mut self, shuffler: &mut Shuffler, case: &Case, runs: usize) -> Result<f64> {
        let before = self.counts()?;
        let program = self.program()?;
        let nanoseconds = shuffler.run(case.hook, &program, runs)?;
        let after = self.counts()?;
        let passed = case.reason == Reason::Row;
        let counted = if passed { after[1] - before[1] } else { after[0] - before[0] };
        ensure!(counted == runs as u64, "the reference judged {counted} of {runs} packets rightly");
        Ok(nanoseconds)
    }

    /// Returns the packets that were dropped and passed.
    fn counts(&self) -> Result<[u64; 2]> {
        let map = self.ebpf.map(bench::MAP_REFERENCE_COUNTS).context("no counters of the reference")?;
        let map: PerCpuArray<_, [u64; 4]> = map.try_into()?;
        let all = map.get(&0, 0)?;
        Ok([0, 2].map(|at| all.iter().map(|counts| counts[at]).sum()))
    }
}

/// Makes the table: half of the words are free, so that most look-ups read one line.
fn table(policy: &Policy) -> Vec<[u64; WORDS]> {
    let is_v4 = policy.host.is_ipv4();
    let keys_in_line = if is_v4 { WORDS } else { 2 };
    let lines = (policy.tuples.len() * 2 / keys_in_line).next_power_of_two().clamp(1, bench::REFERENCE_LINES);
    let mut table = vec![[0; WORDS]; lines];
    for tuple in &policy.tuples {
        let service = bench::reference_service(tuple.peer.prefix_len().into(), protocol::TCP, tuple.port);
        let (high, low, key) = match tuple.peer.network() {
            IpAddr::V4(address) => {
                let address = u64::from(u32::from(address));
                (address, 0, vec![address << 32 | service])
            }
            IpAddr::V6(address) => {
                let bits = u128::from(address);
                let (high, low) = ((bits >> 64) as u64, bits as u64);
                (high, low, vec![high, low, service])
            }
        };
        let first = bench::reference_hash(high, low, service) as usize;
        let step = WORDS / keys_in_line;
        let place = (0..lines).find_map(|probe| {
            let line = first.wrapping_add(probe) & (lines - 1);
            let free = |at: &usize| table[line][*at..*at + step].iter().all(|word| *word == 0);
            (0..WORDS).step_by(step).find(free).map(|at| (line, at))
        });
        if let Some((line, at)) = place {
            table[line][at..at + key.len()].copy_from_slice(&key);
        }
    }
    table
}
