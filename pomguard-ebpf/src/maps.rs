//! All maps. [`pomguard_common::names`] has the same names.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, ArrayOfMaps, PerCpuArray, ProgramArray},
    macros::btf_map,
};
use pomguard_common::{
    control::{Control, Override},
    counter::{self, Counters, HostRecord, RowLabel, RowTally},
    decide::ParsedSlot,
    drops,
    flow::{
        Bucket, Candidates, Key,
        ports::{self, FlowPort},
    },
    image::Line,
    limits,
    parse::Datagram,
    rate::Rated,
    serve::Served,
};

/// Flag of arrays that user space reads and fills through a memory mapping instead of one call per element.
const MAPPED: usize = BPF_F_MMAPABLE as usize;

/// One generation: user space creates a new one for every change, and freezes it.
pub(crate) type Generation = Array<Line, { limits::IMAGE_LINES }, MAPPED>;

/// One compiled policy per generation slot.
#[btf_map]
pub(crate) static POLICY: ArrayOfMaps<Generation, { limits::GENERATIONS }> = ArrayOfMaps::new();

/// The slot in force, and the state that holds in addition to the generations.
#[btf_map]
pub(crate) static CONTROL: Array<Control, 1, MAPPED> = Array::new();

/// Failsafe rows, each with the generation slots for which it holds, and timed exceptions.
#[btf_map]
pub(crate) static OVERRIDES: Array<Override, { limits::OVERRIDES }, MAPPED> = Array::new();

/// Packets seen, and packets by reason: of traffic, and of self-tests.
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<Counters, { counter::set::COUNT }> = PerCpuArray::new();

/// Inbound packets by interface.
#[btf_map]
pub(crate) static INTERFACES: PerCpuArray<u64, { limits::INTERFACES }> = PerCpuArray::new();

/// One tally per row slot.
#[btf_map]
pub(crate) static ROWS: PerCpuArray<RowTally, { limits::ROW_SLOTS }> = PerCpuArray::new();

/// This CPU's table of drops. Plain words, because the kernel's BTF check refuses parts of the type of a
/// flow-table word.
#[btf_map]
pub(crate) static DROPS: PerCpuArray<[u64; drops::ELEMENT], { drops::ELEMENTS }> = PerCpuArray::new();

/// The meaning of each row slot; only user space reads and writes it.
#[btf_map]
pub(crate) static LABELS: Array<RowLabel, { limits::ROW_SLOTS }, MAPPED> = Array::new();

/// The record about the host; only user space reads and writes it.
#[btf_map]
pub(crate) static HOST: Array<HostRecord, 1, MAPPED> = Array::new();

/// The flow table.
#[btf_map]
pub(crate) static FLOWS: Array<Bucket, { limits::FLOW_BUCKETS }, MAPPED> = Array::new();

/// Local ports at which a flow can exist.
#[btf_map]
pub(crate) static FLOW_PORTS: Array<FlowPort, { ports::COUNT }, MAPPED> = Array::new();

/// The fragment table.
#[btf_map]
pub(crate) static FRAGMENTS: Array<Bucket, { limits::FRAGMENT_BUCKETS }, MAPPED> = Array::new();

/// The time at which each local port last served.
#[btf_map]
pub(crate) static SERVED: Array<Served, { Served::COUNT }, MAPPED> = Array::new();

/// The general XDP program. User space fills the array before it attaches the fast program.
#[btf_map]
pub(crate) static GENERAL_XDP: ProgramArray<1> = ProgramArray::new();

/// The general TC program. User space fills the array before it attaches the fast program. A program array
/// takes programs of one type.
#[btf_map]
pub(crate) static GENERAL_TC: ProgramArray<1> = ProgramArray::new();

/// Words of a datagram in the scratch map.
pub(crate) const DATAGRAM_WORDS: usize = size_of::<Datagram>().div_ceil(8);
/// Words of a key in the scratch map.
pub(crate) const KEY_WORDS: usize = size_of::<Key>() / 8;
/// Words of the candidates in the scratch map.
pub(crate) const CANDIDATE_WORDS: usize = size_of::<Candidates>() / 8;
/// Words of the scratch map: the datagram under judgement and the one that it quotes, one word for the
/// barrier, a key, the packets that passed of each rate-limited class, 1 for a self-test, the bit of the
/// generation's slot, the candidates that may make room, and the record about the peer.
pub(crate) const SCRATCH_WORDS: usize =
    DATAGRAM_WORDS * ParsedSlot::ALL + 1 + KEY_WORDS + Rated::COUNT + 2 + CANDIDATE_WORDS + 1;

/// Memory that one packet needs in addition to the stack: one value per hook, and two more for self-tests,
/// which a packet of the network may interrupt. Plain words, because the kernel's BTF check refuses parts of
/// the type of a datagram.
#[btf_map]
pub(crate) static SCRATCH: PerCpuArray<[u64; SCRATCH_WORDS], 4> = PerCpuArray::new();
