//! Computes the stack of a program's deepest chain of calls, by the rules of the strictest kernel.
//!
//! The verifier allows 512 bytes for a whole chain (`MAX_BPF_STACK`). Linux 5.10 rounds each frame up to 32
//! bytes; newer kernels that have a JIT round to 16. So 5.10 may refuse a program that the newest kernel
//! accepts ("combined stack size of 3 calls is 544. Too large"). The verifier of this machine cannot find
//! that out; the object shows it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use anyhow::{Context as _, Result, bail, ensure};
use aya_obj::{Object, generated::bpf_insn};

/// The largest stack of a chain of calls, in bytes.
pub(crate) const LIMIT: u32 = 512;

/// Older kernels round a frame up to a multiple of this number of bytes.
const ROUNDING: u32 = 32;

/// The largest number of frames in a chain (`MAX_CALL_FRAMES`).
const FRAMES: usize = 8;

/// A call of a function of the same program, or of a helper (`BPF_JMP | BPF_CALL`).
const CALL: u8 = 0x85;
/// Source register of a call of a function of the same program (`BPF_PSEUDO_CALL`).
const PSEUDO_CALL: u8 = 1;
/// The helper that jumps to another program (`BPF_FUNC_tail_call`).
const TAIL_CALL: i32 = 12;
/// `BPF_ALU64 | BPF_MOV | BPF_X`.
const MOVE: u8 = 0xbf;
/// `BPF_ALU64 | BPF_ADD | BPF_K`.
const ADD: u8 = 0x07;
/// The frame pointer.
const FRAME: u8 = 10;

/// Returns the bytes of stack of the deepest chain of each program, by the program's name.
///
/// # Errors
/// If the loader cannot read or link the object, if a program's functions call each other in a circle, or if
/// a program has both calls of its own functions and tail calls.
pub(crate) fn of_programs(bytes: &[u8]) -> Result<BTreeMap<String, u32>> {
    let mut object = Object::parse(bytes).context("the loader cannot read the object")?;
    let sections: HashSet<usize> = object.functions.keys().map(|&(section, _)| section).collect();
    object.relocate_calls(&sections).context("the loader cannot link the object")?;
    let mut deepest = BTreeMap::new();
    for (name, program) in &object.programs {
        let function = object.functions.get(&program.function_key()).context("a program without code")?;
        refuse_mixed(&function.instructions).with_context(|| name.clone())?;
        let depth = deepest_chain(&function.instructions).with_context(|| name.clone())?;
        deepest.insert(name.clone(), depth);
    }
    Ok(deepest)
}

/// Fails if a chain of a program is too deep for the strictest kernel.
pub(crate) fn check(bytes: &[u8]) -> Result<()> {
    for (name, depth) in of_programs(bytes)? {
        println!("  {name}: {depth} of {LIMIT} bytes of stack, as Linux 5.10 counts");
        ensure!(
            depth <= LIMIT,
            "{name}: {depth} bytes of stack, and older kernels refuse more than {LIMIT}: give less by value"
        );
    }
    Ok(())
}

/// Returns the stack of the deepest chain in a linked program. Its functions are in sequence, and the
/// program's own comes first.
fn deepest_chain(instructions: &[bpf_insn]) -> Result<u32> {
    let starts: BTreeSet<usize> =
        (0..instructions.len()).filter_map(|at| called(instructions, at)).chain([0]).collect();
    let mut frames = BTreeMap::new();
    for (nth, &start) in starts.iter().enumerate() {
        let end = starts.iter().nth(nth + 1).copied().unwrap_or(instructions.len());
        let calls: BTreeSet<usize> = (start..end).filter_map(|at| called(instructions, at)).collect();
        let own = instructions.get(start..end).context("a call leads out of the program")?;
        frames.insert(start, (frame(own).max(1).next_multiple_of(ROUNDING), calls));
    }
    below(&frames, 0, FRAMES)
}

/// Returns the first instruction of the function that the instruction at `at` calls, if any.
fn called(instructions: &[bpf_insn], at: usize) -> Option<usize> {
    let instruction = instructions.get(at)?;
    let calls = instruction.code == CALL && instruction.src_reg() == PSEUDO_CALL;
    // Relative to the next instruction.
    calls.then(|| (at + 1).checked_add_signed(instruction.imm as isize)).flatten()
}

/// Fails if a program has both calls of its own functions and tail calls. Kernels before Linux 5.10, and the
/// kernels of RHEL 8.4, refuse such a program ("tail_calls are not allowed in programs with bpf-to-bpf
/// calls").
fn refuse_mixed(instructions: &[bpf_insn]) -> Result<()> {
    let calls = (0..instructions.len()).any(|at| called(instructions, at).is_some());
    let jumps = instructions.iter().any(|it| it.code == CALL && it.src_reg() == 0 && it.imm == TAIL_CALL);
    ensure!(!(calls && jumps), "a program that makes a tail call calls a function that was not inlined");
    Ok(())
}

/// Returns the stack of a function together with the deepest chain of its callees.
fn below(frames: &BTreeMap<usize, (u32, BTreeSet<usize>)>, at: usize, left: usize) -> Result<u32> {
    let Some(left) = left.checked_sub(1) else { bail!("a chain of more than {FRAMES} frames") };
    let (own, calls) = frames.get(&at).context("a call leads nowhere")?;
    let mut deepest = 0;
    for &call in calls {
        deepest = deepest.max(below(frames, call, left)?);
    }
    Ok(own + deepest)
}

/// Returns how far below the frame pointer a function reaches: by reads and writes there, and by addresses
/// that it derives from the frame pointer.
fn frame(instructions: &[bpf_insn]) -> u32 {
    let mut deepest = 0;
    let mut copies = HashSet::new();
    for instruction in instructions {
        let (to, from) = (instruction.dst_reg(), instruction.src_reg());
        let reach = match instruction.code & 0x07 {
            // BPF_LDX, and for BPF_ST and BPF_STX the register that is written through.
            0x01 if from == FRAME => i32::from(instruction.off),
            0x02 | 0x03 if to == FRAME => i32::from(instruction.off),
            _ if instruction.code == ADD && copies.contains(&to) => instruction.imm,
            _ => 0,
        };
        deepest = deepest.max(reach.min(0).unsigned_abs());
        if instruction.code == MOVE && from == FRAME {
            copies.insert(to);
        } else if matches!(instruction.code & 0x07, 0x00 | 0x01 | 0x04 | 0x07) {
            copies.remove(&to);
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use pomguard_record as record;
    use pomguard_workspace as workspace;

    fn instruction(code: u8, to: u8, from: u8, off: i16, imm: i32) -> bpf_insn {
        bpf_insn { code, _bitfield_1: bpf_insn::new_bitfield_1(to, from), off, imm, _bitfield_align_1: [] }
    }

    fn store(off: i16) -> bpf_insn {
        instruction(0x7b, FRAME, 1, off, 0)
    }

    fn call(imm: i32) -> bpf_insn {
        instruction(CALL, 0, PSEUDO_CALL, 0, imm)
    }

    fn exit() -> bpf_insn {
        instruction(0x95, 0, 0, 0, 0)
    }

    #[test]
    fn a_frame_reaches_to_its_lowest_access() {
        assert_eq!(frame(&[store(-8), store(-40), store(-16), exit()]), 40);
        assert_eq!(frame(&[exit()]), 0);
    }

    #[test]
    fn an_address_made_of_the_frame_pointer_counts() {
        let made = [instruction(MOVE, 2, FRAME, 0, 0), instruction(ADD, 2, 0, 0, -72), exit()];
        assert_eq!(frame(&made), 72);
        let another = [instruction(MOVE, 2, FRAME, 0, 0), instruction(MOVE, 2, 1, 0, 0), made[1], exit()];
        assert_eq!(frame(&another), 0, "the register holds something else by then");
    }

    #[test]
    fn a_chain_adds_up_rounded_frames_along_its_deepest_branch() {
        // 0: main, 40 bytes, calls 4 and 7; 4: 8 bytes; 7: 100 bytes.
        let program = [store(-40), call(2), call(4), exit(), store(-8), exit(), exit(), store(-100), exit()];
        assert_eq!(deepest_chain(&program).expect("adds up"), 64 + 128);
    }

    #[test]
    fn a_tail_call_alongside_a_call_is_refused() {
        let jump = instruction(CALL, 0, 0, 0, TAIL_CALL);
        assert!(refuse_mixed(&[jump, exit()]).is_ok());
        assert!(refuse_mixed(&[call(1), exit(), exit()]).is_ok());
        assert!(refuse_mixed(&[jump, call(1), exit(), exit()]).is_err());
    }

    #[test]
    fn functions_in_a_circle_are_refused() {
        assert!(deepest_chain(&[call(0), call(-2), exit()]).is_err());
    }

    /// Bytes of stack that the committed object may take: the rest is room to grow.
    const BUDGET: u32 = 448;

    #[test]
    fn the_committed_object_fits_the_strictest_kernel() {
        let object = fs::read(workspace::root().join(record::OBJECT)).expect("is committed");
        let depths = of_programs(&object).expect("can be read");
        assert_eq!(depths.len(), 4);
        for (name, depth) in depths {
            assert!((1..=BUDGET).contains(&depth), "{name}: {depth} of {BUDGET} bytes");
        }
    }
}
