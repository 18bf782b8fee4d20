//! Creates the array that holds one generation, in a form that every kernel accepts in the map of images.
//!
//! The object's template of such an array has type information (BTF), because aya gives every map of the object
//! type information of its own. Kernels around Linux 6.1 compare the positions of a timer or a lock in a value.
//! They record "none" for a value with type information and "not known" for a value without. Therefore an array
//! without type information is refused with EINVAL if the template has type information. Every kernel accepts
//! an array with type information, because no kernel compares the types themselves.

use std::os::fd::{AsFd as _, OwnedFd};

use aya::maps::MapData;
use pomguard_common::{image::Line, limits, names};

use super::{KernelError, raw};

/// `BPF_F_MMAPABLE` (Linux 5.5): must equal the flags of the object's declaration.
const MAPPED: u32 = 1 << 10;
/// The name that the kernel shows.
const NAME: &str = "pomguard_image";

/// Type ids in [`TYPES`].
const KEY_TYPE: u32 = 1;
const VALUE_TYPE: u32 = 2;

/// Kinds of linux/btf.h, as encoded in the second word of a type.
const KIND_INT: u32 = 1 << 24;
const KIND_STRUCT: u32 = 4 << 24;
/// The names: none, "u", "line", "word".
const STRINGS: &[u8; 16] = b"\0u\0line\0word\0\0\0\0";
/// The types: an unsigned integer of 32 bits, and a structure of the size of a line with the first word as the
/// only named member. Each word is in the byte order of this machine.
const TYPES: [u32; 10] = [
    // name, kind, size, bits
    1,
    KIND_INT,
    size_of::<u32>() as u32,
    u32::BITS,
    // name, kind with one member, size; member: name, type, offset
    3,
    KIND_STRUCT | 1,
    size_of::<Line>() as u32,
    8,
    KEY_TYPE,
    0,
];

/// Returns the type information in the kernel's format.
fn btf() -> Vec<u8> {
    const MAGIC: u16 = 0xeb9f;
    const VERSION: u8 = 1;
    const HEADER: u32 = 24;
    let types = size_of_val(&TYPES) as u32;
    let mut bytes = MAGIC.to_ne_bytes().to_vec();
    bytes.extend([VERSION, 0]);
    for word in [HEADER, 0, types, types, STRINGS.len() as u32].into_iter().chain(TYPES) {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(STRINGS);
    bytes
}

/// Creates an array of the size that the object declares for a generation.
///
/// # Errors
/// If the kernel refuses.
pub(super) fn fresh() -> Result<MapData, KernelError> {
    let types = match raw::load_btf(&btf()) {
        Ok(types) => Some(types),
        // A kernel without type information: the template has none either.
        Err(error) if raw::is_unknown_command(&error) => None,
        Err(error) => return Err(KernelError::system("BPF_BTF_LOAD", "of the new image")(error)),
    };
    let array = raw::create_array(&raw::ArrayDefinition {
        name: NAME,
        value_size: size_of::<Line>() as u32,
        length: limits::IMAGE_LINES as u32,
        flags: MAPPED,
        types: types.as_ref().map(|types: &OwnedFd| (types.as_fd(), KEY_TYPE, VALUE_TYPE)),
    })
    .map_err(KernelError::system("BPF_MAP_CREATE", "of the new image"))?;
    MapData::from_fd(array).map_err(KernelError::map(names::MAP_POLICY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_information_is_as_long_as_its_header_says() {
        let bytes = btf();
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        assert_eq!(bytes.len(), word(4) + word(12) + word(20), "header, types and strings");
        assert_eq!(word(12), word(16), "the strings begin where the types end");
        assert_eq!(&bytes[bytes.len() - STRINGS.len()..][3..8], b"line\0");
    }
}
