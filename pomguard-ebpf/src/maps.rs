//! All maps. Their names are those of [`pomguard_common::names`].

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

/// Arrays that user space reads and fills by mapping them, not by one call per element.
const MAPPED: usize = BPF_F_MMAPABLE as usize;

/// One generation: user space makes a fresh one for every change and freezes it.
pub(crate) type Generation = Array<Line, { limits::IMAGE_LINES }, MAPPED>;

/// One compiled policy per generation slot.
#[btf_map]
pub(crate) static POLICY: ArrayOfMaps<Generation, { limits::GENERATIONS }> = ArrayOfMaps::new();

/// Which slot is in force, and what holds alongside it.
#[btf_map]
pub(crate) static CONTROL: Array<Control, 1, MAPPED> = Array::new();

/// Failsafe rows, each with the generation slots that it holds for, and timed exceptions.
#[btf_map]
pub(crate) static OVERRIDES: Array<Override, { limits::OVERRIDES }, MAPPED> = Array::new();

/// Packets seen, and packets by reason: of the network, and of self-tests.
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<Counters, { counter::set::COUNT }> = PerCpuArray::new();

/// Packets that came in, by interface.
#[btf_map]
pub(crate) static INTERFACES: PerCpuArray<u64, { limits::INTERFACES }> = PerCpuArray::new();

/// One tally per row slot.
#[btf_map]
pub(crate) static ROWS: PerCpuArray<RowTally, { limits::ROW_SLOTS }> = PerCpuArray::new();

/// Who was denied: this CPU's table. Plain words, because the kernel's BTF check refuses some of what a word of
/// the flow table is made of.
#[btf_map]
pub(crate) static DROPS: PerCpuArray<[u64; drops::ELEMENT], { drops::ELEMENTS }> = PerCpuArray::new();

/// What each row slot means; written and read by user space only.
#[btf_map]
pub(crate) static LABELS: Array<RowLabel, { limits::ROW_SLOTS }, MAPPED> = Array::new();

/// About the host; written and read by user space only.
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

/// When each local port served.
#[btf_map]
pub(crate) static SERVED: Array<Served, { Served::COUNT }, MAPPED> = Array::new();

/// The general XDP program. User space fills the array before it attaches the fast one.
#[btf_map]
pub(crate) static GENERAL_XDP: ProgramArray<1> = ProgramArray::new();

/// The general TC program, likewise. A program array takes programs of one type.
#[btf_map]
pub(crate) static GENERAL_TC: ProgramArray<1> = ProgramArray::new();

/// Words that a datagram takes in the scratch map.
pub(crate) const DATAGRAM_WORDS: usize = size_of::<Datagram>().div_ceil(8);
/// Words that a key takes in it.
pub(crate) const KEY_WORDS: usize = size_of::<Key>() / 8;
/// Words that candidates take in it.
pub(crate) const CANDIDATE_WORDS: usize = size_of::<Candidates>() / 8;
/// Words of the scratch map: the datagram under judgement and one that it quotes, one word to forget by,
/// a key, what was let through of each packet class with a rate, 1 for a self-test, the bit of the generation's slot,
/// candidates that may make room, and what is known of the peer.
pub(crate) const SCRATCH_WORDS: usize =
    DATAGRAM_WORDS * ParsedSlot::ALL + 1 + KEY_WORDS + Rated::COUNT + 2 + CANDIDATE_WORDS + 1;

/// What one packet needs alongside the stack: one value per hook, and two more for self-tests, which a packet of
/// the network may interrupt. Plain words, because the kernel's BTF check refuses some of what a datagram is made of.
#[btf_map]
pub(crate) static SCRATCH: PerCpuArray<[u64; SCRATCH_WORDS], 4> = PerCpuArray::new();
