//! Corrects the prints of the flow table.
//!
//! The programs write the print of each flow that they enter. If the table of prints is new, or programs without
//! prints have entered flows, the prints of these flows are missing or are those of older flows.

use log::info;
use pomguard_common::{
    flow::{Bucket, prints, prints::Prints},
    limits, names,
};

use super::{KernelError, mapping::Mapping, pins::Pins};

/// Corrects all prints. Call this before the programs are attached, and again after it: programs without prints may
/// have entered flows in the meantime.
///
/// # Errors
/// If the maps cannot be read.
pub(super) fn renew(pins: &Pins) -> Result<(), KernelError> {
    let buckets: Mapping<[u64; size_of::<Bucket>() / 8]> =
        pins.mapped(names::MAP_FLOWS, limits::FLOW_BUCKETS, true)?;
    let table: Mapping<u64> = pins.mapped(names::MAP_FLOW_PRINTS, limits::FLOW_BUCKETS, true)?;
    let mut wrong = 0;
    for number in 0..limits::FLOW_BUCKETS {
        let bucket: &Bucket = buckets.shared(number).ok_or(KernelError::Unreadable)?;
        let prints: &Prints = table.shared(number).ok_or(KernelError::Unreadable)?;
        wrong += prints::renew(bucket, prints);
    }
    if wrong != 0 {
        info!("{wrong} flows were hidden, because an older version entered them; they are found again");
    }
    Ok(())
}
