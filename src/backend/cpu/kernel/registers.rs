//! Blocks in registers, 64 codes at a time, with the scales of every 16: how panels and the kernels
//! of looked-up types take them apart. Layouts stand in `unpack`.

use super::super::simd::wide::Wide;
use super::unpack::{Q2K, Q3K, Q4K, Q5K, Q6K, Q40, Q41, Q50, Q51, Q80, Type32, Type256};

/// A type with 256-value blocks, as registers see it.
pub trait Dot256: Type256 {
    /// Where the two halves of each of the four code vectors belong among 256.
    const HALVES: [[usize; 2]; 4];
    /// Its codes.
    fn codes<S: Wide>(s: S, block: &[u8]) -> [S::B; 4];
    /// Its scales and mins, of every 16.
    fn scales(block: &[u8]) -> ([i8; 16], [i8; 16]);
    /// d and dmin (0 if there is none).
    fn factors<S: Wide>(s: S, block: &[u8]) -> [f32; 2];
}

/// A type with 32-value blocks, as registers see it.
pub trait Dot32: Type32 {
    /// Subtracted from every code.
    const OFFSET: u8;
    /// Values 64 `pair` to 64 `pair` + 63 of some blocks as codes; the last 32 may be any.
    fn codes<S: Wide>(s: S, blocks: &[u8], pair: usize) -> S::B;
}

/// Two blocks of 32 values; the first again if there is no second.
#[inline(always)]
pub(super) fn two<T: Type32>(blocks: &[u8], pair: usize) -> [&[u8]; 2] {
    let (a, b) = blocks[2 * pair * T::BYTES..].split_at(T::BYTES);
    [a, if b.is_empty() { a } else { b }]
}

#[inline(always)]
pub(super) fn bytes<const N: usize>(b: &[u8], at: usize) -> &[u8; N] {
    b[at..].first_chunk().unwrap_or(&[0; N])
}

#[inline(always)]
pub(super) fn half<S: Wide>(s: S, b: &[u8], at: usize) -> f32 {
    s.half(u16::from_le_bytes(*bytes(b, at)))
}

/// The eight 6-bit scales and mins of Q4_K and Q5_K, a byte each.
#[inline(always)]
fn scales_6bit(b: &[u8]) -> (u64, u64) {
    let word = |at: usize| u32::from_le_bytes(*bytes(b, at));
    let (a, m, h) = (word(4), word(8), word(12));
    let s = (h & 0x0f0f_0f0f) | ((a >> 2) & 0x3030_3030);
    let n = ((h >> 4) & 0x0f0f_0f0f) | ((m >> 2) & 0x3030_3030);
    let pair = |lo: u32, hi: u32| u64::from(lo & 0x3f3f_3f3f) | u64::from(hi) << 32;
    (pair(a, s), pair(m, n))
}

/// Where the halves of the code vectors of Q4_K and Q5_K belong.
const NIBBLE_HALVES: [[usize; 2]; 4] = [[0, 64], [32, 96], [128, 192], [160, 224]];
/// Where those of Q2_K and Q3_K belong.
pub(super) const PLANE_HALVES: [[usize; 2]; 4] = [[0, 128], [32, 160], [64, 192], [96, 224]];
/// Where those of Q6_K belong: in order.
pub(super) const IN_ORDER: [[usize; 2]; 4] = [[0, 32], [64, 96], [128, 160], [192, 224]];

/// A byte for each sixteen from a byte for each 32.
#[inline(always)]
fn twice(word: u64) -> [i8; 16] {
    let bytes = word.to_le_bytes();
    std::array::from_fn(|i| bytes[i / 2].cast_signed())
}

impl Dot256 for Q4K {
    const HALVES: [[usize; 2]; 4] = NIBBLE_HALVES;
    #[inline(always)]
    fn codes<S: Wide>(s: S, b: &[u8]) -> [S::B; 4] {
        let mask = s.splat_b(15);
        let (p, q) = (s.load_b(bytes(b, 16)), s.load_b(bytes(b, 80)));
        let (p4, q4) = (s.shr_b::<4>(p), s.shr_b::<4>(q));
        [s.and_b(p, mask), s.and_b(p4, mask), s.and_b(q, mask), s.and_b(q4, mask)]
    }
    #[inline(always)]
    fn scales(b: &[u8]) -> ([i8; 16], [i8; 16]) {
        let (scales, mins) = scales_6bit(b);
        (twice(scales), twice(mins))
    }
    #[inline(always)]
    fn factors<S: Wide>(s: S, b: &[u8]) -> [f32; 2] {
        [half(s, b, 0), half(s, b, 2)]
    }
}

impl Dot256 for Q5K {
    const HALVES: [[usize; 2]; 4] = NIBBLE_HALVES;
    #[inline(always)]
    fn codes<S: Wide>(s: S, b: &[u8]) -> [S::B; 4] {
        let (mask, fifth) = (s.splat_b(15), s.splat_b(16));
        let h: &[u8; 32] = bytes(b, 16);
        // Bit 4 p + e of a byte of the first half, bit 4 p + 2 + e of the second.
        let h = s.shr_second::<2>(s.join(h, h));
        let (p, q) = (s.load_b(bytes(b, 48)), s.load_b(bytes(b, 112)));
        [
            merge(s, (p, mask), (s.shl_b::<4>(h), fifth)),
            merge(s, (s.shr_b::<4>(p), mask), (s.shl_b::<3>(h), fifth)),
            merge(s, (q, mask), (h, fifth)),
            merge(s, (s.shr_b::<4>(q), mask), (s.shr_b::<1>(h), fifth)),
        ]
    }
    #[inline(always)]
    fn scales(b: &[u8]) -> ([i8; 16], [i8; 16]) {
        let (scales, mins) = scales_6bit(b);
        (twice(scales), twice(mins))
    }
    #[inline(always)]
    fn factors<S: Wide>(s: S, b: &[u8]) -> [f32; 2] {
        [half(s, b, 0), half(s, b, 2)]
    }
}

/// Some bits of a and some of b.
#[inline(always)]
fn merge<S: Wide>(s: S, (a, a_mask): (S::B, S::B), (b, b_mask): (S::B, S::B)) -> S::B {
    s.or_b(s.and_b(a, a_mask), s.and_b(b, b_mask))
}

/// Codes of half `j` of a block of Q6_K.
#[inline(always)]
fn six_bits<S: Wide>(s: S, b: &[u8], j: usize) -> [S::B; 2] {
    let (mask, upper) = (s.splat_b(15), s.splat_b(48));
    let q = s.load_b(bytes(b, 64 * j));
    let h: &[u8; 32] = bytes(b, 128 + 32 * j);
    let h = s.shr_second::<2>(s.join(h, h));
    let low = merge(s, (q, mask), (s.shl_b::<4>(h), upper));
    [low, merge(s, (s.shr_b::<4>(q), mask), (h, upper))]
}

impl Dot256 for Q6K {
    const HALVES: [[usize; 2]; 4] = IN_ORDER;
    #[inline(always)]
    fn codes<S: Wide>(s: S, b: &[u8]) -> [S::B; 4] {
        let ([a, c], [e, g]) = (six_bits(s, b, 0), six_bits(s, b, 1));
        [a, c, e, g]
    }
    #[inline(always)]
    fn scales(b: &[u8]) -> ([i8; 16], [i8; 16]) {
        (bytes::<16>(b, 192).map(u8::cast_signed), [0; 16])
    }
    #[inline(always)]
    fn factors<S: Wide>(s: S, b: &[u8]) -> [f32; 2] {
        [half(s, b, 208), 0.0]
    }
}

impl Dot256 for Q2K {
    const HALVES: [[usize; 2]; 4] = PLANE_HALVES;
    #[inline(always)]
    fn codes<S: Wide>(s: S, b: &[u8]) -> [S::B; 4] {
        let mask = s.splat_b(3);
        let q = s.load_b(bytes(b, 16));
        let (q2, q4, q6) = (s.shr_b::<2>(q), s.shr_b::<4>(q), s.shr_b::<6>(q));
        [s.and_b(q, mask), s.and_b(q2, mask), s.and_b(q4, mask), s.and_b(q6, mask)]
    }
    #[inline(always)]
    fn scales(b: &[u8]) -> ([i8; 16], [i8; 16]) {
        let word = u128::from_le_bytes(*bytes(b, 0));
        let low = u128::from_le_bytes([15; 16]);
        let signed = |word: u128| (word & low).to_le_bytes().map(u8::cast_signed);
        (signed(word), signed(word >> 4))
    }
    #[inline(always)]
    fn factors<S: Wide>(s: S, b: &[u8]) -> [f32; 2] {
        [half(s, b, 80), half(s, b, 82)]
    }
}

impl Dot256 for Q3K {
    const HALVES: [[usize; 2]; 4] = PLANE_HALVES;
    #[inline(always)]
    fn codes<S: Wide>(s: S, b: &[u8]) -> [S::B; 4] {
        let (mask, third) = (s.splat_b(3), s.splat_b(4));
        let q = s.load_b(bytes(b, 32));
        let h: &[u8; 32] = bytes(b, 0);
        // Bit e of a byte of the first half, bit 4 + e of the second.
        let h = s.shr_second::<4>(s.join(h, h));
        [
            merge(s, (q, mask), (s.shl_b::<2>(h), third)),
            merge(s, (s.shr_b::<2>(q), mask), (s.shl_b::<1>(h), third)),
            merge(s, (s.shr_b::<4>(q), mask), (h, third)),
            merge(s, (s.shr_b::<6>(q), mask), (s.shr_b::<1>(h), third)),
        ]
    }
    #[inline(always)]
    fn scales(b: &[u8]) -> ([i8; 16], [i8; 16]) {
        let (lo, hi) = (u64::from_le_bytes(*bytes(b, 96)), u32::from_le_bytes(*bytes(b, 104)));
        let pairs = |shift: u32| u64::from((hi >> shift) & 0x0303_0303) << 4;
        let nibbles = |shift: u32| (lo >> shift) & 0x0f0f_0f0f_0f0f_0f0f;
        let first = nibbles(0) | pairs(0) | pairs(2) << 32;
        let second = nibbles(4) | pairs(4) | pairs(6) << 32;
        let scales = (u128::from(first) | u128::from(second) << 64).to_le_bytes();
        (scales.map(|scale| scale.cast_signed() - 32), [0; 16])
    }
    #[inline(always)]
    fn factors<S: Wide>(s: S, b: &[u8]) -> [f32; 2] {
        [half(s, b, 108), 0.0]
    }
}

impl Dot32 for Q40 {
    const OFFSET: u8 = 8;
    #[inline(always)]
    fn codes<S: Wide>(s: S, blocks: &[u8], pair: usize) -> S::B {
        let [a, b] = two::<Self>(blocks, pair);
        s.nibbles(bytes(a, 2), bytes(b, 2))
    }
}

impl Dot32 for Q41 {
    const OFFSET: u8 = 0;
    #[inline(always)]
    fn codes<S: Wide>(s: S, blocks: &[u8], pair: usize) -> S::B {
        let [a, b] = two::<Self>(blocks, pair);
        s.nibbles(bytes(a, 4), bytes(b, 4))
    }
}

/// Nibbles with a fifth bit from two words.
#[inline(always)]
fn fives<S: Wide>(s: S, nibbles: S::B, a: [u8; 4], b: [u8; 4]) -> S::B {
    let bits = u64::from(u32::from_le_bytes(a)) | u64::from(u32::from_le_bytes(b)) << 32;
    s.or_b(nibbles, s.and_b(s.spread_bits(bits), s.splat_b(16)))
}

impl Dot32 for Q50 {
    const OFFSET: u8 = 16;
    #[inline(always)]
    fn codes<S: Wide>(s: S, blocks: &[u8], pair: usize) -> S::B {
        let [a, b] = two::<Self>(blocks, pair);
        let nibbles = s.nibbles(bytes(a, 6), bytes(b, 6));
        fives(s, nibbles, *bytes(a, 2), *bytes(b, 2))
    }
}

impl Dot32 for Q51 {
    const OFFSET: u8 = 0;
    #[inline(always)]
    fn codes<S: Wide>(s: S, blocks: &[u8], pair: usize) -> S::B {
        let [a, b] = two::<Self>(blocks, pair);
        let nibbles = s.nibbles(bytes(a, 8), bytes(b, 8));
        fives(s, nibbles, *bytes(a, 4), *bytes(b, 4))
    }
}

impl Dot32 for Q80 {
    const OFFSET: u8 = 128;
    #[inline(always)]
    fn codes<S: Wide>(s: S, blocks: &[u8], pair: usize) -> S::B {
        let [a, b] = two::<Self>(blocks, pair);
        s.flip_sign(s.join(bytes(a, 2), bytes(b, 2)))
    }
}
