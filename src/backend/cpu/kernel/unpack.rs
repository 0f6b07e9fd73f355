//! Integer tensor types as codes and scales: the one place that knows their bits (besides `quant`).
//!
//! ```text
//! 256-value block: w[i] = d * scale[i / 16] * (code[i] - OFFSET) - dmin * min[i / 16]
//!  32-value block: w[i] = d * (code[i] - OFFSET) + m
//! ```

use super::super::simd::Simd;

/// Codes and scales of a 256-value block.
#[repr(C, align(64))]
#[derive(Clone, Debug)]
pub struct Block256 {
    /// At most 127 unless the type's offset is 128.
    pub codes: [u8; 256],
    /// Of every 16.
    pub scales: [i16; 16],
    /// Of every 16; zeros if the type has none.
    pub mins: [i16; 16],
    /// Factor on scales.
    pub d: f32,
    /// Factor on mins.
    pub dmin: f32,
}

impl Block256 {
    /// All zero.
    pub const ZERO: Block256 =
        Block256 { codes: [0; 256], scales: [0; 16], mins: [0; 16], d: 0.0, dmin: 0.0 };
}

/// Signed codes and factors of 32 values.
#[repr(C, align(32))]
#[derive(Clone, Debug)]
pub struct Block32 {
    /// Code - offset.
    pub codes: [i8; 32],
    /// Factor on codes.
    pub d: f32,
    /// Added to every value, or the factor on codes from 16 on.
    pub m: f32,
}

impl Block32 {
    /// All zero.
    pub const ZERO: Block32 = Block32 { codes: [0; 32], d: 0.0, m: 0.0 };
}

/// A type with 256-value blocks.
pub trait Type256: 'static {
    /// Bytes of a block.
    const BYTES: usize;
    /// Subtracted from every code.
    const OFFSET: i32;
    /// Whether blocks have mins.
    const MINS: bool;
    /// Values under one scale: 16, 32 or 256.
    const SUB: usize;
    /// Name in kernels' names.
    const NAME: &'static str;
    /// Takes a block of `BYTES` bytes apart.
    fn unpack<S: Simd>(s: S, block: &[u8], out: &mut Block256);
}

/// A type with 32-value blocks, or with blocks of several parts of 32 values.
pub trait Type32: 'static {
    /// Bytes of a block.
    const BYTES: usize;
    /// Parts of a block.
    const PARTS: usize = 1;
    /// Whether blocks have an `m`.
    const MIN: bool = false;
    /// Whether both halves of a part have a factor of their own.
    const HALVES: bool = false;
    /// Name in kernels' names.
    const NAME: &'static str;
    /// `d` and `m` of a part.
    #[inline(always)]
    fn d_and_m<S: Simd>(s: S, block: &[u8], _part: usize) -> [f32; 2] {
        [half_at(s, block, 0), if Self::MIN { half_at(s, block, 2) } else { 0.0 }]
    }
    /// Takes a part of a block of `BYTES` bytes apart: codes - offset.
    fn unpack(block: &[u8], part: usize, codes: &mut [i8; 32]);
}

/// The f16 at a place of a block.
#[inline(always)]
pub(super) fn half_at<S: Simd>(s: S, b: &[u8], at: usize) -> f32 {
    s.half(u16::from_le_bytes([b[at], b[at + 1]]))
}

/// The eight 6-bit scales and mins of Q4_K and Q5_K, each for two sixteens.
///
/// Twelve bytes: low 6 bits of 0..4 are scales 0..4, of 4..8 mins 0..4; the upper two bits are the
/// upper bits of scales and mins 4..8, whose lower four are in bytes 8..12 (low: scale, high: min).
#[inline(always)]
fn scales_6bit(b: &[u8], scales: &mut [i16; 16], mins: &mut [i16; 16]) {
    let word = |at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
    let (a, m, h) = (word(0), word(4), word(8));
    let lo = a & 0x3f3f_3f3f;
    let hi = (h & 0x0f0f_0f0f) | ((a >> 2) & 0x3030_3030);
    let s = (u64::from(hi) << 32 | u64::from(lo)).to_le_bytes();
    let lo = m & 0x3f3f_3f3f;
    let hi = ((h >> 4) & 0x0f0f_0f0f) | ((m >> 2) & 0x3030_3030);
    let m = (u64::from(hi) << 32 | u64::from(lo)).to_le_bytes();
    for i in 0..16 {
        scales[i] = i16::from(s[i / 2]);
        mins[i] = i16::from(m[i / 2]);
    }
}

/// d, dmin, 12 bytes of scales, 128 bytes: 32 low nibbles, then the same 32 bytes' high ones.
pub struct Q4K;
impl Type256 for Q4K {
    const BYTES: usize = 144;
    const OFFSET: i32 = 0;
    const MINS: bool = true;
    const SUB: usize = 32;
    const NAME: &'static str = "q4_k";
    #[inline(always)]
    fn unpack<S: Simd>(s: S, b: &[u8], out: &mut Block256) {
        let b: &[u8; 144] = b.first_chunk().unwrap_or(&[0; 144]);
        (out.d, out.dmin) = (half_at(s, b, 0), half_at(s, b, 2));
        scales_6bit(&b[4..16], &mut out.scales, &mut out.mins);
        for j in 0..4 {
            for i in 0..32 {
                let q = b[16 + 32 * j + i];
                out.codes[64 * j + i] = q & 15;
                out.codes[64 * j + 32 + i] = q >> 4;
            }
        }
    }
}

/// As Q4_K with 32 bytes of fifth bits before the nibbles: bit s of byte i for sub-block s.
pub struct Q5K;
impl Type256 for Q5K {
    const BYTES: usize = 176;
    const OFFSET: i32 = 0;
    const MINS: bool = true;
    const SUB: usize = 32;
    const NAME: &'static str = "q5_k";
    #[inline(always)]
    fn unpack<S: Simd>(s: S, b: &[u8], out: &mut Block256) {
        let b: &[u8; 176] = b.first_chunk().unwrap_or(&[0; 176]);
        (out.d, out.dmin) = (half_at(s, b, 0), half_at(s, b, 2));
        scales_6bit(&b[4..16], &mut out.scales, &mut out.mins);
        for j in 0..4 {
            for i in 0..32 {
                let (q, h) = (b[48 + 32 * j + i], b[16 + i]);
                out.codes[64 * j + i] = (q & 15) | ((h >> (2 * j)) & 1) << 4;
                out.codes[64 * j + 32 + i] = (q >> 4) | ((h >> (2 * j + 1)) & 1) << 4;
            }
        }
    }
}

/// 128 bytes of low nibbles, 64 of upper pairs of bits, 16 scales i8, d. Halves of 128 values.
pub struct Q6K;
impl Type256 for Q6K {
    const BYTES: usize = 210;
    const OFFSET: i32 = 32;
    const MINS: bool = false;
    const SUB: usize = 16;
    const NAME: &'static str = "q6_k";
    #[inline(always)]
    fn unpack<S: Simd>(s: S, b: &[u8], out: &mut Block256) {
        let b: &[u8; 210] = b.first_chunk().unwrap_or(&[0; 210]);
        out.d = half_at(s, b, 208);
        for i in 0..16 {
            out.scales[i] = i16::from(b[192 + i].cast_signed());
        }
        for j in 0..2 {
            for i in 0..32 {
                let (a, c) = (b[64 * j + i], b[64 * j + 32 + i]);
                let h = b[128 + 32 * j + i];
                out.codes[128 * j + i] = (a & 15) | (h & 3) << 4;
                out.codes[128 * j + 32 + i] = (c & 15) | ((h >> 2) & 3) << 4;
                out.codes[128 * j + 64 + i] = (a >> 4) | ((h >> 4) & 3) << 4;
                out.codes[128 * j + 96 + i] = (c >> 4) | ((h >> 6) & 3) << 4;
            }
        }
    }
}

/// 16 bytes of scales (low nibble) and mins (high), 64 bytes of pairs of bits, d, dmin.
pub struct Q2K;
impl Type256 for Q2K {
    const BYTES: usize = 84;
    const OFFSET: i32 = 0;
    const MINS: bool = true;
    const SUB: usize = 16;
    const NAME: &'static str = "q2_k";
    #[inline(always)]
    fn unpack<S: Simd>(s: S, b: &[u8], out: &mut Block256) {
        let b: &[u8; 84] = b.first_chunk().unwrap_or(&[0; 84]);
        (out.d, out.dmin) = (half_at(s, b, 80), half_at(s, b, 82));
        for i in 0..16 {
            out.scales[i] = i16::from(b[i] & 15);
            out.mins[i] = i16::from(b[i] >> 4);
        }
        for j in 0..2 {
            for s in 0..4 {
                for i in 0..32 {
                    out.codes[128 * j + 32 * s + i] = (b[16 + 32 * j + i] >> (2 * s)) & 3;
                }
            }
        }
    }
}

/// 32 bytes of third bits, 64 of pairs of bits, 12 bytes with sixteen 6-bit scales, d.
pub struct Q3K;
impl Type256 for Q3K {
    const BYTES: usize = 110;
    const OFFSET: i32 = 4;
    const MINS: bool = false;
    const SUB: usize = 16;
    const NAME: &'static str = "q3_k";
    #[inline(always)]
    fn unpack<S: Simd>(s: S, b: &[u8], out: &mut Block256) {
        let b: &[u8; 110] = b.first_chunk().unwrap_or(&[0; 110]);
        out.d = half_at(s, b, 108);
        for i in 0..16 {
            let lo = (b[96 + i % 8] >> (4 * (i / 8))) & 15;
            let hi = (b[104 + i % 4] >> (2 * (i / 4))) & 3;
            out.scales[i] = i16::from(lo | hi << 4) - 32;
        }
        for j in 0..2 {
            for s in 0..4 {
                for i in 0..32 {
                    let q = (b[32 + 32 * j + i] >> (2 * s)) & 3;
                    let h = (b[i] >> (4 * j + s)) & 1;
                    out.codes[128 * j + 32 * s + i] = q | h << 2;
                }
            }
        }
    }
}

#[inline(always)]
fn nibbles(qs: &[u8], high: [u8; 4], offset: i8, codes: &mut [i8; 32]) {
    let high = u32::from_le_bytes(high);
    for i in 0..16 {
        let lo = (qs[i] & 15) | ((high >> i) as u8 & 1) << 4;
        let hi = (qs[i] >> 4) | ((high >> (i + 16)) as u8 & 1) << 4;
        codes[i] = lo.cast_signed() - offset;
        codes[i + 16] = hi.cast_signed() - offset;
    }
}

/// d, 16 bytes: low nibbles are values 0..16, high ones 16..32.
pub struct Q40;
impl Type32 for Q40 {
    const BYTES: usize = 18;
    const NAME: &'static str = "q4_0";
    #[inline(always)]
    fn unpack(b: &[u8], _: usize, codes: &mut [i8; 32]) {
        let b: &[u8; 18] = b.first_chunk().unwrap_or(&[0; 18]);
        nibbles(&b[2..], [0; 4], 8, codes);
    }
}

/// As Q4_0 with m instead of an offset.
pub struct Q41;
impl Type32 for Q41 {
    const BYTES: usize = 20;
    const MIN: bool = true;
    const NAME: &'static str = "q4_1";
    #[inline(always)]
    fn unpack(b: &[u8], _: usize, codes: &mut [i8; 32]) {
        let b: &[u8; 20] = b.first_chunk().unwrap_or(&[0; 20]);
        nibbles(&b[4..], [0; 4], 0, codes);
    }
}

/// As Q4_0 with 4 bytes of fifth bits before the nibbles.
pub struct Q50;
impl Type32 for Q50 {
    const BYTES: usize = 22;
    const NAME: &'static str = "q5_0";
    #[inline(always)]
    fn unpack(b: &[u8], _: usize, codes: &mut [i8; 32]) {
        let b: &[u8; 22] = b.first_chunk().unwrap_or(&[0; 22]);
        nibbles(&b[6..], [b[2], b[3], b[4], b[5]], 16, codes);
    }
}

/// As Q5_0 with m instead of an offset.
pub struct Q51;
impl Type32 for Q51 {
    const BYTES: usize = 24;
    const MIN: bool = true;
    const NAME: &'static str = "q5_1";
    #[inline(always)]
    fn unpack(b: &[u8], _: usize, codes: &mut [i8; 32]) {
        let b: &[u8; 24] = b.first_chunk().unwrap_or(&[0; 24]);
        nibbles(&b[8..], [b[4], b[5], b[6], b[7]], 0, codes);
    }
}

/// d, 32 bytes.
pub struct Q80;
impl Type32 for Q80 {
    const BYTES: usize = 34;
    const NAME: &'static str = "q8_0";
    #[inline(always)]
    fn unpack(b: &[u8], _: usize, codes: &mut [i8; 32]) {
        let b: &[u8; 34] = b.first_chunk().unwrap_or(&[0; 34]);
        for i in 0..32 {
            codes[i] = b[2 + i].cast_signed();
        }
    }
}
