//! Super-blocks of 256 values in sub-blocks of 16 or 32, each with a small integer scale (and
//! minimum) that the block's own f16 scales multiply.

use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::{Block, half, sizes};

/// 16 sub-blocks of 16. value = scale * scales[j].low * code - min * scales[j].high.
/// Codes: of each 32 bytes, bits 0-1 are values 0..32, bits 2-3 values 32..64, and so on.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Q2K {
    /// Low nibble: scale; high nibble: minimum.
    pub scales: [u8; 16],
    /// 2 bits each.
    pub codes: [u8; 64],
    /// f16.
    pub scale: [u8; 2],
    /// f16.
    pub min: [u8; 2],
}

/// 16 sub-blocks of 16. value = scale * (scales[j] - 32) * (code - (high bit ? 0 : 4)).
/// Codes as in [`Q2K`]; value 32 i + l has its high bit in bit i of `high[l]`.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Q3K {
    /// Third bits.
    pub high: [u8; 32],
    /// 2 bits each.
    pub codes: [u8; 64],
    /// 16 numbers of 6 bits, see [`Q3K::scales`].
    pub scales: [u8; 12],
    /// f16.
    pub scale: [u8; 2],
}

/// 8 sub-blocks of 32. value = scale * s[j] * code - min * m[j].
/// Codes: of each 32 bytes, low nibbles are values 0..32, high nibbles values 32..64.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Q4K {
    /// f16.
    pub scale: [u8; 2],
    /// f16.
    pub min: [u8; 2],
    /// 8 scales and 8 minimums of 6 bits, see [`scales_and_mins`].
    pub scales: [u8; 12],
    /// Nibbles.
    pub codes: [u8; 128],
}

/// As [`Q4K`] with a fifth bit: value 32 i + l has it in bit i of `high[l]`.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Q5K {
    /// f16.
    pub scale: [u8; 2],
    /// f16.
    pub min: [u8; 2],
    /// 8 scales and 8 minimums of 6 bits, see [`scales_and_mins`].
    pub scales: [u8; 12],
    /// Fifth bits.
    pub high: [u8; 32],
    /// Nibbles.
    pub codes: [u8; 128],
}

/// 16 sub-blocks of 16. value = scale * scales[j] * (code - 32). Each half (128 values) has 64
/// bytes of `low`: low nibbles for values 0..64, high ones for 64..128; and 32 bytes of `high`:
/// bits 0-1 for values 0..32, bits 2-3 for 32..64, and so on.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Q6K {
    /// Low 4 bits.
    pub low: [u8; 128],
    /// High 2 bits.
    pub high: [u8; 64],
    /// A sub-block each.
    pub scales: [i8; 16],
    /// f16.
    pub scale: [u8; 2],
}

/// Activations of K types. value = scale * code.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Q8K {
    /// f32.
    pub scale: [u8; 4],
    /// A value each.
    pub codes: [i8; 256],
    /// i16: the sum of each 16 codes.
    pub sums: [[u8; 2]; 16],
}

sizes!(Q2_K: Q2K, Q3_K: Q3K, Q4_K: Q4K, Q5_K: Q5K, Q6_K: Q6K, Q8_K: Q8K);

/// Unpacks the 6-bit scales and minimums of [`Q4K`] and [`Q5K`]. Numbers 0..4 are the low 6 bits of
/// bytes 0..4 (scales) and 4..8 (minimums), whose top 2 bits are those of numbers 4..8; the low 4
/// bits of these are the nibbles of bytes 8..12.
#[must_use]
pub fn scales_and_mins(packed: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let (mut scales, mut mins) = ([0; 8], [0; 8]);
    for i in 0..4 {
        let (scale, min, rest) = (packed[i], packed[i + 4], packed[i + 8]);
        scales[i] = scale & 63;
        mins[i] = min & 63;
        scales[i + 4] = rest & 15 | scale >> 6 << 4;
        mins[i + 4] = rest >> 4 | min >> 6 << 4;
    }
    (scales, mins)
}

impl Q3K {
    /// Unpacks the scales, 32 subtracted. The low 4 bits of numbers 0..8 and 8..16 are the low and
    /// high nibbles of bytes 0..8; the high 2 bits of number i are in byte 8 + i % 4, from bit
    /// 2 (i / 4) on.
    #[must_use]
    pub fn scales(&self) -> [i8; 16] {
        std::array::from_fn(|i| {
            let low = self.scales[i % 8] >> (i / 8 * 4) & 15;
            let high = self.scales[8 + i % 4] >> (i / 4 * 2) & 3;
            (low | high << 4) as i8 - 32
        })
    }
}

/// The 2 bits of value `i` in codes laid out as in [`Q2K`].
fn two_bits(codes: &[u8; 64], i: usize) -> u8 {
    codes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3
}

/// The nibble of value `i` in codes laid out as in [`Q4K`].
fn nibble(codes: &[u8; 128], i: usize) -> u8 {
    codes[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15
}

impl Block for Q2K {
    const LEN: usize = 256;

    fn dequantise(&self, out: &mut [f32]) {
        let (scale, min) = (half(self.scale), half(self.min));
        for (j, out) in out.chunks_exact_mut(16).enumerate() {
            let scale = scale * f32::from(self.scales[j] & 15);
            let min = min * f32::from(self.scales[j] >> 4);
            for (l, out) in out.iter_mut().enumerate() {
                *out = scale * f32::from(two_bits(&self.codes, j * 16 + l)) - min;
            }
        }
    }
}

impl Block for Q3K {
    const LEN: usize = 256;

    fn dequantise(&self, out: &mut [f32]) {
        let scale = half(self.scale);
        for ((j, out), small) in out.chunks_exact_mut(16).enumerate().zip(self.scales()) {
            let scale = scale * f32::from(small);
            for (l, out) in out.iter_mut().enumerate() {
                let i = j * 16 + l;
                let high = self.high[i % 32] >> (i / 32) & 1;
                let code = two_bits(&self.codes, i) | high << 2;
                *out = scale * (f32::from(code) - 4.0);
            }
        }
    }
}

impl Block for Q4K {
    const LEN: usize = 256;

    fn dequantise(&self, out: &mut [f32]) {
        let (scale, min) = (half(self.scale), half(self.min));
        let (scales, mins) = scales_and_mins(&self.scales);
        for (j, out) in out.chunks_exact_mut(32).enumerate() {
            let (scale, min) = (scale * f32::from(scales[j]), min * f32::from(mins[j]));
            for (l, out) in out.iter_mut().enumerate() {
                *out = scale * f32::from(nibble(&self.codes, j * 32 + l)) - min;
            }
        }
    }
}

impl Block for Q5K {
    const LEN: usize = 256;

    fn dequantise(&self, out: &mut [f32]) {
        let (scale, min) = (half(self.scale), half(self.min));
        let (scales, mins) = scales_and_mins(&self.scales);
        for (j, out) in out.chunks_exact_mut(32).enumerate() {
            let (scale, min) = (scale * f32::from(scales[j]), min * f32::from(mins[j]));
            for (l, out) in out.iter_mut().enumerate() {
                let code = nibble(&self.codes, j * 32 + l) | (self.high[l] >> j & 1) << 4;
                *out = scale * f32::from(code) - min;
            }
        }
    }
}

impl Block for Q6K {
    const LEN: usize = 256;

    fn dequantise(&self, out: &mut [f32]) {
        let scale = half(self.scale);
        for ((j, out), small) in out.chunks_exact_mut(16).enumerate().zip(self.scales) {
            let scale = scale * f32::from(small);
            for (l, out) in out.iter_mut().enumerate() {
                let i = j * 16 + l;
                let low = self.low[i / 128 * 64 + i % 64] >> (i % 128 / 64 * 4) & 15;
                let code = low | two_bits(&self.high, i) << 4;
                *out = scale * (f32::from(code) - 32.0);
            }
        }
    }
}

impl Block for Q8K {
    const LEN: usize = 256;

    fn dequantise(&self, out: &mut [f32]) {
        let scale = f32::from_le_bytes(self.scale);
        for (code, out) in self.codes.iter().zip(out) {
            *out = scale * f32::from(*code);
        }
    }
}
