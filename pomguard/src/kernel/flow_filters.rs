//! Keeps the tables that a look-up of a flow asks first complete: the prints of the flows, and the local ports at
//! which a flow can exist.
//!
//! The programs write both tables when they enter a flow. A program of an older version, or one that writes
//! another table because a pin was lost, enters flows that neither table names. Such programs judge packets until
//! the exchange of the programs. So a start takes two steps:
//!
//! 1. [`doubt`], before the exchange: whatever could hide a flow says "perhaps" from now on.
//! 2. [`complete`], after the exchange: the prints of all slots are known again.

use std::os::fd::AsFd as _;

use log::info;
use pomguard_common::{
    flow::{
        Bucket, ports,
        prints::{self, Prints},
    },
    limits, names,
};

use super::{KernelError, clock::Ticks, control, generation, mapping::Mapping, pins::Pins, programs, raw};

/// Makes every print and port say "perhaps" that could hide a flow. `had_flows` is false for a flow table that
/// is new. If programs that do not write these tables judge packets, this goes for all prints and ports.
///
/// # Errors
/// If the maps or the hooks cannot be read.
pub fn doubt(pins: &Pins, ticks: Ticks, had_flows: bool) -> Result<(), KernelError> {
    complete_ports(pins, had_flows, ticks.now()? as u32)?;
    let table = Table::open(pins)?;
    if !is_written(pins, names::MAP_FLOW_PRINTS)? {
        return table.each(|_, prints| prints.clear());
    }
    let mut wrong = 0;
    table.each(|bucket, prints| wrong += prints::doubt(bucket, prints))?;
    if wrong != 0 {
        info!("{wrong} flows were hidden, because an older version entered them; they are found again");
    }
    Ok(())
}

/// Completes the prints, if every program that judges packets writes them. Returns false if one does not: then
/// call this again later, because the prints say "perhaps" until then.
///
/// # Errors
/// If the maps or the hooks cannot be read.
pub fn complete(pins: &Pins, ticks: Ticks) -> Result<bool, KernelError> {
    doubt(pins, ticks, true)?;
    if !is_written(pins, names::MAP_FLOW_PRINTS)? {
        return Ok(false);
    }
    // A program that began before may have noted a print that the first step took away, or may not write prints.
    generation::wait_for_packets(pins, control::active(pins)?.installed())?;
    Table::open(pins)?.each(prints::complete)?;
    Ok(true)
}

/// Returns true if every program that judges packets writes this table.
fn is_written(pins: &Pins, name: &'static str) -> Result<bool, KernelError> {
    let path = pins.map(name);
    let failed = |call| KernelError::system(call, path.display().to_string());
    let table = raw::open_pin(&path).map_err(failed("BPF_OBJ_GET"))?;
    let [_kind, id] = raw::identity(table.as_fd()).map_err(failed("BPF_OBJ_GET_INFO_BY_FD"))?;
    programs::all_use(pins, id)
}

/// Marks every local port as possibly having flows if the flow table is older than the table of ports, or if
/// programs enter flows without the table: the table of ports lost the pin, an older version is in force, or the
/// first start was interrupted. The mark that all ports are known is written last.
fn complete_ports(pins: &Pins, had_flows: bool, now: u32) -> Result<(), KernelError> {
    let mut table = pins.mapped::<[u32; 2]>(names::MAP_FLOW_PORTS, ports::COUNT, true)?;
    let known = table.get(ports::COMPLETE).ok_or(KernelError::Unreadable)? != [0; 2];
    if known && is_written(pins, names::MAP_FLOW_PORTS)? {
        return Ok(());
    }
    if had_flows {
        for port in 0..ports::COMPLETE {
            table.set(port, [ports::unknown(now); 2]);
        }
    }
    table.set(ports::COMPLETE, [1, 0]);
    Ok(())
}

/// The flow table with the prints.
struct Table {
    buckets: Mapping<[u64; size_of::<Bucket>() / 8]>,
    prints: Mapping<u64>,
}

impl Table {
    fn open(pins: &Pins) -> Result<Self, KernelError> {
        Ok(Self {
            buckets: pins.mapped(names::MAP_FLOWS, limits::FLOW_BUCKETS, true)?,
            prints: pins.mapped(names::MAP_FLOW_PRINTS, limits::FLOW_BUCKETS, true)?,
        })
    }

    /// Calls `act` with each bucket and the prints of the bucket.
    fn each(&self, mut act: impl FnMut(&Bucket, &Prints)) -> Result<(), KernelError> {
        for number in 0..limits::FLOW_BUCKETS {
            let bucket = self.buckets.shared(number).ok_or(KernelError::Unreadable)?;
            act(bucket, self.prints.shared(number).ok_or(KernelError::Unreadable)?);
        }
        Ok(())
    }
}
