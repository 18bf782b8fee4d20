//! All maps. [`pomguard_common::names`] has the same names.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, ArrayOfMaps, PerCpuArray, ProgramArray},
    macros::btf_map,
};
use pomguard_common::{
    control::{Control, Override},
    counter::{self, Counters, HostRecord, RowLabel, RowTally},
    drops,
    flow::{
        Bucket,
        ports::{self, FlowPort},
        prints::Prints,
    },
    image::Line,
    limits,
    serve::Served,
};

use crate::layout;

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

/// Prints of the flow table: a byte of the hash of each entry.
#[btf_map]
pub(crate) static FLOW_PRINTS: Array<Prints, { limits::FLOW_BUCKETS }, MAPPED> = Array::new();

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

/// Memory that one packet needs in addition to the stack, see [`layout`]. Plain words, because the kernel's
/// BTF check refuses parts of the type of a datagram.
#[btf_map]
pub(crate) static SCRATCH: PerCpuArray<[u64; layout::WORDS], { layout::VALUES }> = PerCpuArray::new();
