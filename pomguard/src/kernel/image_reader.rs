//! Reads the image that was installed last.

use std::os::fd::AsFd as _;

use pomguard_common::{
    image::{Line, SECTIONS},
    limits, names,
};

use super::{KernelError, control, generation, mapping::Mapping, pins::Pins, raw};
use crate::compile::Record;

/// Returns one line of the image that was installed last.
///
/// # Errors
/// If there is no image, or the image cannot be read.
pub(super) fn line(pins: &Pins, index: u32) -> Result<Line, KernelError> {
    let array = generation::inner(pins, control::active(pins)?.installed())?;
    array.get(&index, 0).map_err(KernelError::map(names::MAP_POLICY))
}

/// Returns the lines of the image that was installed last.
///
/// # Errors
/// If there is no image, or the image cannot be read.
pub(super) fn lines(pins: &Pins) -> Result<Vec<Line>, KernelError> {
    let path = pins.image(control::active(pins)?.installed());
    let image =
        raw::open_pin(&path).map_err(KernelError::system("BPF_OBJ_GET", path.display().to_string()))?;
    let mapping = Mapping::<Line>::new(image.as_fd(), limits::IMAGE_LINES, false)
        .map_err(KernelError::system("mmap", path.display().to_string()))?;
    let head: Vec<Line> = mapping.iter().take(SECTIONS as usize).collect();
    let used = Record::read(&head).ok_or(KernelError::Unreadable)?.lines as usize;
    Ok(mapping.iter().take(used).collect())
}
