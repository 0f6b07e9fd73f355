//! Four-bit floats (E2M1) with a small float as scale. The table holds doubled values, so scales
//! are halved.

use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::{Block, sizes};

/// Twice the values of E2M1: sign, two bits of exponent, one of mantissa.
pub const E2M1_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// 32 values; low nibbles are values 0..16, high ones 16..32.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Mxfp4 {
    /// E8M0: 2^(x - 127).
    pub scale: u8,
    /// Nibbles.
    pub codes: [u8; 16],
}

/// 4 sub-blocks of 16; in each, low nibbles are values 0..8, high ones 8..16.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Nvfp4 {
    /// Unsigned E4M3, a sub-block each.
    pub scales: [u8; 4],
    /// Nibbles.
    pub codes: [[u8; 8]; 4],
}

sizes!(MXFP4: Mxfp4, NVFP4: Nvfp4);

/// Half of an E8M0 number: 2^(x - 128), subnormal for 0 and 1.
#[must_use]
pub const fn e8m0_half(x: u8) -> f32 {
    f32::from_bits(match x {
        0 | 1 => 0x0020_0000 << x,
        _ => (x as u32 - 1) << 23,
    })
}

/// Half of an unsigned E4M3 number; its top bit is ignored and 0x7f (NaN) is 0.
#[must_use]
pub const fn ue4m3_half(x: u8) -> f32 {
    match (x >> 3 & 15, x & 7) {
        (15, 7) if x == 0x7f => 0.0,
        // Subnormal: so many times 2^-10, which is 117 - 127.
        (0, mantissa) => mantissa as f32 * f32::from_bits(117 << 23),
        (exponent, mantissa) => {
            f32::from_bits((exponent as u32 + 119) << 23 | (mantissa as u32) << 20)
        }
    }
}

fn value(code: u8) -> f32 {
    f32::from(E2M1_DOUBLED[usize::from(code & 15)])
}

impl Block for Mxfp4 {
    const LEN: usize = 32;

    fn dequantise(&self, out: &mut [f32]) {
        let scale = e8m0_half(self.scale);
        for (i, out) in out.iter_mut().enumerate() {
            *out = scale * value(self.codes[i % 16] >> (i / 16 * 4));
        }
    }
}

impl Block for Nvfp4 {
    const LEN: usize = 64;

    fn dequantise(&self, out: &mut [f32]) {
        for (j, out) in out.chunks_exact_mut(16).enumerate() {
            let scale = ue4m3_half(self.scales[j]);
            for (l, out) in out.iter_mut().enumerate() {
                *out = scale * value(self.codes[j][l % 8] >> (l / 8 * 4));
            }
        }
    }
}
