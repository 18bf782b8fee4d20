//! An assembler for the BPF instructions that the minimal program needs.

use std::collections::BTreeMap;

/// A register, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Register(pub(super) u8);

/// The width of a load or store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// One byte.
    Byte = 0x10,
    /// Two bytes.
    Half = 0x08,
    /// Four bytes.
    Word = 0x00,
    /// Eight bytes.
    Double = 0x18,
}

/// The condition of a jump, as the operation code of a comparison with an immediate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Equal = 0x15,
    Differs = 0x55,
    /// Greater, without sign.
    Greater = 0x25,
    /// Less, without sign.
    Less = 0xa5,
}

/// Bit of an operation code: the second operand is a register.
const OF_REGISTER: u8 = 0x08;
/// Source register of a load that refers to a map's value by descriptor (`BPF_PSEUDO_MAP_VALUE`, Linux 5.2).
const MAP_VALUE: u8 = 2;

/// Instructions, and jumps with unresolved targets.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    instructions: Vec<u64>,
    labels: BTreeMap<&'static str, usize>,
    jumps: Vec<(usize, &'static str)>,
}

impl Assembler {
    fn push(&mut self, code: u8, to: Register, from: u8, offset: i16, immediate: i32) {
        let registers = to.0 | from << 4;
        let [low, high] = offset.to_le_bytes();
        let [a, b, c, d] = immediate.to_le_bytes();
        self.instructions.push(u64::from_le_bytes([code, registers, low, high, a, b, c, d]));
    }

    /// Gives the next instruction a name, as the target of jumps.
    pub(super) fn label(&mut self, name: &'static str) {
        self.labels.insert(name, self.instructions.len());
    }

    /// Sets a register to a number.
    pub(super) fn set(&mut self, to: Register, value: i32) {
        self.push(0xb7, to, 0, 0, value);
    }

    /// Copies register `from` to register `to`.
    pub(super) fn copy(&mut self, to: Register, from: Register) {
        self.push(0xbf, to, from.0, 0, 0);
    }

    /// Adds a number to a register.
    pub(super) fn add(&mut self, to: Register, value: i32) {
        self.push(0x07, to, 0, 0, value);
    }

    /// Sets a register to the bitwise AND with a number.
    pub(super) fn and(&mut self, to: Register, value: i32) {
        self.push(0x57, to, 0, 0, value);
    }

    /// Sets a register to the bitwise OR with a number.
    pub(super) fn or(&mut self, to: Register, value: i32) {
        self.push(0x47, to, 0, 0, value);
    }

    /// Shifts a register to the right by a number of bits.
    pub(super) fn shift_right(&mut self, to: Register, bits: i32) {
        self.push(0x77, to, 0, 0, bits);
    }

    /// Shifts a register to the right by another register.
    pub(super) fn shift_right_by(&mut self, to: Register, from: Register) {
        self.push(0x7f, to, from.0, 0, 0);
    }

    /// Adds another register to a register.
    pub(super) fn add_register(&mut self, to: Register, from: Register) {
        self.push(0x0f, to, from.0, 0, 0);
    }

    /// Sets a register to the bitwise AND with another register.
    pub(super) fn and_register(&mut self, to: Register, from: Register) {
        self.push(0x5f, to, from.0, 0, 0);
    }

    /// Sets a register to the bitwise XOR with another register.
    pub(super) fn xor_register(&mut self, to: Register, from: Register) {
        self.push(0xaf, to, from.0, 0, 0);
    }

    /// Converts the low 16 bits of a register from network byte order to the byte order of this machine.
    pub(super) fn network_to_host(&mut self, to: Register) {
        self.push(0xdc, to, 0, 0, 16);
    }

    /// Loads from memory at `base` + `offset`.
    pub(super) fn load(&mut self, width: Width, to: Register, base: Register, offset: i16) {
        self.push(0x61 | width as u8, to, base.0, offset, 0);
    }

    /// Stores to memory at `base` + `offset`.
    pub(super) fn store(&mut self, width: Width, base: Register, offset: i16, from: Register) {
        self.push(0x63 | width as u8, base, from.0, offset, 0);
    }

    /// Loads the address of the first value of an array.
    pub(super) fn map_value(&mut self, to: Register, descriptor: i32) {
        self.push(0x18, to, MAP_VALUE, 0, descriptor);
        self.push(0, Register(0), 0, 0, 0);
    }

    /// Jumps to a target.
    pub(super) fn jump(&mut self, target: &'static str) {
        self.jumps.push((self.instructions.len(), target));
        self.push(0x05, Register(0), 0, 0, 0);
    }

    /// Jumps if the comparison of a register with a number is true.
    pub(super) fn jump_if(&mut self, left: Register, when: When, right: i32, target: &'static str) {
        self.jumps.push((self.instructions.len(), target));
        self.push(when as u8, left, 0, 0, right);
    }

    /// Jumps if the comparison of two registers is true.
    pub(super) fn jump_if_register(
        &mut self,
        left: Register,
        when: When,
        right: Register,
        target: &'static str,
    ) {
        self.jumps.push((self.instructions.len(), target));
        self.push(when as u8 | OF_REGISTER, left, right.0, 0, 0);
    }

    pub(super) fn exit(&mut self) {
        self.push(0x95, Register(0), 0, 0, 0);
    }

    /// Returns the instructions with every jump resolved; `None` if a target has no name or is too far away.
    pub(super) fn finish(mut self) -> Option<Vec<u64>> {
        for (at, target) in self.jumps {
            let distance = i64::try_from(*self.labels.get(target)?).ok()? - i64::try_from(at).ok()? - 1;
            let [low, high] = i16::try_from(distance).ok()?.to_le_bytes();
            let mut bytes = self.instructions.get(at)?.to_le_bytes();
            (bytes[2], bytes[3]) = (low, high);
            *self.instructions.get_mut(at)? = u64::from_le_bytes(bytes);
        }
        Some(self.instructions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_skips_what_lies_between() {
        let mut code = Assembler::default();
        code.jump_if(Register(1), When::Equal, 7, "end");
        code.set(Register(0), 1);
        code.label("end");
        code.exit();
        let code = code.finish().unwrap();
        assert_eq!(code[0].to_le_bytes(), [0x15, 1, 1, 0, 7, 0, 0, 0]);
        assert_eq!(code[2].to_le_bytes(), [0x95, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_target_without_a_name_makes_no_program() {
        let mut code = Assembler::default();
        code.jump("nowhere");
        assert!(code.finish().is_none());
    }
}
