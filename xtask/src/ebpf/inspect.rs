//! Prints the contents of an object, read by the parser that the daemon's loader uses.

use anyhow::{Context as _, Result, bail};
use aya_obj::Object;

use super::stack;

/// Prints size, programs, maps and stack. Fails if the loader cannot read the object, or if an older kernel
/// would refuse the object for its stack.
pub(crate) fn print(bytes: &[u8]) -> Result<()> {
    let object = Object::parse(bytes).context("the loader cannot read the object")?;
    if object.btf.is_none() {
        bail!("the object has no BTF: its maps could not be created");
    }
    println!("{} bytes, {} maps", bytes.len(), object.maps.len());
    let mut programs: Vec<_> = object.programs.iter().collect();
    programs.sort_by_key(|(name, _)| *name);
    for (name, program) in programs {
        let function = object.functions.get(&program.function_key());
        let instructions = function.map_or(0, |function| function.instructions.len());
        println!("  {name}: {instructions} instructions before inlined calls, {:?}", program.section);
    }
    stack::check(bytes)
}
