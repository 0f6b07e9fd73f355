//! Blocks of 32 with one scale: 4, 5 or 8 bits a value, with a minimum (`_1`) or without (`_0`).
//! The low nibbles of `codes` are values 0..16, the high ones 16..32; bit i of `high` is value i's
//! fifth bit.

use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::{Block, half, sizes};

/// value = (code - 8) * scale.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Q4_0 {
    /// f16.
    pub scale: [u8; 2],
    /// Nibbles.
    pub codes: [u8; 16],
}

/// value = code * scale + min.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Q4_1 {
    /// f16.
    pub scale: [u8; 2],
    /// f16.
    pub min: [u8; 2],
    /// Nibbles.
    pub codes: [u8; 16],
}

/// value = (code - 16) * scale.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Q5_0 {
    /// f16.
    pub scale: [u8; 2],
    /// u32 of fifth bits.
    pub high: [u8; 4],
    /// Nibbles.
    pub codes: [u8; 16],
}

/// value = code * scale + min.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Q5_1 {
    /// f16.
    pub scale: [u8; 2],
    /// f16.
    pub min: [u8; 2],
    /// u32 of fifth bits.
    pub high: [u8; 4],
    /// Nibbles.
    pub codes: [u8; 16],
}

/// value = code * scale.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Q8_0 {
    /// f16.
    pub scale: [u8; 2],
    /// A value each.
    pub codes: [i8; 32],
}

sizes!(Q4_0: Q4_0, Q4_1: Q4_1, Q5_0: Q5_0, Q5_1: Q5_1, Q8_0: Q8_0);

/// Writes `value(code)` of each of the 32 codes, with the fifth bits of `high`.
fn each(codes: &[u8; 16], high: u32, out: &mut [f32], value: impl Fn(u8) -> f32) {
    for (i, out) in out.iter_mut().enumerate() {
        let fifth = ((high >> i & 1) as u8) << 4;
        *out = value(codes[i % 16] >> (i / 16 * 4) & 15 | fifth);
    }
}

impl Block for Q4_0 {
    const LEN: usize = 32;

    fn dequantise(&self, out: &mut [f32]) {
        let scale = half(self.scale);
        each(&self.codes, 0, out, |code| (f32::from(code) - 8.0) * scale);
    }
}

impl Block for Q4_1 {
    const LEN: usize = 32;

    fn dequantise(&self, out: &mut [f32]) {
        let (scale, min) = (half(self.scale), half(self.min));
        each(&self.codes, 0, out, |code| f32::from(code) * scale + min);
    }
}

impl Block for Q5_0 {
    const LEN: usize = 32;

    fn dequantise(&self, out: &mut [f32]) {
        let (scale, high) = (half(self.scale), u32::from_le_bytes(self.high));
        each(&self.codes, high, out, |code| (f32::from(code) - 16.0) * scale);
    }
}

impl Block for Q5_1 {
    const LEN: usize = 32;

    fn dequantise(&self, out: &mut [f32]) {
        let (scale, min) = (half(self.scale), half(self.min));
        let high = u32::from_le_bytes(self.high);
        each(&self.codes, high, out, |code| f32::from(code) * scale + min);
    }
}

impl Block for Q8_0 {
    const LEN: usize = 32;

    fn dequantise(&self, out: &mut [f32]) {
        let scale = half(self.scale);
        for (code, out) in self.codes.iter().zip(out) {
            *out = f32::from(*code) * scale;
        }
    }
}
