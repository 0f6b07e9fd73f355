//! One to two bits a value: a sign, or -1, 0, 1 (and 2 in Q2_0), times one scale.

use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::{Block, half, sizes};

/// Five ternary digits a byte: byte b holds the number x = ceil(256 n / 243), of which digit k
/// (most significant first) is (3^k x mod 256) * 3 / 256. Of bytes 0..32 the first digits are
/// values 0..32, the second 32..64, and so on to 160; of bytes 32..48, values 160..240 in rows of
/// 16; `rest` has four digits a byte, values 240..256 in rows of 4.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Tq1_0 {
    /// Five digits each.
    pub codes: [u8; 48],
    /// Four digits each.
    pub rest: [u8; 4],
    /// f16.
    pub scale: [u8; 2],
}

/// value = (code - 1) * scale. Of each 32 bytes, bits 0-1 are values 0..32, bits 2-3 32..64 ...
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Tq2_0 {
    /// 2 bits each.
    pub codes: [u8; 64],
    /// f16.
    pub scale: [u8; 2],
}

/// Bit i set: value i is the scale, else minus the scale.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Q1_0 {
    /// f16.
    pub scale: [u8; 2],
    /// A bit each.
    pub codes: [u8; 16],
}

/// value = (code - 1) * scale; four values a byte, lowest bits first.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Q2_0 {
    /// f16.
    pub scale: [u8; 2],
    /// 2 bits each.
    pub codes: [u8; 16],
}

sizes!(TQ1_0: Tq1_0, TQ2_0: Tq2_0, Q1_0: Q1_0, Q2_0: Q2_0);

impl Block for Tq1_0 {
    const LEN: usize = 256;

    fn dequantise(&self, out: &mut [f32]) {
        let scale = half(self.scale);
        let digit = |byte: u8, k: usize| {
            let power = [1, 3, 9, 27, 81][k];
            let code = (u16::from(byte.wrapping_mul(power)) * 3) >> 8;
            (f32::from(code) - 1.0) * scale
        };
        for (i, out) in out.iter_mut().enumerate() {
            *out = match i {
                0..160 => digit(self.codes[i % 32], i / 32),
                160..240 => digit(self.codes[32 + i % 16], (i - 160) / 16),
                _ => digit(self.rest[i % 4], (i - 240) / 4),
            };
        }
    }
}

impl Block for Tq2_0 {
    const LEN: usize = 256;

    fn dequantise(&self, out: &mut [f32]) {
        let scale = half(self.scale);
        for (i, out) in out.iter_mut().enumerate() {
            let code = self.codes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
            *out = (f32::from(code) - 1.0) * scale;
        }
    }
}

impl Block for Q1_0 {
    const LEN: usize = 128;

    fn dequantise(&self, out: &mut [f32]) {
        let scale = half(self.scale);
        for (i, out) in out.iter_mut().enumerate() {
            *out = if self.codes[i / 8] >> (i % 8) & 1 == 1 { scale } else { -scale };
        }
    }
}

impl Block for Q2_0 {
    const LEN: usize = 64;

    fn dequantise(&self, out: &mut [f32]) {
        let scale = half(self.scale);
        for (i, out) in out.iter_mut().enumerate() {
            let code = self.codes[i / 4] >> (i % 4 * 2) & 3;
            *out = (f32::from(code) - 1.0) * scale;
        }
    }
}
