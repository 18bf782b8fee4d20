//! Reads the image in force: the one that was installed last, or after a deadline the one before.

use std::os::fd::AsFd as _;

use pomguard_common::{
    image::{Line, SECTIONS},
    limits, names,
};

use super::{KernelError, clock::Ticks, control, generation, mapping::Mapping, pins::Pins, raw};
use crate::compile::ImageFacts;

/// Returns one line of the image in force.
///
/// # Errors
/// If there is no image, or the image cannot be read.
pub(super) fn line(pins: &Pins, index: u32) -> Result<Line, KernelError> {
    let array = generation::inner(pins, slot_now(pins)?)?;
    array.get(&index, 0).map_err(KernelError::map(names::MAP_POLICY))
}

/// Returns the slot by which the programs judge now.
fn slot_now(pins: &Pins) -> Result<u8, KernelError> {
    Ok(control::active(pins)?.slot(Ticks::probe()?.now()? as u32) as u8)
}

/// Returns the digest of the image to which the programs return unless the pending change is confirmed.
///
/// # Errors
/// If there is no image, or the image cannot be read.
pub fn fallback_digest(pins: &Pins) -> Result<String, KernelError> {
    let lines = lines_of(pins, control::active(pins)?.fallback())?;
    Ok(ImageFacts::read(&lines).ok_or(KernelError::Unreadable)?.hex())
}

/// Returns the lines of the image in force.
///
/// # Errors
/// If there is no image, or the image cannot be read.
pub(super) fn lines(pins: &Pins) -> Result<Vec<Line>, KernelError> {
    lines_of(pins, slot_now(pins)?)
}

fn lines_of(pins: &Pins, slot: u8) -> Result<Vec<Line>, KernelError> {
    let path = pins.image(slot);
    let image =
        raw::open_pin(&path).map_err(KernelError::system("BPF_OBJ_GET", path.display().to_string()))?;
    let mapping = Mapping::<Line>::new(image.as_fd(), limits::IMAGE_LINES, false)
        .map_err(KernelError::system("mmap", path.display().to_string()))?;
    let head: Vec<Line> = mapping.iter().take(SECTIONS as usize).collect();
    let used = ImageFacts::read(&head).ok_or(KernelError::Unreadable)?.lines as usize;
    Ok(mapping.iter().take(used).collect())
}
