//! Codes into grids of vectors (IQ1 to IQ3) and into a table of unevenly spaced values (IQ4).
//! Super-blocks of 256 values; numbers of several bytes are little-endian.

use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::{Block, grids, half, sizes};

/// The 16 values of IQ4_NL and IQ4_XS.
pub const IQ4_VALUES: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// What IQ1 types add to or subtract from every value of a vector.
pub const IQ1_DELTA: f32 = 0.125;

/// 8 groups of 32 values. A group is four codes of 8 bits, then a u32: four times 7 bits of
/// signs, and s in the top 4 bits. value = scale * (0.5 + s) / 4 * grid.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Iq2Xxs {
    /// f16.
    pub scale: [u8; 2],
    /// Codes and signs of each group.
    pub groups: [[u8; 8]; 8],
}

/// 32 vectors of 8: a u16 each, 9 bits of code and 7 of signs. Nibble j of `scales` is s of vectors
/// 2j and 2j + 1. value = scale * (0.5 + s) / 4 * grid.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Iq2Xs {
    /// f16.
    pub scale: [u8; 2],
    /// u16 each.
    pub codes: [[u8; 2]; 32],
    /// Nibbles, low one first.
    pub scales: [u8; 8],
}

/// 32 vectors of 8: 8 bits of code, 2 more in `high`, a byte of signs. Scales as [`Iq2Xs`].
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Iq2S {
    /// f16.
    pub scale: [u8; 2],
    /// Low 8 bits.
    pub codes: [u8; 32],
    /// A byte a vector.
    pub signs: [u8; 32],
    /// Bits 8 and 9, four vectors a byte.
    pub high: [u8; 8],
    /// Nibbles, low one first.
    pub scales: [u8; 8],
}

/// 64 vectors of 4: a byte each. A u32 for each 32 values: four times 7 bits of signs, and s in
/// the top 4 bits. value = scale * (0.5 + s) / 2 * grid.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Iq3Xxs {
    /// f16.
    pub scale: [u8; 2],
    /// A vector each.
    pub codes: [u8; 64],
    /// u32 each.
    pub signs: [[u8; 4]; 8],
}

/// 64 vectors of 4: 8 bits of code, a ninth in `high`. Nibble j of `scales` is s of 32 values.
/// value = scale * (1 + 2 s) * grid.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Iq3S {
    /// f16.
    pub scale: [u8; 2],
    /// Low 8 bits.
    pub codes: [u8; 64],
    /// Ninth bits.
    pub high: [u8; 8],
    /// A bit a value.
    pub signs: [u8; 32],
    /// Nibbles, low one first.
    pub scales: [u8; 4],
}

/// 32 vectors of 8: 8 bits of code, 3 more in `high`: a u16 for each 4 vectors, which also has s in
/// bits 12..15 and the sign of delta in bit 15. value = scale * (1 + 2 s) * (grid +- delta).
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Iq1S {
    /// f16.
    pub scale: [u8; 2],
    /// Low 8 bits.
    pub codes: [u8; 32],
    /// u16 each.
    pub high: [[u8; 2]; 8],
}

/// 32 vectors of 8: 8 bits of code; a nibble of `high` each has 3 more and the sign of delta.
/// Each u16 of `scales` has four times 3 bits, s for 2 vectors, and 4 bits of the f16 scale.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Iq1M {
    /// Low 8 bits.
    pub codes: [u8; 32],
    /// Nibbles, low one first.
    pub high: [u8; 16],
    /// u16 each.
    pub scales: [[u8; 2]; 4],
}

/// 32 values; low nibbles are values 0..16, high ones 16..32. value = scale * table.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Iq4Nl {
    /// f16.
    pub scale: [u8; 2],
    /// Nibbles.
    pub codes: [u8; 16],
}

/// 8 sub-blocks laid out as [`Iq4Nl`]. value = scale * (s - 32) * table, s of 6 bits.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Iq4Xs {
    /// f16.
    pub scale: [u8; 2],
    /// u16: top 2 bits of each s.
    pub scales_high: [u8; 2],
    /// Nibbles, low one first: low 4 bits of each s.
    pub scales_low: [u8; 4],
    /// Nibbles.
    pub codes: [[u8; 16]; 8],
}

sizes!(
    IQ2_XXS: Iq2Xxs, IQ2_XS: Iq2Xs, IQ2_S: Iq2S, IQ3_XXS: Iq3Xxs, IQ3_S: Iq3S, IQ1_S: Iq1S,
    IQ1_M: Iq1M, IQ4_NL: Iq4Nl, IQ4_XS: Iq4Xs,
);

/// Eight signs from seven bits: the eighth makes the number of minuses even.
#[must_use]
pub fn even_signs(seven: u32) -> u8 {
    let seven = (seven & 127) as u8;
    seven | ((seven.count_ones() as u8 & 1) << 7)
}

/// The nibble with this index, low ones first.
fn nibble(bytes: &[u8], index: usize) -> u8 {
    bytes[index / 2] >> (index % 2 * 4) & 15
}

/// out = scale * grid, negated where `signs` has a bit.
fn signed(out: &mut [f32], scale: f32, grid: &[u8], signs: u8) {
    for (j, (out, magnitude)) in out.iter_mut().zip(grid).enumerate() {
        let value = scale * f32::from(*magnitude);
        *out = if signs >> j & 1 == 1 { -value } else { value };
    }
}

/// out = scale * (grid + delta) with a grid of 0, 1, 2 for -1, 0, 1.
fn shifted(out: &mut [f32], scale: f32, grid: &[u8; 8], minus: bool) {
    let delta = if minus { -IQ1_DELTA } else { IQ1_DELTA };
    for (out, digit) in out.iter_mut().zip(grid) {
        *out = scale * ((f32::from(*digit) - 1.0) + delta);
    }
}

impl Block for Iq2Xxs {
    const LEN: usize = 256;

    fn dequantise(&self, out: &mut [f32]) {
        let scale = half(self.scale);
        for (out, group) in out.chunks_exact_mut(32).zip(&self.groups) {
            let [codes @ .., a, b, c, d] = *group;
            let signs = u32::from_le_bytes([a, b, c, d]);
            let scale = scale * (0.5 + (signs >> 28) as f32) * 0.25;
            for (k, out) in out.chunks_exact_mut(8).enumerate() {
                let grid = &grids::IQ2_XXS[usize::from(codes[k])];
                signed(out, scale, grid, even_signs(signs >> (7 * k)));
            }
        }
    }
}

impl Block for Iq2Xs {
    const LEN: usize = 256;

    fn dequantise(&self, out: &mut [f32]) {
        let scale = half(self.scale);
        for ((i, out), code) in out.chunks_exact_mut(8).enumerate().zip(self.codes) {
            let scale = scale * (0.5 + f32::from(nibble(&self.scales, i / 2))) * 0.25;
            let code = u16::from_le_bytes(code);
            let grid = &grids::IQ2_XS[usize::from(code & 511)];
            signed(out, scale, grid, even_signs(u32::from(code >> 9)));
        }
    }
}

impl Block for Iq2S {
    const LEN: usize = 256;

    fn dequantise(&self, out: &mut [f32]) {
        let scale = half(self.scale);
        for (i, out) in out.chunks_exact_mut(8).enumerate() {
            let scale = scale * (0.5 + f32::from(nibble(&self.scales, i / 2))) * 0.25;
            let high = usize::from(self.high[i / 4] >> (i % 4 * 2) & 3);
            let grid = &grids::IQ2_S[usize::from(self.codes[i]) | high << 8];
            signed(out, scale, grid, self.signs[i]);
        }
    }
}

impl Block for Iq3Xxs {
    const LEN: usize = 256;

    fn dequantise(&self, out: &mut [f32]) {
        let scale = half(self.scale);
        for (i, out) in out.chunks_exact_mut(4).enumerate() {
            let signs = u32::from_le_bytes(self.signs[i / 8]);
            let scale = scale * (0.5 + (signs >> 28) as f32) * 0.5;
            let signs = even_signs(signs >> (i % 8 / 2 * 7)) >> (i % 2 * 4);
            signed(out, scale, &grids::IQ3_XXS[usize::from(self.codes[i])], signs);
        }
    }
}

impl Block for Iq3S {
    const LEN: usize = 256;

    fn dequantise(&self, out: &mut [f32]) {
        let scale = half(self.scale);
        for (i, out) in out.chunks_exact_mut(4).enumerate() {
            let scale = scale * f32::from(1 + 2 * nibble(&self.scales, i / 8));
            let high = usize::from(self.high[i / 8] >> (i % 8) & 1);
            let grid = &grids::IQ3_S[usize::from(self.codes[i]) | high << 8];
            signed(out, scale, grid, self.signs[i / 2] >> (i % 2 * 4));
        }
    }
}

impl Block for Iq1S {
    const LEN: usize = 256;

    fn dequantise(&self, out: &mut [f32]) {
        let scale = half(self.scale);
        for (i, out) in out.chunks_exact_mut(8).enumerate() {
            let high = u16::from_le_bytes(self.high[i / 4]);
            let scale = scale * f32::from(2 * (high >> 12 & 7) + 1);
            let code = usize::from(self.codes[i]) | usize::from(high >> (i % 4 * 3) & 7) << 8;
            shifted(out, scale, &grids::IQ1[code], high >> 15 == 1);
        }
    }
}

impl Iq1M {
    /// The scale of the block, put together from the top 4 bits of each number in `scales`.
    #[must_use]
    pub fn scale(&self) -> f32 {
        let [a, b, c, d] = self.scales.map(|bytes| u16::from_le_bytes(bytes) >> 12);
        half((a | b << 4 | c << 8 | d << 12).to_le_bytes())
    }
}

impl Block for Iq1M {
    const LEN: usize = 256;

    fn dequantise(&self, out: &mut [f32]) {
        let scale = self.scale();
        for (i, out) in out.chunks_exact_mut(8).enumerate() {
            let small = u16::from_le_bytes(self.scales[i / 8]) >> (i % 8 / 2 * 3) & 7;
            let scale = scale * f32::from(2 * small + 1);
            let high = nibble(&self.high, i);
            let code = usize::from(self.codes[i]) | usize::from(high & 7) << 8;
            shifted(out, scale, &grids::IQ1[code], high & 8 != 0);
        }
    }
}

/// out = scale * table for 32 values.
fn uneven(out: &mut [f32], scale: f32, codes: &[u8; 16]) {
    for (i, out) in out.iter_mut().enumerate() {
        let code = codes[i % 16] >> (i / 16 * 4) & 15;
        *out = scale * f32::from(IQ4_VALUES[usize::from(code)]);
    }
}

impl Block for Iq4Nl {
    const LEN: usize = 32;

    fn dequantise(&self, out: &mut [f32]) {
        uneven(out, half(self.scale), &self.codes);
    }
}

impl Iq4Xs {
    /// The scales of the sub-blocks, 32 subtracted.
    #[must_use]
    pub fn scales(&self) -> [i8; 8] {
        let high = u16::from_le_bytes(self.scales_high);
        std::array::from_fn(|j| {
            let high = (high >> (2 * j) & 3) as u8;
            (nibble(&self.scales_low, j) | high << 4) as i8 - 32
        })
    }
}

impl Block for Iq4Xs {
    const LEN: usize = 256;

    fn dequantise(&self, out: &mut [f32]) {
        let scale = half(self.scale);
        for ((out, codes), small) in out.chunks_exact_mut(32).zip(&self.codes).zip(self.scales()) {
            uneven(out, scale * f32::from(small), codes);
        }
    }
}
