//! The only raw `bpf(2)` calls: those for which aya has no safe form.

use std::{
    ffi::CString,
    io, mem,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya::{Pod, util::nr_cpus};
use aya_obj::generated::{
    bpf_attach_type, bpf_attr, bpf_cmd, bpf_link_info, bpf_map_type, bpf_prog_info, bpf_prog_type,
};

/// Calls `bpf(2)` and returns the new descriptor.
fn bpf_fd(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: as in `bpf`.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, &raw mut *attributes, size_of::<bpf_attr>())
    };
    let fd = i32::try_from(result).ok().filter(|&fd| fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<()> {
    // SAFETY: the attributes are a whole, initialised `bpf_attr`, and the memory behind their pointers outlives
    // the call (each caller, all of them below, ensures this).
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, &raw mut *attributes, size_of::<bpf_attr>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Returns an attribute block of zeros.
fn attributes() -> bpf_attr {
    // SAFETY: a union of plain integers, for which zero is a value.
    unsafe { mem::zeroed() }
}

/// Makes a map read-only for system calls, permanently. Linux 5.2.
pub(super) fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = attributes();
    attributes.__bindgen_anon_2.map_fd = map.as_raw_fd().cast_unsigned();
    bpf(bpf_cmd::BPF_MAP_FREEZE, &mut attributes)
}

pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = attributes();
    attributes.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    bpf_fd(bpf_cmd::BPF_OBJ_GET, &mut attributes)
}

/// Loads type information (BTF).
pub(super) fn load_btf(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut attributes = attributes();
    attributes.__bindgen_anon_7.btf = bytes.as_ptr() as u64;
    attributes.__bindgen_anon_7.btf_size = bytes.len() as u32;
    bpf_fd(bpf_cmd::BPF_BTF_LOAD, &mut attributes)
}

/// Loads a program from instructions, under a GPL-compatible licence. The error contains the verifier's reason.
pub(super) fn load_program(
    kind: bpf_prog_type,
    expected: u32,
    name: &str,
    instructions: &[u64],
) -> io::Result<OwnedFd> {
    /// Size in bytes of the buffer for the verifier's log. The verifier writes no more than this.
    const LOG: usize = 1 << 20;
    let error = match try_program(kind, expected, name, instructions, &mut []) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EINVAL)) => error,
        result => return result,
    };
    let mut log = vec![0; LOG];
    try_program(kind, expected, name, instructions, &mut log).map_err(|_| {
        let said = log.split(|&byte| byte == 0).next().map(String::from_utf8_lossy).unwrap_or_default();
        // The last line only reports how far the verifier came.
        let reason = said.lines().rev().find(|line| !line.starts_with("processed ") && !line.is_empty());
        reason.map_or(error, |reason| io::Error::other(reason.to_owned()))
    })
}

fn try_program(
    kind: bpf_prog_type,
    expected: u32,
    name: &str,
    instructions: &[u64],
    log: &mut [u8],
) -> io::Result<OwnedFd> {
    let mut attributes = attributes();
    {
        // SAFETY: every field of the union is a plain integer, and all of it was initialised.
        let program = unsafe { &mut attributes.__bindgen_anon_3 };
        program.prog_type = kind as u32;
        program.expected_attach_type = expected;
        program.insn_cnt = instructions.len() as u32;
        program.insns = instructions.as_ptr() as u64;
        program.license = c"Dual MIT/GPL".as_ptr() as u64;
        put_name(&mut program.prog_name, name);
        if !log.is_empty() {
            program.log_level = 1;
            program.log_buf = log.as_mut_ptr() as u64;
            program.log_size = log.len() as u32;
        }
    }
    bpf_fd(bpf_cmd::BPF_PROG_LOAD, &mut attributes)
}

/// Writes the first value of an array. `value` must have the length of the array's values.
pub(super) fn set_first(map: BorrowedFd<'_>, value: &[u8]) -> io::Result<()> {
    let key = 0_u32;
    let mut attributes = attributes();
    attributes.__bindgen_anon_2.map_fd = map.as_raw_fd().cast_unsigned();
    attributes.__bindgen_anon_2.key = &raw const key as u64;
    attributes.__bindgen_anon_2.__bindgen_anon_1.value = value.as_ptr() as u64;
    bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attributes)
}

/// Writes a name in the kernel's form: cut if too long, with a zero in the last byte.
fn put_name(to: &mut [libc::c_char; 16], name: &str) {
    for (to, from) in to[..15].iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
}

/// The definition of an array map that is not in the object.
pub(super) struct ArrayDefinition<'a> {
    /// The name that the kernel shows, cut to 15 bytes.
    pub(super) name: &'static str,
    /// Bytes of a value.
    pub(super) value_size: u32,
    /// Number of values.
    pub(super) length: u32,
    /// Flags of BPF_MAP_CREATE.
    pub(super) flags: u32,
    /// Type information, with the type ids of the key and the value.
    pub(super) types: Option<(BorrowedFd<'a>, u32, u32)>,
}

/// Creates an array map.
pub(super) fn create_array(definition: &ArrayDefinition<'_>) -> io::Result<OwnedFd> {
    let mut attributes = attributes();
    {
        // SAFETY: every field of the union is a plain integer, and all of it was initialised.
        let map = unsafe { &mut attributes.__bindgen_anon_1 };
        map.map_type = bpf_map_type::BPF_MAP_TYPE_ARRAY as u32;
        map.key_size = size_of::<u32>() as u32;
        map.value_size = definition.value_size;
        map.max_entries = definition.length;
        map.map_flags = definition.flags;
        if let Some((types, key, value)) = definition.types {
            map.btf_fd = types.as_raw_fd().cast_unsigned();
            map.btf_key_type_id = key;
            map.btf_value_type_id = value;
        }
        put_name(&mut map.map_name, definition.name);
    }
    bpf_fd(bpf_cmd::BPF_MAP_CREATE, &mut attributes)
}

/// Pins an object at a free path.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = attributes();
    attributes.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    attributes.__bindgen_anon_4.bpf_fd = object.as_raw_fd().cast_unsigned();
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attributes)
}

/// Exchanges the program behind a link in one step. Linux 5.7.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = attributes();
    attributes.link_update.link_fd = link.as_raw_fd().cast_unsigned();
    attributes.link_update.__bindgen_anon_1.new_prog_fd = program.as_raw_fd().cast_unsigned();
    bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attributes)
}

/// Detaches a program from the hook, even if another process holds the link. Linux 5.9.
pub(super) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = attributes();
    attributes.link_detach.link_fd = link.as_raw_fd().cast_unsigned();
    bpf(bpf_cmd::BPF_LINK_DETACH, &mut attributes)
}

/// Returns the first words of an object's info record.
fn words_of<const N: usize>(object: BorrowedFd<'_>) -> io::Result<[u32; N]> {
    let mut info = [0_u32; N];
    let mut attributes = attributes();
    attributes.info.bpf_fd = object.as_raw_fd().cast_unsigned();
    attributes.info.info_len = size_of_val(&info) as u32;
    attributes.info.info = &raw mut info as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(info)
}

/// Returns type and id of a map, a program or a link: the first two words of each info record.
pub(super) fn identity(object: BorrowedFd<'_>) -> io::Result<[u32; 2]> {
    words_of(object)
}

/// Returns the ids of the maps that a program uses. Linux 4.15.
pub(super) fn maps_of(program: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    /// Maximum number of maps of one program (MAX_USED_MAPS, include/linux/bpf_verifier.h).
    const MOST: usize = 64;
    let mut ids = vec![0_u32; MOST];
    // SAFETY: a struct of plain integers, for which zero is a value.
    let mut info: bpf_prog_info = unsafe { mem::zeroed() };
    info.nr_map_ids = MOST as u32;
    info.map_ids = ids.as_mut_ptr() as u64;
    let mut attributes = attributes();
    attributes.info.bpf_fd = program.as_raw_fd().cast_unsigned();
    attributes.info.info_len = size_of::<bpf_prog_info>() as u32;
    attributes.info.info = &raw mut info as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    ids.truncate(info.nr_map_ids as usize);
    Ok(ids)
}

/// Returns the id of the object in a slot of an array of maps or of programs; `None` if the slot is empty.
pub(super) fn inner_id(outer: BorrowedFd<'_>, slot: u32) -> io::Result<Option<u32>> {
    let mut id = 0_u32;
    let mut attributes = attributes();
    attributes.__bindgen_anon_2.map_fd = outer.as_raw_fd().cast_unsigned();
    attributes.__bindgen_anon_2.key = &raw const slot as u64;
    attributes.__bindgen_anon_2.__bindgen_anon_1.value = &raw mut id as u64;
    match bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attributes) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(|()| Some(id)),
    }
}

/// Puts a program into the first slot of an array of programs.
pub(super) fn set_program(array: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let (slot, program) = (0_u32, program.as_raw_fd());
    let mut attributes = attributes();
    attributes.__bindgen_anon_2.map_fd = array.as_raw_fd().cast_unsigned();
    attributes.__bindgen_anon_2.key = &raw const slot as u64;
    attributes.__bindgen_anon_2.__bindgen_anon_1.value = &raw const program as u64;
    bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attributes)
}

/// Returns the values of `keys` elements of an array map, starting with `first`, for each of `cpus` possible
/// CPUs: all values of the first element, then all of the next. Linux 5.13.
pub(super) fn lookup_batch<V: Pod + Default>(
    map: BorrowedFd<'_>,
    first: u32,
    keys: usize,
    cpus: usize,
) -> io::Result<Vec<V>> {
    // The kernel reports the size of the data that it writes.
    let [_kind, _id, key_size, value_size] = words_of(map)?;
    if key_size as usize != size_of::<u32>()
        || value_size as usize != size_of::<V>()
        || !size_of::<V>().is_multiple_of(8)
    {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut values = vec![V::default(); keys * cpus];
    if keys == 0 {
        return Ok(values);
    }
    // The kernel writes each key in addition to the values.
    let (mut indexes, mut last) = (vec![0_u32; keys], 0_u32);
    let mut attributes = attributes();
    attributes.batch.map_fd = map.as_raw_fd().cast_unsigned();
    // The kernel continues after the given key.
    let before = first.wrapping_sub(1);
    attributes.batch.in_batch = if first == 0 { 0 } else { &raw const before as u64 };
    attributes.batch.out_batch = &raw mut last as u64;
    attributes.batch.keys = indexes.as_mut_ptr() as u64;
    attributes.batch.values = values.as_mut_ptr() as u64;
    attributes.batch.count = keys as u32;
    bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attributes)?;
    // SAFETY: every field of the union is a plain integer, and all of it was initialised.
    let read = unsafe { attributes.batch.count };
    if read as usize == keys { Ok(values) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Reads the value of an array element as words; for a per-CPU array the values of all CPUs.
pub(super) fn lookup_words(map: BorrowedFd<'_>, key: u32, values: &mut [u64]) -> io::Result<()> {
    // The kernel reports the size of a value and writes one value for each possible CPU.
    let [kind, _id, key_size, value_size] = words_of(map)?;
    let cpus = if kind == bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY as u32 {
        nr_cpus().map_err(|(_, error)| error)?
    } else if kind == bpf_map_type::BPF_MAP_TYPE_ARRAY as u32 {
        1
    } else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let written = (value_size as usize).next_multiple_of(size_of::<u64>()) * cpus;
    if key_size as usize != size_of::<u32>() || size_of_val(values) < written {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut attributes = attributes();
    attributes.__bindgen_anon_2.map_fd = map.as_raw_fd().cast_unsigned();
    attributes.__bindgen_anon_2.key = &raw const key as u64;
    attributes.__bindgen_anon_2.__bindgen_anon_1.value = values.as_mut_ptr() as u64;
    bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attributes)
}

/// Returns true if the kernel does not know a command, or not for this kind of map.
pub(super) fn is_unknown_command(error: &io::Error) -> bool {
    /// An error number of the kernel that no C library names (ENOTSUPP, include/linux/errno.h).
    const NOT_SUPPORTED: i32 = 524;
    matches!(error.raw_os_error(), Some(NOT_SUPPORTED | libc::EINVAL))
}

/// Returns the programs at an interface's TCX egress, in the order of execution. Linux 6.6; empty before that.
pub(super) fn tcx_egress(ifindex: u32) -> io::Result<Vec<u32>> {
    /// Maximum number of programs at one hook (BPF_MPROG_MAX, include/linux/bpf_mprog.h).
    const MOST: usize = 64;
    let mut programs = [0_u32; MOST];
    let mut attributes = attributes();
    attributes.query.__bindgen_anon_1.target_ifindex = ifindex;
    attributes.query.attach_type = bpf_attach_type::BPF_TCX_EGRESS as u32;
    attributes.query.prog_ids = &raw mut programs as u64;
    attributes.query.__bindgen_anon_2.prog_cnt = MOST as u32;
    match bpf(bpf_cmd::BPF_PROG_QUERY, &mut attributes) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(Vec::new()),
        result => result?,
    }
    // SAFETY: every field of the union is a plain integer, and all of it was initialised.
    let count = unsafe { attributes.query.__bindgen_anon_2.prog_cnt };
    Ok(programs.into_iter().take(count as usize).collect())
}

/// Facts about a link from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkFacts {
    /// Id of the program behind the link.
    pub(super) program: u32,
    /// Index of the interface; 0 if the interface is gone.
    pub(super) ifindex: u32,
}

/// Returns the kernel's facts about an XDP or TCX link. Linux 5.8, interface index 5.9.
pub(super) fn link_facts(link: BorrowedFd<'_>) -> io::Result<LinkFacts> {
    // SAFETY: a struct and union of plain integers, for which zero is a value.
    let mut info: bpf_link_info = unsafe { mem::zeroed() };
    let mut attributes = attributes();
    attributes.info.bpf_fd = link.as_raw_fd().cast_unsigned();
    attributes.info.info_len = size_of::<bpf_link_info>() as u32;
    attributes.info.info = &raw mut info as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    // XDP and TCX links both have the interface index first in their part of the union.
    // SAFETY: every field of the union is a plain integer, and all of it was initialised.
    let ifindex = unsafe { info.__bindgen_anon_1.xdp.ifindex };
    Ok(LinkFacts { program: info.prog_id, ifindex })
}
